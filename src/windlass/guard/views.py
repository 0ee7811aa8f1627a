"""Several servers that write one source: each hears of the writes of all, or knows that it does not.

The servers tell each other of writes in a journal in Redis (journal.py), and each reads it in rounds. A round
says how far one has read and reads on, in one step; with it begins a lease of LEASE seconds, in which the
server may answer from memory. The rules, whose proof is in docs/explanation/views.md:

- A write is announced. Its operation runs once every other server has read the announcement, or has said
  nothing for LAPSE seconds, on the writer's own clock: then its lease is over, and the next round, without
  which it gets no other, brings it the announcement.
- A write is answered for once its end is in the journal, in the epoch of its announcement, and nobody has
  given it up before. Else it is announced again first. However long a server was stopped, this is true.
- Whatever was lost begins a new epoch: another process of Redis, a missing key, a number that does not fit. A
  server that comes into an epoch drops what it remembers, reads the whole log, then has the filter brought up
  to date from the source, and trusts its memory only after that.
- A new epoch is entered only with leave: where servers of the same source use another journal, there is none.
- In a new epoch nobody trusts his memory until it is settled, since a writer of an earlier one may commit
  and die before it announces its write again; and nobody writes for LAPSE seconds, since leases of before may
  last.

A lease counts from before its round was sent, on a clock that counts while the machine sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

import redis
import structlog

from windlass.guard.announcements import Announcement, Announcements
from windlass.guard.boot import boot_time
from windlass.guard.journal import Broken, Journal, Page, Standing
from windlass.guard.place import LAPSE, LEASE, Hearer, Place

INTERVAL = 0.5
"""Seconds between rounds that nobody asked for."""
LIMIT = 10.0
"""Seconds that a write waits for the others."""
SETTLE = 15.0
"""Seconds after which no write of an earlier epoch is under way any more, whose server died since."""
_LONG = 1024

log = structlog.get_logger("windlass.guard")


class Status(NamedTuple):
    """Whether memory is trusted, for how many seconds now, why (not), and how many servers there are."""

    current: bool
    seconds: float
    reason: str
    servers: int


class Views:
    """`Peers` of a guard. One thread makes the rounds; nothing waits for Redis in an event loop.

    What a write of ours came to is told in `done` or `end`; either may be called once, after `begin`.
    """

    def __init__(
        self,
        guard: Hearer,
        client: redis.Redis,
        catch_up: Callable[[], object],
        *,
        state_key: str = "bloom:filter",
        admits: Callable[[str, str], bool] = lambda *_: True,
        first: Callable[[str], bool] = lambda _: False,
        alone: Callable[[], bool] = lambda: False,
        secret: bytes | None = None,
        settle: float = SETTLE,
        longest: int = _LONG,
        clock: Callable[[], float] = boot_time,
        beside: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`catch_up` puts into the guard's filter every key that the source holds when it is called. It
        blocks, and may raise; keys that are added to the filter meanwhile must be in it afterwards.

        `admits` is asked for leave to enter an epoch, told this and the one before. `first` notes an epoch
        beside the source, and tells whether none but this one was ever noted there: then nobody can have
        written under another. `alone` tells whether no other server lives: then no write of one is under way,
        though a lease may last for which it had lived. `secret` is what `Journal.secret` gave: it is put back
        where Redis has lost it. `longest`: entries of the log at which its front is cut. `beside` runs
        something beside the rounds. `client` is for nobody else.
        """
        self._guard, self._catch_up, self._first = guard, catch_up, first
        self._journal = Journal(client, state_key)
        self._admits, self._alone = admits, alone
        self._settle, self._clock, self._beside = settle, clock, beside or _in_thread
        self.name = secrets.token_hex(6)
        self._until = -math.inf
        self._reason, self._changed, self._servers = "It has not started yet.", clock(), 0
        # What follows belongs to the thread of the rounds, but for `_new`.
        self._new: deque[Announcement] = deque()
        self._ours = Announcements(self.name)
        self._renewals = 0
        self._secret = secret
        self._lost_epoch: str | None = None
        self._epoch, self._since = "", 0.0
        """The epoch that was joined last, and since when we know of it."""
        self._place: Place | None = None
        self._caught_up = object()
        """The place in which the filter was brought up to date."""
        self._catching_up: Place | None = None
        self._again = -math.inf
        self._longest = longest
        self._rejoin = False
        self._wake, self._closing = threading.Event(), threading.Event()
        self._first_known = threading.Event()
        """Memory is trusted, or it is known why that takes a while."""
        self._waiting = False
        self._threads: list[threading.Thread] = []

    # --- for the guard ------------------------------------------------------------------------------

    def current(self) -> bool:
        """Whether this process knows of every write that was answered for."""
        return self._clock() < self._until

    async def begin(self, keys: Collection[str]) -> Announcement:
        """Announce a write; returns once nobody answers who has not heard it. Raises StoreUnavailable."""
        announcement = Announcement(tuple(keys), self._clock() + LIMIT)
        self._new.append(announcement)
        if self._closing.is_set():
            announcement.fail("The server is stopping.")
        self._wake.set()
        try:
            await asyncio.wrap_future(announcement.begun)
        except BaseException:
            announcement.outcome = "none"
            raise
        return announcement

    async def done(self, begun: object) -> None:
        """It was written. Returns once that may be told; raises StoreUnavailable where it may not be."""
        assert isinstance(begun, Announcement)
        begun.answer_by = self._clock() + LIMIT
        begun.outcome = "written"
        self._wake.set()
        await asyncio.wrap_future(begun.ended)

    async def end(self, begun: object, *, sure: bool) -> None:
        """It was not written; not `sure`: it may still come to pass."""
        assert isinstance(begun, Announcement)
        begun.outcome = "none" if sure else "unknown"
        self._wake.set()

    # --- for whoever runs it ------------------------------------------------------------------------

    def start(self, patience: float = 0.0) -> None:
        """Make rounds from now on, in threads; wait so many seconds at most until memory is trusted, where
        nothing stands in the way."""
        for name, work in (("views", self._drive), ("views-wake", self._listen)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._first_known.wait(patience)

    def close(self) -> None:
        """Trust nothing any more, tell what is left to tell, and go. Blocks, for seconds if Redis hangs."""
        self._closing.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        place, self._until = self._place, -math.inf
        if place is not None and self._ours:
            self.round()
        self._until = -math.inf
        self._tell("The server is stopping.")
        while self._new:
            self._ours.add(self._new.popleft())
        self._ours.fail("The server is stopping.")
        if place is not None:
            with contextlib.suppress(redis.RedisError, OSError):  # else they wait until it has lapsed
                self._journal.leave(self.name)

    def rejoin(self) -> None:
        """Something may have been written of which nobody told: join anew."""
        self._rejoin, self._until = True, -math.inf
        self._wake.set()

    def status(self) -> Status:
        now, until = self._clock(), self._until
        if now < until:
            return Status(True, now - self._changed, "It hears of every write.", self._servers)
        if until > -math.inf and self._reason == "":
            return Status(False, now - until, "This process or Redis was too slow.", self._servers)
        return Status(False, now - self._changed, self._reason, self._servers)

    # --- rounds -------------------------------------------------------------------------------------

    def round(self) -> bool:
        """Speak, read on, and do what follows from it; whether another round is due at once."""
        while self._new:
            self._ours.add(self._new.popleft())
        if self._rejoin:
            self._rejoin = False
            self._leave("It may have missed writes.")
        sent = self._clock()
        try:
            place = self._place or self._join()
            if place is None:
                return False
            page = self._exchange(place)
        except Broken as error:
            self._lost_epoch = self._place.epoch if self._place else None
            self._leave(f"The journal in Redis is broken: {error}.")
            return False
        except (redis.RedisError, OSError) as error:
            self._ours.give_up(self._clock())
            self._tell(f"Redis does not answer: {error}", only_if_lapsed=True)
            self._first_known.set()
            return False
        heard = self._clock()
        if page.epoch != place.epoch or page.base > place.position:
            self._leave("It has missed announcements.")
            return False
        if page.written - place.position != len(page.entries):
            self._lost_epoch = place.epoch
            self._leave("Announcements were lost in Redis.")
            return False
        if not place.taken and not self._take_place(place, page, heard):
            return False
        more = place.read(page, heard, self.name, self._ours, self._guard)
        self._look_around(place, page, sent, heard)
        self._ours.give_up(heard)
        if self._caught_up is place:
            if self._rejoin:
                return True
            lost = self._until <= heard
            self._until = sent + LEASE
            if lost and heard < self._until:
                self._tell("")
                self._first_known.set()
        else:
            self._bring_up_to_date(place, page, heard)
        return more

    def _join(self) -> Place | None:
        """A place at the front of the log; None where there is no epoch yet."""
        page = self._journal.look()
        if page is None or page.epoch == self._lost_epoch:
            self._journal.begin_epoch(self._lost_epoch, self._secret)
            page = self._journal.look()
            if page is None or page.epoch == self._lost_epoch:
                return None
        self._place = Place(page.epoch, page.base)
        return self._place

    def _exchange(self, place: Place) -> Page:
        entries = [*self._ours.due(), *place.given_up_by(self.name)]
        new = any(entry.kind == "begin" for entry in entries)
        self._waiting |= new  # before anybody can have read it
        tells = place.announced > place.told
        page = self._journal.exchange(
            self.name,
            Standing(place.epoch, place.position, self._renewals),
            entries,
            place.last,
            # Whoever is told so writes at once.
            settled=place.settled and not place.settled_told and self._clock() >= place.write_from,
            wake=f"new {self.name}" if new else f"read {self.name}" if tells else "",
        )
        self._renewals += 1
        place.settled_told = page.settled
        place.told = max(place.told, place.announced)
        return page

    def _take_place(self, place: Place, page: Page, heard: float) -> bool:
        """With its first page, all that is remembered is of before. Whether it may be taken."""
        try:
            admitted = self._admits(place.epoch, self._epoch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no leave
            self._leave(f"It cannot be told whether all servers use this Redis: {error}")
            return False
        if not admitted:
            self._leave(
                "Other servers of the same database use another Redis, or another namespace, and do not hear"
                " of what is written here; or they do not reach it. Give all of them the same, or stop them."
            )
            return False
        if place.epoch != self._epoch:
            self._epoch, self._since = place.epoch, heard
        place.taken = True
        place.settled = page.settled or self._is_first(place.epoch)
        place.write_from = heard if place.settled else self._since + LAPSE
        place.settled = place.settled or self._alone()
        self._guard.forget()
        return True

    def _is_first(self, epoch: str) -> bool:
        try:
            return self._first(epoch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no proof
            log.warning("epoch_not_noted", message=f"Could not ask whether this is the first epoch: {error}")
            return False

    def _look_around(self, place: Place, page: Page, sent: float, heard: float) -> None:
        """Who there is, how far the others have read, and what that settles."""
        slowest = place.look_around(page, sent, heard, self.name)
        self._servers = place.servers()
        self._waiting = self._ours.heard(slowest if heard >= place.write_from else -1)
        for name, words in place.silent(sent):
            self._upkeep(partial(self._journal.strike, name, words))
        if len(place.ids) >= self._longest and (cut := place.cut(slowest, self._ours)) is not None:
            self._upkeep(partial(self._journal.cut, *cut))

    def _bring_up_to_date(self, place: Place, page: Page, now: float) -> None:
        """Once the epoch is settled, have the filter brought up to date, beside the rounds."""
        if not place.settled:
            left = self._since + self._settle - now
            if left > 0 and not page.settled:
                self._first_known.set()
                self._tell(
                    f"The announcements in Redis began anew; it trusts them in {left:.0f} s.", quiet=True
                )
                return
            place.settled = True
            self._guard.forget()
        if self._catching_up is not place and now >= self._again:
            self._catching_up = place
            self._tell("The filter is being brought up to date from the source.", quiet=True)
            self._beside(lambda: self._run_catch_up(place))

    def _run_catch_up(self, place: Place) -> None:
        try:
            self._catch_up()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            self._tell(f"The filter could not be brought up to date: {error}")
            self._again = self._clock() + 2 * INTERVAL
            self._catching_up = None
        else:
            self._caught_up = place
        self._wake.set()

    def _leave(self, reason: str) -> None:
        """Trust nothing, and join anew with the next round."""
        self._until = -math.inf
        self._tell(reason)
        place, self._place = self._place, None
        self._ours.announce_again()
        self._ours.give_up(self._clock())
        if place is not None:
            place.leave(self._guard)

    def _upkeep(self, step: Callable[[], None]) -> None:
        """Upkeep, which may fail: it comes up again."""
        try:
            step()
        except (redis.RedisError, OSError) as error:
            log.debug("upkeep_failed", error=str(error))

    def _tell(self, reason: str, *, quiet: bool = False, only_if_lapsed: bool = False) -> None:
        """Note, and log, whether memory is trusted (no reason) or why not."""
        if only_if_lapsed and self.current():
            return
        if reason == self._reason:
            return
        if reason and not (self._reason and quiet):
            log.warning("memory_not_trusted", message=f"Look-ups go to the source. {reason}")
        elif not reason:
            log.info("memory_trusted", message="Hearing of every write: answering from memory.")
        if bool(reason) != bool(self._reason):
            self._changed = self._clock()
        self._reason = reason

    # --- threads ------------------------------------------------------------------------------------

    def _drive(self) -> None:
        more = True
        while not self._closing.is_set():
            if not more:
                self._wake.wait(INTERVAL)
            self._wake.clear()
            try:
                more = self.round()
            except Exception:
                log.exception("round_failed")
                self._leave("There is an error in Windlass; the log tells which.")
                more = self._closing.wait(INTERVAL)

    def _listen(self) -> None:
        """Wake the rounds when somebody has told something; what gets lost here costs an INTERVAL."""
        while not self._closing.is_set():
            try:
                listening = self._journal.listen()
                try:
                    while not self._closing.is_set():
                        message = listening.get_message(timeout=INTERVAL)
                        if message is not None:
                            self._heard(bytes(message["data"]).decode(errors="replace"))
                finally:
                    listening.close()
            except (redis.RedisError, OSError):
                self._closing.wait(INTERVAL)

    def _heard(self, message: str) -> None:
        what, _, who = message.partition(" ")
        if who != self.name and (what != "read" or self._waiting):
            self._wake.set()


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="views-catch-up", daemon=True).start()
