"""Long polls: receives that wait in line until there is something for them, at no cost to the store.

A line is in order of arrival. When messages become ready, as many of the first idle waiters each make one
attempt, submitted to the store at once and in order, so that nobody who comes later overtakes them. An
attempt that finds nothing leaves the waiter idle in its old place. A waiter that goes away, or whose
attempt came to nothing because its client hung up, passes its wake-up on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from windlass.message import Message

Attempt = Callable[[], "asyncio.Future[list[Message]]"]


class Waiter:
    """One receive in line."""

    __slots__ = ("_try", "attempt", "change")

    def __init__(self, attempt: Attempt) -> None:
        self._try = attempt
        self.attempt: asyncio.Future[list[Message]] | None = None
        self.change: asyncio.Future[None] | None = None

    @property
    def idle(self) -> bool:
        """True when no attempt is on its way and the last one, if any, found nothing."""
        attempt = self.attempt
        if attempt is None:
            return True
        if not attempt.done() or attempt.cancelled():
            return False
        return attempt.exception() is None and not attempt.result()

    def start(self) -> None:
        """Make an attempt, and let the waiting task look at it."""
        self.attempt = self._try()
        self.notify()

    def notify(self) -> None:
        if self.change is not None and not self.change.done():
            loop = self.change.get_loop()
            if loop is asyncio.get_running_loop():
                self.change.set_result(None)
            else:
                loop.call_soon_threadsafe(_finish, self.change)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Lines:
    """The lines of all queues."""

    def __init__(self) -> None:
        self._lines: dict[str, OrderedDict[Waiter, None]] = {}
        self._stopped = False

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def idle(self, queue: str) -> bool:
        """True while somebody waits here idly: whatever comes next is theirs."""
        line = self._lines.get(queue)
        return line is not None and any(waiter.idle for waiter in line)

    def wake(self, queue: str, amount: int) -> None:
        """`amount` messages became ready: the first idle waiters make an attempt each."""
        line = self._lines.get(queue)
        if line is None:
            return
        for waiter in line:
            if amount <= 0:
                return
            if waiter.idle:
                waiter.start()
                amount -= 1

    def stop(self) -> None:
        """Let everybody go with empty hands, now and from now on."""
        self._stopped = True
        for line in self._lines.values():
            for waiter in line:
                waiter.notify()

    async def wait(
        self, queue: str, seconds: float, attempt: Attempt, gone: Awaitable[object] | None
    ) -> list[Message]:
        """Stand in line until an attempt brings messages, `seconds` are over, or the client is `gone`."""
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(queue, OrderedDict())
        waiter = Waiter(attempt)
        late = loop.call_later(seconds, waiter.notify)
        deadline = loop.time() + seconds
        if isinstance(gone, asyncio.Future):
            gone.add_done_callback(lambda _: waiter.notify())
        behind = any(other.idle for other in line)
        line[waiter] = None
        try:
            if not behind:
                waiter.attempt = attempt()
            while True:
                tried = waiter.attempt
                if tried is not None:
                    messages = await asyncio.shield(tried)
                    if messages:
                        return messages
                    if waiter.attempt is not tried:
                        continue
                if self._stopped or loop.time() >= deadline or _done(gone):
                    return []
                waiter.change = loop.create_future()
                await waiter.change
                waiter.change = None
        finally:
            late.cancel()
            del line[waiter]
            if not line and self._lines.get(queue) is line:
                del self._lines[queue]
            self._pass_on(queue, waiter)

    def _pass_on(self, queue: str, waiter: Waiter) -> None:
        """What woke this waiter is for the next if it took nothing."""
        attempt = waiter.attempt
        if attempt is None:
            return
        if not attempt.done():  # it may still take something: then it is for nobody, like a plain GET cut off
            attempt.add_done_callback(lambda _: self._pass_on(queue, waiter))
        elif not attempt.cancelled() and attempt.exception() is None and not attempt.result():
            self.wake(queue, 1)


def _done(gone: Awaitable[object] | None) -> bool:
    return isinstance(gone, asyncio.Future) and gone.done()
