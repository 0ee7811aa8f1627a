"""A queue, for blocking code."""

# `max` is the word of the protocol, so it is the word here.
# ruff: noqa: A002

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Unpack

from windlass.client import calls
from windlass.client.errors import LeaseLost
from windlass.client.intake import Intake
from windlass.client.lease import UNSET
from windlass.client.message import LeasedMessage
from windlass.client.values import (
    Acknowledged,
    Message,
    MessageRecord,
    PeekState,
    QueueInfo,
    QueueSettings,
    QueueStats,
    Sent,
    WireMessage,
)

if TYPE_CHECKING:
    from windlass.client.client import Client

log = logging.getLogger("windlass.client")


class Queue:
    """One queue of a server. Every method raises a `WindlassError` when the server refuses."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    def __repr__(self) -> str:
        return f"<Queue {self.name} at {self.client.url}>"

    # Sending

    def send(self, content: Any, *, idempotency_key: str | None = None) -> Sent:
        """Send one message: any JSON value, or a `NewMessage`. On disk when this returns.

        `idempotency_key`: your own name for this send; with the same one it is stored once, within a
        day. Left out, the client makes one up, so that its own repeats add nothing.
        """
        message = calls.as_message(content)
        return self.client.run(
            calls.send(self.name, message, key=idempotency_key, make_key=self.client.retry_sends)
        )

    def send_many(self, messages: Iterable[Any]) -> list[Sent]:
        """Send values or `NewMessage`s, in order, in batches of at most 1,000 and 16 MiB.

        Each batch is stored whole or not at all. When one fails, the error's `sent` lists the messages
        of the batches before it.
        """
        return self.client.follow(calls.send_many(self.name, messages, make_key=self.client.retry_sends))

    # Receiving

    def receive(
        self,
        *,
        lease: float | None = None,
        wait: float = 20.0,
        max: int | None = None,
        batch: int = 1,
        idle: float | None = None,
        stop: threading.Event | None = None,
        retry_delay: float = 0.0,
        on_lost: Callable[[LeasedMessage], None] | None = None,
    ) -> Iterator[LeasedMessage]:
        """Messages as they come, each on a lease.

            for message in queue.receive():
                with message:
                    work(message.content)

        `lease`: seconds, None for the queue's own. `wait`: seconds one request waits for a message, at
        most 60; with 0 the loop ends when the queue is empty. `max`: end after so many messages.
        `batch`: messages fetched at once; those not yet handed out have their leases kept alive, and
        are given back when the loop is left. `idle`: end when nothing came for so many seconds. `stop`:
        end when it is set; it is looked at between requests, so within `wait` seconds. `retry_delay`:
        seconds a message that is given back by a failing `with` stays away. `on_lost`: called, on the
        thread that extends leases, with a message whose lease was lost while it was in work.
        """
        clock = self.client._clock
        intake = Intake(self.name, lease=lease, wait=wait, most=max, batch=batch, idle=idle, clock=clock)
        extender = self.client.extender
        while not (stop is not None and stop.is_set()) and (call := intake.poll()) is not None:
            taken = self.client.run(call)
            waiting = [self._leased(wire, taken.lease_seconds) for wire in taken.messages]
            for message in waiting:
                message.retry_delay, message.on_lost = retry_delay, on_lost
            for message in waiting[1:]:
                extender.keep(message)
            try:
                while waiting and not (stop is not None and stop.is_set()):
                    message = waiting.pop(0)
                    extender.forget(message)
                    if not message.lost:
                        yield message
            finally:
                for message in waiting:
                    message.give_back()
            rest = intake.took(len(taken.messages))
            if rest is None:
                break
            if rest:
                self.client._sleep(rest)

    def receive_one(self, *, lease: float | None = None, wait: float = 0.0) -> LeasedMessage | None:
        """One message on a lease, or None when none came within `wait` seconds (0 to 60)."""
        messages = self.receive_batch(max=1, lease=lease, wait=wait)
        return messages[0] if messages else None

    def receive_batch(
        self, *, max: int, lease: float | None = None, wait: float = 0.0
    ) -> list[LeasedMessage]:
        """Up to `max` (1 to 1,000) messages in one request, each on a lease; `wait` as in `receive_one`."""
        taken = self.client.run(calls.receive(self.name, lease=lease, wait=wait, most=max))
        return [self._leased(wire, taken.lease_seconds) for wire in taken.messages]

    def take(self, *, max: int = 1, wait: float = 0.0) -> list[Message]:
        """Take up to `max` messages for good, without a lease.

        They are gone from the queue whether or not the answer arrives, so this is never repeated after a
        failure: AnswerLost may mean that messages are lost. Use `receive` for work that matters.
        """
        return self.client.run(calls.take(self.name, wait=wait, most=max))

    def handle(
        self,
        function: Callable[[LeasedMessage], object],
        *,
        concurrency: int = 1,
        lease: float | None = None,
        wait: float = 20.0,
        max: int | None = None,
        idle: float | None = None,
        stop: threading.Event | None = None,
        retry_delay: float = 0.0,
    ) -> None:
        """Call `function` with each message, up to `concurrency` at once on threads, until told to end.

        A message is acknowledged when `function` returns, and given back when it raises; the exception
        is logged to "windlass.client" and the loop goes on. The parameters are those of `receive`.
        """
        slots = threading.Semaphore(concurrency)

        def work(message: LeasedMessage) -> None:
            try:
                with message:
                    function(message)
            except LeaseLost:
                log.warning("the lease of %r was lost before its work was done", message)
            except Exception:
                log.exception("the handler failed on %r; it was given back", message)
            finally:
                slots.release()

        with ThreadPoolExecutor(concurrency, thread_name_prefix="windlass-handler") as pool:
            slots.acquire()
            for message in self.receive(
                lease=lease, wait=wait, max=max, idle=idle, stop=stop, retry_delay=retry_delay
            ):
                pool.submit(work, message)
                slots.acquire()

    def acknowledge(self, receipt: str, outcome: Any = UNSET) -> None:
        """Acknowledge by receipt alone; a message that is done already counts as success."""
        given = outcome is not UNSET
        self.client.run(
            calls.acknowledge(self.name, receipt, outcome=outcome if given else None, has_outcome=given)
        )

    def acknowledge_many(self, messages: Iterable[LeasedMessage | str]) -> list[Acknowledged]:
        """Acknowledge many messages, or receipts, at once; says what became of each, in order."""
        given = list(messages)
        leased = [message for message in given if isinstance(message, LeasedMessage)]
        receipts = [message if isinstance(message, str) else message.receipt for message in given]
        results = self.client.follow(calls.acknowledge_many(self.name, receipts))
        for message in leased:
            self.client.extender.forget(message)
            message.settled = True
        return results

    def extend(self, receipt: str, seconds: float) -> None:
        """Let a lease last `seconds` from now, by receipt alone."""
        self.client.run(calls.extend(self.name, receipt, seconds))

    def release(self, receipt: str, delay: float = 0.0) -> None:
        """Give a message back, by receipt alone."""
        self.client.run(calls.release(self.name, receipt, delay))

    # Looking

    def peek(self, *, max: int = 10, state: PeekState = "ready") -> list[Message]:
        """The first messages of a state, without taking them."""
        return self.client.run(calls.peek(self.name, most=max, state=state))

    def message(self, message_id: str) -> MessageRecord:
        """Where a message is and what has happened to it. MessageGone when it ended too long ago."""
        return self.client.run(calls.message(self.name, message_id))

    def outcome(self, message_id: str, *, wait: float = 0.0) -> Any:
        """What the acknowledgement of a message carried, None when it carried nothing.

        Waits up to `wait` seconds for it; then OutcomePending. NoOutcome when it was cancelled, expired,
        removed, or is dead.
        """
        return self.client.follow(calls.outcome(self.name, message_id, wait, self.client._clock))

    def show(self) -> QueueStats:
        """Settings and counts."""
        return self.client.run(calls.show(self.name))

    # Administering

    def update(self, **settings: Unpack[QueueSettings]) -> QueueInfo:
        """Change the settings that are given."""
        return self.client.run(calls.update(self.name, settings))

    def cancel(self, message_id: str) -> None:
        """Remove a message that nobody holds. MessageLeased when somebody does."""
        self.client.run(calls.cancel(self.name, message_id))

    def purge(self) -> int:
        """Remove every message, leased ones too; how many."""
        return self.client.run(calls.purge(self.name))

    def redrive(self, *, max: int | None = None) -> int:
        """Make dead messages ready again, all or at most `max`; how many."""
        return self.client.follow(calls.redrive(self.name, max))

    def pause(self) -> QueueInfo:
        """Hand out nothing until `resume`; sends go on."""
        return self.client.run(calls.pause(self.name))

    def resume(self) -> QueueInfo:
        """Hand out messages again."""
        return self.client.run(calls.resume(self.name))

    def delete(self) -> None:
        """Delete the queue and all its messages. QueueInUse when another names it as its dead letters."""
        self.client.run(calls.delete(self.name))

    def _leased(self, wire: WireMessage, lease_seconds: float) -> LeasedMessage:
        return LeasedMessage(self.client, self.name, wire, lease_seconds)
