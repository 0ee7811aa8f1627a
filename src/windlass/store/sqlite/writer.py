"""The one writer thread: requests that arrive while a commit is on its way join the next.

The event loop appends operations and goes on. The writer takes all that is there, runs them as few
statements in one transaction, commits (one fsync), and hands all answers back in one call to the loop.
An answer never leaves before the commit. When a transaction fails as a whole, each operation is tried
again alone and without upkeep, so that one that cannot be done (a disk too full for a large message)
does not take the others with it. An operation that creates, changes, purges or deletes a queue is the
last of its transaction.
"""

from __future__ import annotations

import contextlib
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import apsw
import structlog

from windlass.clock import Clock
from windlass.errors import StoreClosed, StoreFull, StoreUnavailable, WindlassError
from windlass.store.answers import Answers
from windlass.store.base import Changes
from windlass.store.operation import Acknowledge, Extend, Operation, Receive, Send
from windlass.store.sqlite import changes, counts
from windlass.store.sqlite.checkpoint import Checkpointer
from windlass.store.sqlite.memory import Memory
from windlass.store.sqlite.operation import Step
from windlass.store.sqlite.receiving import receive
from windlass.store.sqlite.sending import send
from windlass.store.sqlite.settling import acknowledge, extend
from windlass.store.sqlite.transaction import Transaction
from windlass.store.sqlite.upkeep import Upkeep

log = structlog.get_logger("windlass.store")

MAX_COMMIT = 1_024
"""Operations in one transaction at most."""
_UPKEEP_RETRY = 1_000
"""How long upkeep rests after a commit that failed, ms: it may itself be what fails."""
_TIME_EVERY = 1_000
"""How often the time is noted on disk, ms: a restart's clock begins no earlier."""


class Writer:
    """Owns the only connection that writes."""

    def __init__(
        self,
        db: apsw.Connection,
        connect: Callable[[], apsw.Connection],
        memory: Memory,
        clock: Clock,
        logged: set[int],
    ) -> None:
        self._db = db
        self._checkpointer = Checkpointer(db, connect)
        self._memory = memory
        self._clock = clock
        self._gathered: deque[Operation[Any]] = deque()
        self._flushing: AbstractEventLoop | None = None
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closing = False
        self._answers = Answers()
        self._fold = counts.Fold()
        self._fold.touched(logged)
        self._noted = 0
        self.upkeep = Upkeep(memory)
        changes.prepare(db)
        self._thread = threading.Thread(target=self._run, name="windlass-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[Any]) -> None:
        """Queue an operation. Called on an event loop; its future is set there."""
        if self._closing:
            raise StoreClosed
        self._gathered.append(operation)
        loop = operation.future.get_loop()
        if self._flushing is not loop:
            self._flushing = loop
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Wake the writer once for all that this turn of the event loop brought: fewer and fuller commits."""
        self._flushing = None
        self._wake.put(None)

    def listen(self, listener: Callable[[Changes], None]) -> None:
        self._answers.listen(listener)

    def close(self) -> None:
        """Commit what is queued, then stop. Blocks."""
        self._closing = True
        self._wake.put(None)
        self._thread.join()
        self._checkpointer.close()

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        gathered = self._gathered
        while gathered or not self._closing:
            if not gathered:
                self._wake.get()
            operations = [gathered.popleft() for _ in range(min(len(gathered), MAX_COMMIT))]
            for run in _runs(operations):
                try:
                    self._commit(run)
                except Exception as error:
                    self._answer(run, None, StoreUnavailable(f"The store failed: {error}"))
                    with contextlib.suppress(Exception):  # the log's own disk may be the full one
                        log.exception("commit_failed", operations=len(run))

    def _commit(self, operations: Sequence[Operation[Any]], *, upkeep: bool = True) -> None:
        try:
            tx, upkept = self._attempt(operations, upkeep=upkeep)
        except Exception as error:  # noqa: BLE001 - a fault in one request must not touch the others
            if isinstance(error, apsw.BusyError):  # somebody else's lock: no request is to blame
                self._refuse(operations, error)
            elif upkeep and (len(operations) > 1 or self.upkeep.next <= self._clock.now()):
                self.upkeep.put_off(self._clock.now() + _UPKEEP_RETRY)
                for operation in operations:
                    self._commit([operation], upkeep=False)
            else:
                self._refuse(operations, error)
            return
        self._took_effect(tx, upkept)
        self._answer(operations, tx, None)
        try:
            if self._fold.due(self._memory.log_entry):
                self._fold_counts()
            self._checkpointer.committed()
        except Exception:  # the answers are out: this may not become theirs
            with contextlib.suppress(Exception):
                log.exception("housekeeping_failed")

    def _refuse(self, operations: Sequence[Operation[Any]], error: Exception) -> None:
        self._answer(operations, None, unavailable(error))
        log.error("write_failed", error=str(error), kind=type(error).__name__, operations=len(operations))

    def _attempt(
        self, operations: Sequence[Operation[Any]], *, upkeep: bool
    ) -> tuple[Transaction, Callable[[], None] | None]:
        """One transaction; begun again without those whose caller went away before the commit."""
        requests = any(type(operation) is not Step or not operation.tick for operation in operations)
        while True:
            for operation in operations:
                operation.result = operation.error = None
            now = self._clock.now()
            tx = Transaction(self._db, self._memory, now)
            try:
                turn = upkeep and self.upkeep.turn(now, requests)
                upkept = self.upkeep.step(tx) if turn else None
                for verb, group in _by_verb(operations):
                    verb(tx, group)
                if any(type(op) is Receive and op.result and op.abandoned for op in operations):
                    tx.rollback()
                    continue
                if now - self._noted >= _TIME_EVERY:
                    tx.set_meta("last_time", now)
                if tx.differences:
                    counts.append(tx)
                tx.commit()
            except BaseException:
                tx.rollback()
                raise
            return tx, upkept

    def _took_effect(self, tx: Transaction, upkept: Callable[[], None] | None) -> None:
        """The commit is on disk: memory follows."""
        memory = self._memory
        memory.next_number, memory.reserved = tx.next_number, tx.reserved
        memory.answers += tx.answers
        if tx.now - self._noted >= _TIME_EVERY:
            self._noted = tx.now
        second = tx.now // 1000
        for number, amount in tx.ins.items():
            memory.by_number[number].ins.add(second, amount)
        for number, amount in tx.outs.items():
            memory.by_number[number].outs.add(second, amount)
        if tx.differences:
            memory.log_entry += 1
            for number, differences in tx.differences.items():
                memory.count(memory.by_number[number], differences)
            self._fold.touched(tx.differences)
        for action in tx.on_commit:
            action()
        if upkept is not None:
            upkept()
        if tx.due is not None:
            self.upkeep.falls_due(tx.due)

    def _fold_counts(self) -> None:
        try:
            with self._db:
                self._fold.step(self._db, self._memory)
            self._fold.stepped()
        except apsw.Error as error:  # the log is still there: next time
            log.warning("fold_failed", error=str(error))

    # --- answers --------------------------------------------------------------------------------------

    def _answer(
        self, operations: Sequence[Operation[Any]], tx: Transaction | None, error: WindlassError | None
    ) -> None:
        if error is not None:
            for operation in operations:
                operation.error = error
        changes = None
        if tx is not None and (tx.ready or tx.ended or tx.died or tx.due is not None):
            changes = Changes(tx.ready, tx.ended, tx.died, self.upkeep.due)
        self._answers.give(operations, changes)


def _runs(operations: Sequence[Operation[Any]]) -> Iterator[Sequence[Operation[Any]]]:
    """Cut after each operation that changes a queue itself: what follows must see it in memory."""
    start = 0
    for end, operation in enumerate(operations, 1):
        if end == len(operations) or (type(operation) is Step and operation.structural):
            yield operations[start:end]
            start = end


def _by_verb(
    operations: Sequence[Operation[Any]],
) -> Iterator[tuple[Callable[[Transaction, Any], None], list[Operation[Any]]]]:
    """The operations of a run, each verb's together: they are all under way at once, so any order is right,
    and one statement for many is what makes a commit cheap. What changes a queue itself stays at the end."""
    groups: dict[type, list[Operation[Any]]] = {}
    for operation in operations:
        groups.setdefault(type(operation), []).append(operation)
    last = operations[-1]
    structural: list[Operation[Any]] = [last] if type(last) is Step and last.structural else []
    if structural:
        groups[Step].pop()
    for kind, verb in _VERBS.items():
        if group := groups.get(kind):
            yield verb, group
    if structural:
        yield _steps, structural


def _steps(tx: Transaction, operations: Sequence[Step]) -> None:
    """Each in a savepoint of its own, which is undone where it fails."""
    for operation in operations:
        tx.db.execute("SAVEPOINT step")
        try:
            operation.result = operation.run(tx)
        except WindlassError as error:
            # A verb checks before it writes and counts, so there is nothing in `tx` to take back.
            tx.db.execute("ROLLBACK TO step")
            operation.error = error
        tx.db.execute("RELEASE step")


_VERBS: dict[type, Callable[[Transaction, Any], None]] = {
    Send: send,
    Acknowledge: acknowledge,
    Extend: extend,
    Step: _steps,
    Receive: receive,  # last: it finds what the others brought
}


def unavailable(error: BaseException) -> StoreUnavailable:
    """What a client is told of a fault of the engine."""
    if isinstance(error, apsw.FullError):
        return StoreFull(
            "The disk is full: nothing was written. Make room; no restart is needed.", retry_after=5
        )
    return StoreUnavailable(f"The store could not write: {error}. Nothing was done.", retry_after=1)
