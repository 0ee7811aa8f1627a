"""The catalogue's filter over time: read at the start, saved while it runs, made anew when it has worn out.

What is saved says, in its mark, up to which position of the record of ids it is complete. A start reads it
and adds what the record has since then; what cannot be proved complete in that way is not used, and the
filter built from the database. One thread saves and rebuilds, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from struct import Struct
from typing import Any

import structlog

from windlass.catalogue.building import Builder, Ids
from windlass.catalogue.record import Position, Record
from windlass.errors import FilterStateRefused, PositionUnknown, StoreClosed, StoreUnavailable, WindlassError
from windlass.guard.bloom import BloomFilter, Stats
from windlass.guard.both import Both
from windlass.guard.guard import Guard
from windlass.guard.saved import Storage

INTERVAL = 2.0
"""Seconds from one save to the next, where anything has changed."""
_AFTER_FAILURE = 60.0
"""Seconds until a rebuild that failed is tried again, unless somebody asks for it."""
_FEW = 1000
"""Items of which deletions are a part, where there are fewer."""
_TRIM = 60.0
"""Seconds from one look for what can be taken out of the record to the next."""
_IDLE = 60.0
"""Seconds from one look into the record to the next, where nothing is known to have changed."""

_DELETIONS = Struct(">Q")  # the mark: this, then the position

Progress = Callable[[int, int], object]
"""Told ids that are in the filter, and how many there are, as a build goes on."""

log = structlog.get_logger("windlass.catalogue")


@dataclass(frozen=True, slots=True)
class Kept(Stats):
    """A filter, what it is kept under, deletions since it was built, how far a rebuild is (0 to 1), and why
    the last one failed."""

    state_key: str
    deletions: int
    rebuilding: float | None
    rebuild_failed: str | None


class Keeper:
    """Keeps one filter of all ids."""

    def __init__(
        self,
        ids: Ids,
        record: Record | None,
        storage: Storage,
        secret: bytes,
        *,
        expected_items: int = 1_000_000,
        false_positive_rate: float = 0.01,
        trim: bool = True,
        interval: float = INTERVAL,
        progress: Progress | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the filter, or build it. Raises StoreUnavailable where the database is away; blocks.

        `record` is None where there is none: then nothing is proved, and the filter built at each start.
        `trim`: what is saved may be taken out of the record.
        """
        self._record, self._storage = record, storage
        self._closing = threading.Event()
        self._builder = Builder(ids, secret, expected_items, false_positive_rate, self._closing)
        self._interval, self._progress, self._monotonic = interval, progress, monotonic
        self._deletions = 0
        self._done: float | None = None
        self._guard: Guard[Any] | None = None
        self._asked: Future[None] | None = None
        """What those wait for who asked for a rebuild that has not begun."""
        self._under_way: Future[None] | None = None
        self._failed: str | None = None
        self._not_before = float("-inf")
        self._troubles: dict[str, str] = {}
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._turn = threading.RLock()
        """Of whoever saves, catches up or rebuilds."""
        self._thread = threading.Thread(target=self._run, name="windlass-filter", daemon=True)
        self.position: Position | None = None
        """Up to where in the record the filter is complete; None where there is no record."""
        self._look_at = float("-inf")
        self._seen: object = None
        """What the filter was at the last save."""
        self._trim_at = float("-inf") if trim else float("inf")
        self._whole = False
        """Only a whole save will do."""
        self._unproved = False
        """The record does not reach back to `position`."""
        self.filter = self._loaded() or self._built()

    def start(self, guard: Guard[Any]) -> None:
        """Save from now on, and rebuild what `guard` asks when that is due; it begins with `filter`."""
        self._guard = guard
        self._thread.start()

    def close(self) -> None:
        """Give up a rebuild, save what has changed, and end. Blocks."""
        self._closing.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            asked, self._asked = self._asked, None
        if asked is not None:
            asked.set_exception(StoreClosed())
        self.save()

    def deleted(self) -> None:
        """One id more is in the filter for nothing."""
        with self._lock:
            self._deletions += 1

    async def rebuild(self) -> None:
        """Make the filter anew, of what there is; returns when it is in use. Raises StoreUnavailable.

        Whoever asks while one is under way waits for that one.
        """
        await asyncio.wrap_future(self._under_way or self.ask())

    def make_anew(self) -> None:
        """`rebuild` for those who may block; of what there is when it is called."""
        self.ask().result()

    def catch_up(self) -> None:
        """Have every id in the filter that is committed when this is called. Raises StoreUnavailable; blocks.

        By the record; where that does not tell, by a rebuild.
        """
        try:
            with self._turn:
                if self.position is not None:
                    self._catch_up()
                    return
        except PositionUnknown:
            pass
        self.make_anew()

    def ask(self) -> Future[None]:
        """A rebuild that has not begun, for those who wait elsewhere. Raises StoreClosed."""
        with self._lock:
            if self._closing.is_set():
                raise StoreClosed
            if self._asked is None:
                self._asked = _promise()
            asked = self._asked
        self._wake.set()
        return asked

    def stats(self) -> Kept:
        filter = self.filter  # noqa: A001
        with self._lock:
            rebuilding = self._done if self._asked is None else 0.0
        return Kept(
            **asdict(filter.stats()),
            state_key=self._storage.key,
            deletions=self._deletions,
            rebuilding=rebuilding,
            rebuild_failed=self._failed,
        )

    def save(self) -> None:
        """Catch up with the record and save what has changed; of what fails the log tells. Blocks."""
        with self._turn:
            self._caught_up_and_saved()

    def _caught_up_and_saved(self) -> None:
        self._look_at = self._monotonic() + _IDLE
        self._seen = self.filter, self.filter.items, self._deletions
        try:
            self._catch_up()
        except WindlassError as error:
            self._unproved = isinstance(error, PositionUnknown)
            self._trouble("filter_not_caught_up", f"The record of ids cannot be read: {error}")
        else:
            self._trouble("filter_not_caught_up", None)
        try:
            saved = self._save()
        except WindlassError as error:
            self._whole = True
            self._trouble("filter_not_saved", f"The filter cannot be saved in {self._where}: {error}")
            return
        self._trouble("filter_not_saved", None)
        if saved and self._monotonic() >= self._trim_at:
            self._tidy()

    def _tidy(self) -> None:
        """Take out of the record what nobody needs any more."""
        if self._record is not None and self.position is not None:
            self._trim_at = self._monotonic() + _TRIM
            with contextlib.suppress(WindlassError):  # the next time
                self._record.trim(self.position)

    # --- the start ----------------------------------------------------------------------------------

    def _loaded(self) -> BloomFilter | None:
        """The saved filter, with all that has come since; None where there is none that can be proved."""
        began = self._monotonic()
        try:
            state = self._storage.load()
            if state is None:
                log.info("filter_new", message=f"There is no filter in {self._where}: it is built.")
                return None
            self.filter = self._verified(state)
        except (FilterStateRefused, PositionUnknown, StoreUnavailable) as error:
            self._refused(error)
            return None
        try:
            caught_up = self._catch_up()
        except PositionUnknown as error:
            self._refused(error)
            return None
        log.info(
            "filter_loaded",
            message=f"The filter in {self._where} is used again.",
            caught_up=caught_up,
            seconds=round(self._monotonic() - began, 3),
        )
        return self.filter

    def _verified(self, state: bytes) -> BloomFilter:
        """The filter of a stored form; raises FilterStateRefused, PositionUnknown."""
        found = self._builder.load(state)
        if len(found.mark) < _DELETIONS.size:
            raise FilterStateRefused("It does not say up to where it is complete.")
        (self._deletions,) = _DELETIONS.unpack_from(found.mark)
        self.position = Position.unpack(found.mark[_DELETIONS.size :])
        return found

    def _refused(self, error: WindlassError) -> None:
        self._deletions = 0
        log.warning(
            "filter_refused",
            message=f"The filter in {self._where} is not used, and built from the database: {error}",
        )

    def _built(self) -> BloomFilter:
        """A filter of the database. What is committed meanwhile is in the record after this position."""
        began = self._monotonic()
        self.position = self._end_of_record()
        self._whole = True
        count = self._builder.count()
        built = self._builder.empty(count)
        for done in self._builder.fill(built):
            if self._progress is not None:
                self._progress(min(done, count), count)
        seconds = round(self._monotonic() - began, 3)
        log.info("filter_built", message="The filter is built.", ids=count, seconds=seconds)
        return built

    # --- saving -------------------------------------------------------------------------------------

    def _catch_up(self) -> int:
        """Add what the record has since the last time; how many of them the filter had not heard of.

        There are such ids: a write of another process, or one whose outcome its server did not live to see.
        """
        if self._record is None:
            return 0
        if self.position is None:
            self._unproved = self._end_of_record() is not None
            return 0
        ids, now = self._record.since(self.position)
        added = self.filter.update(ids)
        self.position = now
        return added

    def _end_of_record(self) -> Position | None:
        """Where the record is, which a scan that begins after this is complete up to."""
        if self._record is None:
            return None
        try:
            position = self._record.position()
        except PositionUnknown as error:
            self._trouble("filter_without_record", f"The filter is built at each start: {error}")
            return None
        self._trouble("filter_without_record", None)
        return position

    def _save(self) -> bool:
        """Whether what is saved is complete up to `position`.

        The position was read before the changes are taken, and not after: of a key that is committed between
        the two the bits need not be among the changes, and the mark would say that they are.
        """
        if self.position is None:
            return False
        filter = self.filter  # noqa: A001
        filter.mark = _DELETIONS.pack(self._deletions) + self.position.pack()
        if not self._whole:
            changes = filter.changes()
            if changes:
                self._storage.patch(changes)
            return bool(changes)
        if self._storage.taken():
            return False  # another server saves the same ids; ours come when it no longer does
        self._storage.replace(filter.dump())
        self._whole = False
        return True

    def _trouble(self, event: str, message: str | None) -> None:
        """Log what is wrong as it begins, and that it is over."""
        before = self._troubles.pop(event, None)
        if message is not None:
            self._troubles[event] = message
            if message != before:
                log.warning(event, message=message)
        elif before is not None:
            log.info("filter_well", message=f"It is over: {before}")

    @property
    def _where(self) -> str:
        return self._storage.describe()

    # --- rebuilding ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._interval)
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                if self._changed() or self._monotonic() >= self._look_at:
                    self.save()
                if self._asked is not None or (self._due() and self._monotonic() >= self._not_before):
                    self._rebuild()
            except Exception:
                self._whole = True
                log.exception("filter_fault")

    def _changed(self) -> bool:
        return self._whole or self._seen != (self.filter, self.filter.items, self._deletions)

    def _due(self) -> bool:
        stats = self.filter.stats()
        return self._unproved or stats.layers > 1 or 10 * self._deletions > max(stats.items, _FEW)

    def _rebuild(self) -> None:
        with self._lock:
            under_way, self._asked = self._asked or _promise(), None
            self._under_way, self._done = under_way, 0.0
        error: Exception | None = None
        try:
            with self._turn:
                self._made_anew()
        except Exception as fault:
            error = fault
            self._not_before = self._monotonic() + _AFTER_FAILURE
            if not isinstance(fault, StoreClosed):
                log.exception("filter_not_rebuilt", message=f"The filter stays as it was: {fault}")
        self._failed = None if error is None else str(error)
        self._under_way = self._done = None
        under_way.set_result(None) if error is None else under_way.set_exception(error)

    def _made_anew(self) -> None:
        """Fill a new filter beside the live one, which stays in use until the new one has every key.

        Keys that are written from the first swap on go to both; those of writes under way then are told by
        the swap; what was committed before is in the database. That leaves writes that had ended by then with
        an outcome that nobody knows, and the scan waits until they have come to pass or never will.
        """
        guard, old, deletions = self._guard, self.filter, self._deletions
        assert guard is not None
        began = self._monotonic()
        count = self._builder.count()
        new = self._builder.empty(count)
        under_way = guard.swap(Both(old, new))
        try:
            new.update(under_way)
            self._closing.wait(guard.doubt())
            position = self._end_of_record()
            for done in self._builder.fill(new):
                self._done = min(done / max(count, 1), 1.0)
            if self._record is not None and position is not None:
                ids, position = self._record.since(position)
                new.update(ids)
        except BaseException:
            guard.swap(old)
            raise
        self.filter, self.position, self._whole = new, position, True
        guard.swap(new)
        self._unproved = False
        with self._lock:
            self._deletions -= deletions
        seconds = round(self._monotonic() - began, 3)
        log.info("filter_rebuilt", message="The filter is made anew.", ids=count, seconds=seconds)
        self.save()


def _promise() -> Future[None]:
    """One that nobody can cancel: who gives up takes nobody else along."""
    promise: Future[None] = Future()
    promise.set_running_or_notify_cancel()
    return promise
