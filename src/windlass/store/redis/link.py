"""Between the verbs and the servers: routes calls, makes results of answers, knows what they bring."""

from __future__ import annotations

import contextlib
import threading
import time
from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import redis
import structlog

from windlass.clock import Clock
from windlass.errors import OutcomeUnknown, StoreClosed, StoreUnavailable, WindlassError
from windlass.store.answers import Answers
from windlass.store.base import Changes
from windlass.store.redis import library
from windlass.store.redis.batcher import Batcher
from windlass.store.redis.call import REGISTRY, TOLD, Argument, Bundle, Call, new_future, whole
from windlass.store.redis.clock import ServerClock
from windlass.store.redis.durability import Confirmation, Durability
from windlass.store.redis.faults import unavailable
from windlass.store.redis.memory import Memory
from windlass.store.redis.records import number_of
from windlass.store.redis.topology import Node, Topology
from windlass.store.refusals import not_found

log = structlog.get_logger("windlass.store")

QUEUE_KEYS = (
    "s", "m", "d", "r", "l", "y", "z", "zx", "x", "g", "o", "c", "e", "ex", "u", "dd", "ddx", "an", "anx",
    "t", "v", "w", "wx", "away",
)  # fmt: skip
REGISTRY_KEYS = ("s", "names", "letters", "k", "ru", "due", "duev", "gone", "made", "claimed")
_LOOKS = frozenset(
    {
        "stats", "counts", "ready", "find", "where", "nowhere", "pointers", "peek", "oldest", "held",
        "untold", "stale_arrivals", "has_left", "destroy",
    }
)  # fmt: skip
"""Verbs whose answer is all that they answer: they change no message."""
_PROMISES = frozenset({"send", "send_with", "receive", "acknowledge", "extend", "release", "cancel"})
"""Verbs whose answer says that something is on disk."""
_SETTLING = frozenset({"acknowledge", "extend"})
_ELSEWHERE = frozenset({3, -3})
"""What these verbs answer of a message that was moved to another queue."""
_CONFIRMED_WITHIN = 3.0
"""Seconds that replicas have to confirm what they got."""
_NOTED_FOR = 1.0
"""Seconds after which what is due is noted again: others may have put it off."""
_MOST_NOTED = 100_000


class Link:
    """Owns the batchers. Verbs submit calls; a batcher's thread settles them here."""

    def __init__(self, topology: Topology, prefix: str, clock: Clock, server: str) -> None:
        self.topology = topology
        self.memory = Memory()
        self.answers = Answers()
        self.clock = clock
        self.server = server
        """This process's name among those that share the store."""
        self.prefix = prefix
        self.loop: AbstractEventLoop | None = None
        """The last event loop that asked for something."""
        self._stamp = ("0" if isinstance(clock, ServerClock) else None, server)
        self._batchers: dict[Node, Batcher] = {}
        self._keys: dict[int, list[str]] = {}
        self._noted: dict[int, tuple[int, float]] = {}
        """Queue -> what the registry was told last, and when (monotonic seconds)."""
        self._late: dict[int, int] = {}
        self._going_on: set[Task[None]] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._confirmation: Confirmation | None = None
        self.refusal: str | None = None
        """Why nothing is taken at the moment."""
        self.lost: str | None = None
        """Why nothing is done at all: what is in Redis is not this installation."""
        for node in topology.nodes():
            try:
                library.load(node.client)
            except redis.RedisError as error:
                raise unavailable(error) from error

    # --- in -----------------------------------------------------------------------------------------

    def submit(self, call: Call) -> Future[Any]:
        """Send a call to the server that has its queue; whatever comes of it is in its future. Called on an
        event loop."""
        self.loop = call.future.get_loop()
        try:
            if self.lost is not None and call.verb != "version":  # which tells that it is there again
                raise StoreUnavailable(self.lost, retry_after=5)
            if self.refusal is not None and call.verb in _PROMISES:
                raise StoreUnavailable(self.refusal, retry_after=5)
            self._batcher(call.number).submit(call)
        except WindlassError as error:
            call.future.set_exception(error)
        return call.future

    async def ask(self, verb: str, number: int, args: Sequence[Argument]) -> Any:
        """What a function answers, as it is: of a queue, or (REGISTRY) of what all share."""
        return await self.submit(Call(new_future(), verb, number, args, whole))

    def ask_now(self, verb: str, number: int, *args: Argument) -> Any:
        """The same without an event loop. Blocks; raises QueueNotFound, StoreUnavailable."""
        keys = self.key_of(number)
        try:
            return self.topology.node(keys[0].encode()).client.execute_command(  # type: ignore[no-untyped-call]
                "FCALL", library.prefix() + verb, len(keys), *keys, *self.stamp(), *args
            )
        except redis.ResponseError as error:
            if str(error).startswith("NOQUEUE"):
                raise not_found(str(number)) from error
            raise unavailable(error) from error
        except redis.RedisError as error:
            raise unavailable(error) from error

    def _batcher(self, number: int) -> Batcher:
        node = self.topology.node(self.key_of(number)[0].encode())
        batcher = self._batchers.get(node)
        if batcher is None:
            with self._lock:
                if self._closed:
                    raise StoreClosed
                batcher = self._batchers.get(node)
                if batcher is None:
                    batcher = self._batchers[node] = Batcher(node, self)
        return batcher

    def close(self) -> None:
        with self._lock:
            self._closed = True
            batchers = list(self._batchers.values())
        for batcher in batchers:
            batcher.close()
        if notes := self.late_notes():
            with contextlib.suppress(StoreUnavailable):  # then a sweep finds what is due, within a minute
                self.ask_now("note_due", REGISTRY, *notes)
        self.topology.close()

    # --- for batchers ---------------------------------------------------------------------------------

    def key_of(self, number: int) -> list[str]:
        """The keys of a queue's functions: all that they touch, where Redis asks for them, else the first."""
        keys = self._keys.get(number)
        if keys is None:
            base = f"{self.prefix}:{{{number if number > 0 else 'r'}}}:"
            names = QUEUE_KEYS if number > 0 else REGISTRY_KEYS
            keys = [base + name for name in (names if self.topology.cluster else names[:1])]
            if len(self._keys) > 100_000:
                self._keys.clear()
            self._keys[number] = keys
        return keys

    def channel_of(self, number: int) -> str:
        """Where changes of a queue, or of the registry, are told."""
        if number == TOLD:
            return f"{self.prefix}:{{r}}:t"
        return f"{self.prefix}:{{{number or 'r'}}}:n"

    def stamp(self) -> tuple[str, str]:
        return self._stamp[0] or str(self.clock.now()), self.server

    def promise(self, durability: Durability) -> None:
        """What the servers give from now on. Where it is less than was asked, nothing is taken any more."""
        masters = {master.name for master in durability.masters}
        broken = [lack for lack in durability.lacks if lack.breaks and lack.server in masters]
        self.refusal = None
        if broken:
            self.refusal = "The store gives less than was asked for, so nothing is taken: " + "; ".join(
                map(str, broken)
            )
            log.error("store_too_weak", message=self.refusal)
        self._confirmation = durability.confirmation(_CONFIRMED_WITHIN)

    def behind_writes(self) -> list[tuple[str | int, ...]]:
        return list(self._confirmation.commands) if self._confirmation is not None else []

    def judge(self, answers: Sequence[Any]) -> StoreUnavailable | None:
        confirmation = self._confirmation
        if confirmation is not None:
            try:
                confirmation.judge(answers[-1])
            except StoreUnavailable as error:
                return error
        return None

    def done(self, served: Sequence[Bundle], answers: Sequence[Any]) -> None:
        ready: dict[str, int] = {}
        ended: list[int] = []
        died: list[int] = []
        due: int | None = None
        calls: list[Call] = []
        notes: list[Argument] = []
        for bundle, answer in zip(served, answers, strict=True):
            if isinstance(answer, Exception):
                self._refused(bundle, answer)
                continue
            if bundle.verb == "receive" and answer is not None and answer[9]:
                bundle = self._ask_anew(bundle, answer)
            calls += bundle.calls
            if answer is None:  # its callers were gone
                continue
            if bundle.number and bundle.verb not in _LOOKS:
                number = bundle.number
                if answer[1]:
                    name = self.memory.names.get(number)
                    if name is not None:
                        ready[name] = ready.get(name, 0) + answer[1]
                ended += [number_of(number, member) for member in answer[2]]
                died += [number_of(number, member) for member in answer[3]]
                self.memory.ready[number] = answer[7]
                if isinstance(self.clock, ServerClock):
                    self.clock.heard(int(answer[8]))
                if answer[4]:
                    moment = int(float(answer[4]))
                    noted = self._note(number, moment) if bundle.verb != "expire" else []
                    if noted:
                        due = moment if due is None else min(due, moment)
                        notes += noted
                for member in answer[6]:
                    self._unpoint(member)
            try:
                if bundle.calls:
                    bundle.settle(answer[0] if bundle.parts else answer)
                if bundle.verb in _SETTLING and bundle.parts and not _ELSEWHERE.isdisjoint(answer[0]):
                    self._look_elsewhere(bundle.calls)
            except Exception as error:
                log.exception("answer_unreadable", verb=bundle.verb)
                for call in bundle.calls:
                    call.error = OutcomeUnknown(f"The store was not understood: {error}", retry_after=1)
        if notes:
            self.send_quietly("note_due", REGISTRY, notes)
        if calls:
            changes = None
            if ready or ended or died or due is not None:
                changes = Changes(ready, ended, died, due)
            self.answers.give(calls, changes)

    def failed(self, calls: Sequence[Call], error: StoreUnavailable) -> None:
        for call in calls:
            call.error = error
        self.answers.give(calls, None)
        try:
            self.topology.refresh(error.__cause__ if isinstance(error.__cause__, Exception) else None)
        except StoreUnavailable as still:
            log.warning("store_away", error=still.detail)

    def again(self, calls: Sequence[Call], error: Exception) -> None:
        try:
            self.topology.refresh(error)
            for call in calls:
                self._batcher(call.number).submit_from_thread(call)
        except StoreUnavailable as away:
            self.failed(calls, away)

    def _ask_anew(self, bundle: Bundle, answer: Any) -> Bundle:
        """So much had run out that some receives found nothing: those go on. Returns the others."""
        kept = [n for n, taken in enumerate(answer[0]) if taken]
        for n, call in enumerate(bundle.calls):
            if not answer[0][n]:
                self._batcher(call.number).submit_from_thread(call)
        answer[0] = [answer[0][n] for n in kept]
        calls = [bundle.calls[n] for n in kept]
        return Bundle(bundle.verb, bundle.number, calls, len(calls))

    def _look_elsewhere(self, calls: Sequence[Call]) -> None:
        """Some of their messages were moved to other queues: their callers wait until that is looked into."""
        for call in calls:
            if call.elsewhere is not None and call.result is not None and None in call.result:
                asked, call.future = call.future, call.future.get_loop().create_future()
                call.future.add_done_callback(partial(self._go_on, call.elsewhere, asked))

    def _go_on(self, finish: Callable[[Any], Awaitable[Any]], asked: Future[Any], found: Future[Any]) -> None:
        async def go_on() -> None:
            try:
                result = await finish(found.result())
            except Exception as error:  # noqa: BLE001 - who asked raises it
                if not asked.done():
                    asked.set_exception(error)
            else:
                if not asked.done():
                    asked.set_result(result)

        task = found.get_loop().create_task(go_on())
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)

    # --- what answers bring ---------------------------------------------------------------------------

    def _refused(self, bundle: Bundle, error: Exception) -> None:
        if isinstance(error, redis.ResponseError) and str(error).startswith("NOQUEUE"):
            name = self.memory.names.get(bundle.number)
            if name is not None:  # deleted, by another server; it may be there again under another number
                self.memory.remove(name)
            for call in bundle.calls:
                call.error = not_found(name or str(bundle.number))
            self.answers.give(bundle.calls, None)
            return
        log.error("call_failed", verb=bundle.verb, error=str(error))
        self.failed(bundle.calls, unavailable(error))

    def _note(self, number: int, moment: int) -> list[Argument]:
        """What the registry has to be told of when something falls due in a queue.

        Once a second is enough for what is not sooner; the last of a second is told by `late_notes`."""
        known, at = self._noted.get(number, (moment + 1, 0.0))
        now = time.monotonic()
        if known <= moment and now - at < _NOTED_FOR:
            self._late[number] = min(moment, self._late.get(number, moment))
            return []
        if len(self._noted) > _MOST_NOTED:
            self._noted.clear()
        self._noted[number] = moment, now
        return [number, moment]

    def late_notes(self) -> list[Argument]:
        """What the registry was not told of yet."""
        notes: list[Argument] = []
        while self._late:
            notes += self._late.popitem()
        return notes

    def _unpoint(self, member: bytes) -> None:
        home, _, place = member.partition(b":")
        self.send_quietly("point", int(home), [place, ""])

    def send_quietly(self, verb: str, number: int, args: Sequence[Argument]) -> None:
        """Send what nobody waits for. From any thread."""
        if self.loop is not None and not self.loop.is_closed():
            call = Call(self.loop.create_future(), verb, number, args, lambda _: None)
            call.future.add_done_callback(_noted)
            self.submit_quietly(call)

    def submit_quietly(self, call: Call) -> None:
        """Send a call that nobody misses. From any thread."""
        try:
            self._batcher(call.number).submit_from_thread(call)
        except (StoreUnavailable, StoreClosed) as error:
            log.debug("not_sent", verb=call.verb, error=str(error))


def _noted(future: Any) -> None:
    """Nobody waits for it: what went wrong is looked at here, so that it is not called forgotten."""
    if not future.cancelled():
        future.exception()
