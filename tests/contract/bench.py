"""A store driven from plain test code: each verb runs to its end on a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from windlass.clock import ManualClock
from windlass.errors import ReceiptGone, ReceiptStale
from windlass.message import (
    Acknowledgement,
    Extension,
    Life,
    Message,
    Once,
    Options,
    QueueInfo,
    Sent,
    Settled,
    State,
)
from windlass.store import Caller, Changes, Key, Store

R = TypeVar("R")


class Ground(Protocol):
    """Where a backend's store lies."""

    @property
    def directory(self) -> Path: ...

    def open(self, clock: ManualClock) -> Store: ...

    def crash(self, store: Store) -> None:
        """End `store` as a kill at this moment would."""
        ...


class Gone:
    """A caller that hung up."""

    disconnected = True


class Bench:
    """A store and its clock. `reopen` closes and opens; `crash` goes on with what a kill would leave."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.clock = ManualClock()
        self.loop = asyncio.new_event_loop()
        self.changes: list[Changes] = []
        self.store = self._open()

    @property
    def directory(self) -> Path:
        return self.ground.directory

    def _open(self) -> Store:
        store = self.ground.open(self.clock)
        store.listen(self.changes.append)
        return store

    def close(self) -> None:
        self.store.close()
        self.loop.close()

    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()

    def crash(self) -> None:
        """Go on with what a kill at this moment would leave."""
        self.ground.crash(self.store)
        self.store = self._open()

    def run(self, call: Callable[[Store], Awaitable[R]]) -> R:
        async def run() -> R:
            return await call(self.store)

        return self.loop.run_until_complete(run())

    def together(self, *calls: Callable[[Store], Awaitable[Any]]) -> list[Any]:
        """Start all at once, so that the store may serve them in one commit; results or exceptions."""

        async def run() -> list[Any]:
            async def begin(call: Callable[[Store], Awaitable[Any]]) -> Any:
                return await call(self.store)

            return await asyncio.gather(*map(begin, calls), return_exceptions=True)

        return self.loop.run_until_complete(run())

    # --- the verbs --------------------------------------------------------------------------------

    def create(self, name: str, **settings: Any) -> QueueInfo:
        return self.run(lambda s: s.create_queue(name, settings))[0]

    def update(self, name: str, paused: bool | None = None, **settings: Any) -> QueueInfo:
        return self.run(lambda s: s.update_queue(name, settings, paused))

    def delete(self, name: str) -> None:
        self.run(lambda s: s.delete_queue(name))

    def send(self, queue: str, *contents: bytes, once: Once | None = None, **options: Any) -> Sent:
        each = [Options(**options)] * len(contents) if options else None
        return self.run(lambda s: s.send(queue, contents, each, once))

    def send_each(self, queue: str, options: Sequence[Options], once: Once | None = None) -> Sent:
        contents = [b'"%d"' % n for n in range(len(options))]
        return self.run(lambda s: s.send(queue, contents, options, once))

    def receive(
        self,
        queue: str,
        limit: int = 1,
        lease: int | None = None,
        holder: str = "",
        caller: Caller | None = None,
        *,
        whole_groups: bool = False,
    ) -> list[Message]:
        return self.run(lambda s: s.receive(queue, limit, lease, holder, caller, whole_groups=whole_groups))

    def acknowledge(
        self, queue: str, *messages: Message, outcome: bytes | None = None, late: bool = False
    ) -> list[Settled]:
        acks = [Acknowledgement(m.number, m.delivery, outcome, late=late) for m in messages]
        return self.run(lambda s: s.acknowledge(queue, acks))

    def extend(self, queue: str, message: Message, lease: int) -> int:
        """When the lease ends now; raises as the HTTP route does."""
        extension = Extension(message.number, lease, message.delivery)
        (extended,) = self.run(lambda s: s.extend(queue, [extension]))
        if isinstance(extended, Settled):
            raise ReceiptGone if extended is Settled.GONE else ReceiptStale
        return extended

    def release(self, queue: str, message: Message, delay: int = 0) -> None:
        self.run(lambda s: s.release(queue, message.number, message.delivery, delay))

    def cancel(self, queue: str, number: int) -> None:
        self.run(lambda s: s.cancel(queue, number))

    def purge(self, queue: str) -> int:
        return self.run(lambda s: s.purge(queue))

    def redrive(self, queue: str, limit: int = 1_000) -> tuple[int, bool]:
        return self.run(lambda s: s.redrive(queue, limit))

    def peek(self, queue: str, limit: int = 1_000, state: State = State.READY) -> list[Message]:
        return self.run(lambda s: s.peek(queue, limit, state))

    def find(self, number: int) -> Life | None:
        return self.run(lambda s: s.find(number))

    def oldest(self, queue: str) -> int | None:
        return self.run(lambda s: s.oldest(queue))

    def add_key(self, key: Key) -> None:
        self.run(lambda s: s.add_key(key))

    def settle(self) -> int | None:
        """Let everything happen that is due; returns when the next is."""
        due: int | None = None
        nothing = 0
        while nothing < 2:  # what a look brings about in another queue may be noted behind its answer
            due = self.run(lambda s: s.expire())
            nothing = nothing + 1 if due is None or due > self.clock.now() else 0
        return due

    def advance(self, seconds: float) -> int | None:
        """Move the clock and let happen what is due."""
        self.clock.advance(seconds)
        return self.settle()

    def info(self, queue: str) -> QueueInfo:
        return self.run(lambda s: s.queue(queue))

    def totals(self) -> tuple[int, list[int]]:
        return self.run(lambda s: s.totals())

    def counts(self, queue: str) -> dict[str, int]:
        """What a queue holds, without the states it holds nothing in."""
        info = self.info(queue)
        counts = {
            "ready": info.ready,
            "leased": info.leased,
            "delayed": info.delayed,
            "blocked": info.blocked,
            "dead": info.dead,
        }
        return {state: count for state, count in counts.items() if count}

    def contents(self, queue: str, state: State = State.READY) -> list[bytes]:
        return [message.content for message in self.peek(queue, state=state)]
