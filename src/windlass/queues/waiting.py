"""Long polls: receives that wait in line until there is something for them, at no cost to the store.

A line is in order of arrival, whatever event loop a waiter is on (a test client may bring several).
When messages become ready, as many of the first idle waiters each make one attempt, submitted to the
store at once and in order, so that nobody who comes later overtakes them. An attempt that finds nothing
leaves the waiter idle in its old place. A waiter whose attempt came to nothing because its client hung
up passes its wake-up on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from windlass.message import Message

Attempt = Callable[[], "asyncio.Future[list[Message]]"]


class Waiter:
    """One receive in line. Made on its own event loop; `start` and `notify` may be called from another."""

    __slots__ = ("_try", "attempt", "called", "change", "left", "loop", "over")

    def __init__(self, attempt: Attempt) -> None:
        self.loop = asyncio.get_running_loop()
        self._try = attempt
        self.attempt: asyncio.Future[list[Message]] | None = None
        self.called = False
        """True from a wake-up on another loop until the attempt is made on this one."""
        self.change: asyncio.Future[None] | None = None
        self.over = False
        """True once its time is over."""
        self.left = False
        """True once it stands in line no more."""

    @property
    def idle(self) -> bool:
        """True when no attempt is on its way and the last one, if any, found nothing."""
        if self.called or self.loop.is_closed():
            return False
        attempt = self.attempt
        if attempt is None:
            return True
        if not attempt.done() or attempt.cancelled():
            return False
        return attempt.exception() is None and not attempt.result()

    @property
    def here(self) -> bool:
        """True on the waiter's own loop."""
        return self.loop is asyncio.get_running_loop()

    def start(self) -> None:
        """Make an attempt, and let the waiting task look at it."""
        if self.here:
            self._start()
        else:
            self.called = True
            self.loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self.called = False
        if self.idle and not self.left:
            self.attempt = self._try()
            self._notify()

    def notify(self) -> None:
        """Let the waiting task look around."""
        if self.here:
            self._notify()
        else:
            self.loop.call_soon_threadsafe(self._notify)

    def give_up(self) -> None:
        """Its time is over."""
        self.over = True
        self._notify()

    def _notify(self) -> None:
        if self.change is not None and not self.change.done():
            self.change.set_result(None)


class Lines:
    """The lines of all queues."""

    def __init__(self) -> None:
        self._lines: dict[str, OrderedDict[Waiter, None]] = {}
        self._lock = threading.RLock()
        self._stopped = False

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def waiting(self, queue: str) -> int:
        """How many stand in a line."""
        return len(self._lines.get(queue, ()))

    def waited_for(self) -> list[str]:
        """The lines in which somebody stands."""
        return list(self._lines)

    def idle(self, queue: str) -> bool:
        """True while somebody waits here idly: whatever comes next is theirs."""
        line = self._lines.get(queue)
        if line is None:
            return False
        with self._lock:
            return any(waiter.idle for waiter in line)

    def wake(self, queue: str, amount: int, *, relay: bool = True) -> None:
        """`amount` messages became ready: the first idle waiters make an attempt each."""
        line = self._lines.get(queue)
        if line is None:
            return
        busy: set[asyncio.AbstractEventLoop] = set()
        with self._lock:
            for waiter in line:
                if amount <= 0:
                    return
                if waiter.idle:
                    waiter.start()
                    amount -= 1
                elif not waiter.here:
                    busy.add(waiter.loop)
        # An attempt that found nothing before these messages came may be on its way to another loop, where
        # its waiter looks busy until then: that loop wakes it, behind the answer.
        for loop in busy if relay else ():
            with contextlib.suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(partial(self.wake, queue, amount, relay=False))

    def wake_all(self, queue: str) -> None:
        """Something happened to the queue itself: let everybody find out."""
        line = self._lines.get(queue)
        if line is not None:
            self.wake(queue, len(line))

    def stop(self) -> None:
        """Let everybody go with empty hands, now and from now on."""
        self._stopped = True
        with self._lock:
            for line in self._lines.values():
                for waiter in line:
                    waiter.notify()

    async def wait(
        self, queue: str, seconds: float, attempt: Attempt, gone: asyncio.Future[None] | None
    ) -> list[Message]:
        """Stand in line until an attempt brings messages, `seconds` are over, or the client is `gone`."""
        loop = asyncio.get_running_loop()
        waiter = Waiter(attempt)
        late = loop.call_later(seconds, waiter.give_up)

        def told(_: asyncio.Future[None]) -> None:
            waiter.notify()

        if gone is not None:
            gone.add_done_callback(told)
        with self._lock:
            line = self._lines.setdefault(queue, OrderedDict())
            behind = any(other.idle for other in line)
            line[waiter] = None
        try:
            if not behind:
                waiter.start()
            while True:
                tried = waiter.attempt
                if tried is not None:
                    messages = await asyncio.shield(tried)
                    if messages:
                        return messages
                    if waiter.attempt is not tried:
                        continue
                if self._stopped or waiter.over or _hung_up(gone):
                    return []
                waiter.change = loop.create_future()
                await waiter.change
                waiter.change = None
        finally:
            late.cancel()
            if gone is not None:
                gone.remove_done_callback(told)  # or it would hold what was received, in a ring
            with self._lock:
                del line[waiter]
                if not line and self._lines.get(queue) is line:
                    del self._lines[queue]
                waiter.left = True
            self._pass_on(queue, waiter, gone)

    def _pass_on(self, queue: str, waiter: Waiter, gone: asyncio.Future[None] | None) -> None:
        """What woke a waiter that took nothing because its client had hung up is for the next."""
        attempt = waiter.attempt
        if waiter.called:
            waiter.called = False
            self.wake(queue, 1)
        elif attempt is None or not _hung_up(gone):
            return
        elif not attempt.done():  # it may still take something: then it is for nobody, as a plain GET cut off
            attempt.add_done_callback(lambda _: self._pass_on(queue, waiter, gone))
        elif not attempt.cancelled() and attempt.exception() is None and not attempt.result():
            self.wake(queue, 1)


def _hung_up(gone: asyncio.Future[None] | None) -> bool:
    return gone is not None and gone.done()
