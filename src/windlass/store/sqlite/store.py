"""The store on SQLite. Hot verbs hand an operation to the writer; looks go to the readers."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from windlass.clock import Clock
from windlass.directory import DirectoryLock
from windlass.errors import QueueNotFound
from windlass.message import (
    Acknowledgement,
    End,
    Extension,
    Held,
    Life,
    Message,
    Once,
    Options,
    QueueInfo,
    QueueSettings,
    Sent,
    Settled,
    State,
)
from windlass.store.base import Caller, Changes, Key, Runner, Store
from windlass.store.operation import Acknowledge, Extend, Operation, Receive, Send
from windlass.store.sqlite import administration, counts, files, settling
from windlass.store.sqlite.callers import read_keys, read_runners
from windlass.store.sqlite.memory import Memory, QueueState, decode_settings
from windlass.store.sqlite.operation import Step
from windlass.store.sqlite.reading import Readers
from windlass.store.sqlite.transaction import Transaction
from windlass.store.sqlite.writer import Writer

log = structlog.get_logger("windlass.store")

R = TypeVar("R")


class SQLiteStore(Store):
    """Opens the database of a data directory and takes the directory for itself."""

    kind = "SQLite"

    def __init__(self, data_dir: Path, *, clock: Clock, synchronous: str = "full") -> None:
        self.calls: Counter[str] = Counter()
        self._coming: Counter[str] = Counter()
        """Names of queues whose creation is under way: what is asked behind it finds them."""
        self.clock = clock
        self._synchronous = synchronous
        self._lock = DirectoryLock(data_dir)
        try:
            self._db = files.open_database(data_dir, synchronous, killed=self._lock.killed)
            self._memory = Memory()
            with files.refusing(data_dir / files.DATABASE):
                logged = self._load()
        except BaseException:
            self._lock.close(clean=not self._lock.killed)
            raise
        self._writer = Writer(
            self._db, lambda: files.connect(data_dir, synchronous), self._memory, clock, logged
        )
        self._readers = Readers(
            lambda: files.connect(data_dir, synchronous, read_only=True), self._memory, clock.now
        )
        totals = self._memory.totals
        log.info(
            "store_open",
            path=str(data_dir),
            queues=len(self._memory.by_name),
            **{state.name.lower(): totals[state] for state in State},
        )

    def _load(self) -> set[int]:
        """Read what memory holds: a row a queue, whatever the number of messages."""
        db, memory = self._db, self._memory
        meta = dict(db.execute("SELECT name, value FROM meta"))
        self.secret = meta["secret"]
        memory.next_number = memory.reserved = meta.get("next_number", 1)
        newest = db.execute("SELECT at FROM messages ORDER BY id DESC LIMIT 1").fetchone()
        self.clock.not_before(max(meta.get("last_time", 0), newest[0] if newest else 0))
        for number, name, generation, settings, paused, created_at in db.execute(
            "SELECT id, name, generation, settings, paused, created_at FROM queues"
        ):
            memory.put(
                QueueState(number, name, generation, decode_settings(settings), bool(paused), created_at)
            )
        logged = counts.load(db, memory)
        settling.resume(db, memory, self.clock.now())
        memory.answers = next(db.execute("SELECT count(*) FROM answers"))[0]
        self._keys = {key.id: key for key in read_keys(db)}
        self._runners = {runner.number: runner for runner in read_runners(db)}
        return logged

    # --- queues -----------------------------------------------------------------------------------

    async def create_queue(self, name: str, settings: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        run = partial(administration.create_queue, name=name, named=settings)
        if name not in self._memory.by_name:
            self._check_dead_letter(name, settings)
        self._coming[name] += 1
        try:
            return await self._step("create_queue", run, structural=True)
        finally:
            self._coming[name] -= 1
            if self._coming[name] <= 0:
                self._coming.pop(name, None)

    async def update_queue(
        self,
        name: str,
        settings: Mapping[str, Any],
        paused: bool | None = None,
        *,
        was: QueueSettings | None = None,
    ) -> QueueInfo:
        run = partial(administration.update_queue, name=name, changes=settings, paused=paused, was=was)
        if name in self._memory.by_name:
            self._check_dead_letter(name, settings)
        return await self._step("update_queue", run, name, structural=True)

    async def delete_queue(self, name: str) -> None:
        run = partial(administration.delete_queue, name=name)
        await self._step("delete_queue", run, name, structural=True)

    async def queues(self, prefix: str = "", after: str = "", limit: int = 100) -> list[QueueInfo]:
        names = self._memory.names()
        second = self.clock.now() // 1000
        found: list[QueueInfo] = []
        for name in islice(names, max(bisect_right(names, after), bisect_left(names, prefix)), None):
            if len(found) >= limit or not name.startswith(prefix):
                break
            queue = self._memory.by_name.get(name)
            if queue is not None:  # else deleted at this moment
                found.append(queue.info(second))
        return found

    async def queue(self, name: str) -> QueueInfo:
        return self._memory.queue(name).info(self.clock.now() // 1000)

    def queue_number(self, name: str) -> int:
        return self._memory.queue(name).number

    def ready(self, name: str) -> int:
        return self._memory.queue(name).counts[State.READY]

    def has_queue_number(self, number: int) -> bool:
        return number in self._memory.by_number

    async def totals(self) -> tuple[int, list[int]]:
        return len(self._memory.by_name), self._memory.totals[: len(State)]

    # --- messages ---------------------------------------------------------------------------------

    def send(
        self,
        queue: str,
        contents: Sequence[bytes],
        options: Sequence[Options] | None = None,
        once: Once | None = None,
    ) -> Awaitable[Sent]:
        self.calls["send"] += 1
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        self._hand_on(queue, Send(future, queue, contents, options, once))
        return future

    def receive(
        self,
        queue: str,
        limit: int = 1,
        lease: int | None = None,
        holder: str = "",
        caller: Caller | None = None,
        claim: str | None = None,
        *,
        whole_groups: bool = False,
    ) -> Awaitable[list[Message]]:
        self.calls["receive"] += 1
        future: asyncio.Future[list[Message]] = asyncio.get_running_loop().create_future()
        self._hand_on(queue, Receive(future, queue, limit, lease, holder, caller, claim, whole_groups))
        return future

    def acknowledge(
        self, queue: str, acknowledgements: Sequence[Acknowledgement]
    ) -> Awaitable[list[Settled]]:
        self.calls["acknowledge"] += 1
        future: asyncio.Future[list[Settled]] = asyncio.get_running_loop().create_future()
        if acknowledgements:
            self._hand_on(queue, Acknowledge(future, queue, acknowledgements))
        else:  # none of many receipts was ever issued
            self._memory.queue(queue)
            future.set_result([])
        return future

    def extend(self, queue: str | None, extensions: Sequence[Extension]) -> Awaitable[list[int | Settled]]:
        self.calls["extend"] += 1
        future: asyncio.Future[list[int | Settled]] = asyncio.get_running_loop().create_future()
        self._hand_on(queue, Extend(future, queue, extensions))
        return future

    def release(
        self,
        queue: str,
        number: int,
        delivery: int = 0,
        delay: int = 0,
        *,
        holder: str | None = None,
        reason: str = "",
        counts: bool = True,
        last: bool = False,
    ) -> Awaitable[None]:
        run = partial(
            settling.release,
            name=queue,
            number=number,
            delivery=delivery,
            delay=delay,
            holder=holder,
            reason=reason,
            counts=counts,
            last=last,
        )
        return self._step("release", run, queue)

    async def cancel(
        self, queue: str, number: int, *, leased: bool = False, how: str = "cancelled",
        outcome: bytes | None = None,
    ) -> None:  # fmt: skip
        run = partial(
            administration.cancel,
            name=queue, number=number, leased=leased, how=how, outcome=outcome,
        )  # fmt: skip
        await self._step("cancel", run, queue)

    async def purge(self, queue: str, *, apart: float = 0) -> int:
        run = partial(administration.purge, name=queue, apart=round(apart * 1000))
        return await self._step("purge", run, queue, structural=True)

    async def redrive(self, queue: str, limit: int) -> tuple[int, bool]:
        moved = 0
        while moved < limit:  # a bite a commit, so that others get their turn
            bite, finished = await self._step(
                "redrive", partial(administration.redrive, name=queue, limit=limit - moved), queue
            )
            moved += bite
            if finished:
                return moved, True
        return moved, False

    # --- looking ----------------------------------------------------------------------------------

    async def peek(self, queue: str, limit: int, state: State = State.READY) -> list[Message]:
        self.calls["peek"] += 1
        return await self._readers.peek(queue, limit, state)

    async def find(self, number: int) -> Life | None:
        self.calls["find"] += 1
        return await self._readers.find(number)

    async def held(self, holder: str | None = None) -> list[Held]:
        self.calls["held"] += 1
        return [claim for claim in await self._readers.held() if holder in (None, claim.holder)]

    async def untold(self, limit: int = 100) -> list[End]:
        self.calls["untold"] += 1
        return await self._readers.untold(limit)

    async def told(self, number: int, keep: int) -> None:
        await self._step("told", partial(administration.told, number=number, keep=keep))

    async def oldest(self, queue: str) -> int | None:
        self.calls["oldest"] += 1
        return await self._readers.oldest(queue)

    async def ping(self) -> None:
        def touch(tx: Transaction) -> None:
            tx.set_meta("last_time", tx.now)

        await self._step("ping", touch)

    # --- time and life ----------------------------------------------------------------------------

    async def expire(self) -> int | None:
        def nothing(tx: Transaction) -> None:
            """Every commit does a step of upkeep when it is due."""

        if self._writer.upkeep.next <= self.clock.now():
            await self._step("expire", nothing, tick=True)
        return self._writer.upkeep.due

    def listen(self, listener: Callable[[Changes], None]) -> None:
        self._writer.listen(listener)

    def durability(self) -> dict[str, Any]:
        survives = (
            "nothing is lost: it is on disk before the answer"
            if self._synchronous == "full"
            else "what was answered last may be lost: the disk is not waited for"
        )
        return {"survives": {"power_cut": survives}}

    def close(self) -> None:
        self._writer.close()
        self._readers.close()
        self._db.close()
        self._lock.close()
        log.info("store_closed")

    # --- keys -------------------------------------------------------------------------------------

    async def add_key(self, key: Key) -> None:
        await self._step("add_key", partial(administration.add_key, key=key))
        self._keys[key.id] = key

    async def remove_key(self, key_id: str) -> bool:
        removed = await self._step("remove_key", partial(administration.remove_key, key_id=key_id))
        self._keys.pop(key_id, None)
        return bool(removed)

    def keys(self) -> list[Key]:
        return list(self._keys.values())

    # --- runners ----------------------------------------------------------------------------------

    async def add_runner(self, runner: Runner) -> Runner:
        added: Runner = await self._step("add_runner", partial(administration.add_runner, runner=runner))
        self._runners[added.number] = added
        return added

    async def seen_runner(self, number: int, at: int) -> None:
        await self._step("seen_runner", partial(administration.seen_runner, number=number, at=at))
        if number in self._runners:
            self._runners[number] = msgspec.structs.replace(self._runners[number], seen_at=at)

    async def remove_runner(self, number: int) -> None:
        await self._step("remove_runner", partial(administration.remove_runner, number=number))
        self._runners.pop(number, None)

    def runners(self) -> list[Runner]:
        return list(self._runners.values())

    async def runner(self, number: int) -> Runner | None:
        return self._runners.get(number)

    def _step(
        self,
        verb: str,
        run: Callable[[Transaction], R],
        queue: str | None = None,
        *,
        structural: bool = False,
        tick: bool = False,
    ) -> Awaitable[R]:
        self.calls[verb] += 1
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._hand_on(queue, Step(future, run, structural, tick))
        return future

    def _hand_on(self, queue: str | None, operation: Operation[Any]) -> None:
        """Give an operation to the writer, but not where its queue is not there: memory knows them all."""
        if queue is not None and queue not in self._coming:
            try:
                self._memory.queue(queue)
            except QueueNotFound as error:
                operation.future.set_exception(error)
                return
        self._writer.submit(operation)

    def _check_dead_letter(self, name: str, settings: Mapping[str, Any]) -> None:
        """The writer does so too; but a name that is none does not have to get so far."""
        if settings.get("dead_letter") not in self._coming:
            administration.check_dead_letter(self._memory, name, settings)
