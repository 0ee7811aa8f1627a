"""One thread a master: calls that arrive while a pipeline is on its way join the next.

The event loop appends calls and goes on. The thread takes all that is there, puts those of one verb and queue
together, sends one pipeline, reads all replies, and hands the answers back in one call to the loop. Redis
writes what a pipeline brought to its log, syncs it once, and only then replies: no answer leaves before.

What was sent and has no reply may have been done, so it is never sent again: whoever asked is told so. What
Redis refused before it began (MOVED, a library that is not loaded) is sent anew, a few times.
"""

from __future__ import annotations

import contextlib
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, Protocol

import redis
import structlog
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, TryAgainError

from windlass.errors import OutcomeUnknown, StoreClosed, StoreUnavailable
from windlass.store.redis import library
from windlass.store.redis.call import Bundle, Call, bundles
from windlass.store.redis.faults import Unreached, unavailable
from windlass.store.redis.topology import Node

log = structlog.get_logger("windlass.store")

MAX_CALLS = 1_024
"""Calls in one pipeline at most."""
TRIES = 3

_MOVED = (MovedError, AskError, TryAgainError, ClusterDownError, ReadOnlyError)


class Owner(Protocol):
    """The store, as a batcher knows it."""

    def key_of(self, number: int) -> list[str]:
        """The keys of a queue's functions."""
        ...

    def stamp(self) -> tuple[str, str]:
        """The time for functions ("0": the server's) and this server's name."""
        ...

    def done(self, served: Sequence[Bundle], answers: Sequence[Any]) -> None:
        """These have answers; those that are an Exception were refused."""
        ...

    def failed(self, calls: Sequence[Call], error: StoreUnavailable) -> None:
        """Nothing comes of these."""
        ...

    def again(self, calls: Sequence[Call], error: Exception) -> None:
        """These were not begun: route them anew."""
        ...

    def behind_writes(self) -> list[tuple[str | int, ...]]:
        """What has to be sent behind writes, for replicas."""
        ...

    def judge(self, answers: Sequence[Any]) -> StoreUnavailable | None:
        """What those answers mean, None where all is well."""
        ...


class Batcher:
    """Owns one connection to one master."""

    def __init__(self, node: Node, owner: Owner) -> None:
        self.node = node
        self._owner = owner
        self._gathered: deque[Call] = deque()
        self._flushing: AbstractEventLoop | None = None
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closing = False
        self._ended = False
        """Its thread takes nothing any more."""
        self._packer = node.client.connection_pool.make_connection()
        """Never connected: only packs commands."""
        self._thread = threading.Thread(target=self._run, name=f"windlass-store-{node.name}", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> None:
        """Queue a call. From an event loop one wake serves all of this turn's."""
        if self._closing:
            raise StoreClosed
        self._gathered.append(call)
        if self._ended:
            self._refuse()
        loop = call.future.get_loop()
        if self._flushing is not loop:
            self._flushing = loop
            loop.call_soon(self._flush)

    def submit_from_thread(self, call: Call) -> None:
        """The same, from a thread that is not the loop's."""
        self._gathered.append(call)
        self._wake.put(None)
        if self._ended:
            self._refuse()

    def _refuse(self) -> None:
        """What came too late: whoever waits for it is told."""
        while self._gathered:
            with contextlib.suppress(IndexError):  # another thread was faster
                self._owner.failed([self._gathered.popleft()], StoreClosed())

    def _flush(self) -> None:
        self._flushing = None
        self._wake.put(None)

    def close(self) -> None:
        """Send what is queued, then stop. Blocks."""
        self._closing = True
        self._wake.put(None)
        self._thread.join()

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        gathered = self._gathered
        while gathered or not self._closing:
            if not gathered:
                self._wake.get()
            calls = [gathered.popleft() for _ in range(min(len(gathered), MAX_CALLS))]
            wanted = [call for call in calls if not self._is_abandoned(call)]
            if not wanted:
                continue
            try:
                self._serve(wanted)
            except Exception as error:
                with contextlib.suppress(Exception):
                    log.exception("pipeline_failed", calls=len(wanted))
                self._owner.failed(wanted, OutcomeUnknown(f"The store failed: {error}", retry_after=1))
        self._ended = True
        self._refuse()

    def _is_abandoned(self, call: Call) -> bool:
        """A receive whose caller went away takes nothing."""
        if call.abandoned is None or not call.abandoned():
            return False
        call.result = []
        self._owner.done([Bundle(call.verb, call.number, [call])], [None])
        return True

    def _serve(self, calls: Sequence[Call]) -> None:
        """Send calls, but none whose caller went away while they were prepared."""
        owner, prefix = self._owner, library.prefix()
        while calls:
            sent = bundles(calls)
            behind = owner.behind_writes()
            if behind and not any(library.is_confirmed(each.verb) for each in sent):
                behind = []  # who only looks waits for no replicas
            now, server = owner.stamp()
            commands: list[tuple[Any, ...]] = []
            for bundle in sent:
                keys = owner.key_of(bundle.number)
                commands.append(
                    ("FCALL", prefix + bundle.verb, len(keys), *keys, now, server, *bundle.args())
                )
            try:
                packed = self._pack([*commands, *behind])
            except (redis.DataError, UnicodeError, TypeError, ValueError) as error:
                if len(calls) > 1:  # one that cannot be said does not take the others with it
                    for call in calls:
                        self._serve([call])
                else:
                    owner.failed(calls, StoreUnavailable(f"The store cannot take this: {error}."))
                return
            left = [call for call in calls if not self._is_abandoned(call)]
            if len(left) == len(calls):
                self._exchange(sent, packed, behind)
                return
            calls = left

    def _exchange(
        self, sent: list[Bundle], packed: list[bytes], behind: Sequence[tuple[str | int, ...]]
    ) -> None:
        owner = self._owner
        try:
            answers, broken = self._converse(packed, len(sent) + len(behind))
        except (redis.RedisError, OSError) as error:  # nothing was sent
            owner.failed(_calls(sent), unavailable(error))
            return
        if broken is not None:
            known = 0 if behind else len(answers)  # without the replicas' word none of them counts
            if known == 0 and answers:
                broken = redis.ConnectionError(str(broken))  # even if Redis said more at the end
            owner.failed(_calls(sent[known:]), unavailable(broken))
            sent, answers = sent[:known], answers[:known]
        elif behind:
            unsure = owner.judge(answers[len(sent) :])
            answers = answers[: len(sent)]
            if unsure is not None:
                owner.failed(_calls([each for each in sent if library.is_confirmed(each.verb)]), unsure)
                looks = [n for n, each in enumerate(sent) if not library.is_confirmed(each.verb)]
                sent, answers = [sent[n] for n in looks], [answers[n] for n in looks]
        again = [n for n, answer in enumerate(answers[: len(sent)]) if _is_undone(answer)]
        if again:
            self._again([sent[n] for n in again], [answers[n] for n in again])
            kept = [n for n in range(len(sent)) if n not in set(again)]
            sent, answers = [sent[n] for n in kept], [answers[n] for n in kept]
        if sent:
            owner.done(sent, answers)

    def _pack(self, commands: Sequence[tuple[Any, ...]]) -> list[bytes]:
        packed: list[bytes] = self._packer.pack_commands(commands)  # type: ignore[no-untyped-call]
        return packed

    def _converse(self, packed: list[bytes], amount: int) -> tuple[list[Any], Exception | None]:
        """The replies, and what broke before the last of them. Raises where nothing was sent."""
        pool = self.node.client.connection_pool
        connection = pool.get_connection()
        answers: list[Any] = []
        try:
            try:
                connection.send_packed_command(packed, False)  # type: ignore[no-untyped-call]
                while len(answers) < amount:
                    try:
                        answers.append(connection.read_response())
                    except redis.ResponseError as error:
                        answers.append(error)
            except Unreached:
                raise
            except (redis.RedisError, OSError) as error:
                connection.disconnect()  # type: ignore[no-untyped-call]
                return answers, error
        finally:
            pool.release(connection)
        return answers, None

    def _again(self, sent: Sequence[Bundle], errors: Sequence[Exception]) -> None:
        for bundle, error in zip(sent, errors, strict=True):
            for call in bundle.calls:
                call.tries += 1
            over = [call for call in bundle.calls if call.tries >= TRIES]
            if over:
                self._owner.failed(over, unavailable(error))
            left = [call for call in bundle.calls if call.tries < TRIES]
            if left:
                if _is_unloaded(error):
                    with contextlib.suppress(redis.RedisError):
                        library.load(self.node.client)
                self._owner.again(left, error)


def _calls(sent: Sequence[Bundle]) -> list[Call]:
    return [call for bundle in sent for call in bundle.calls]


def _is_unloaded(answer: Any) -> bool:
    return isinstance(answer, redis.ResponseError) and "unction not found" in str(answer)


def _is_undone(answer: Any) -> bool:
    """Refused before it began."""
    return isinstance(answer, _MOVED) or _is_unloaded(answer)
