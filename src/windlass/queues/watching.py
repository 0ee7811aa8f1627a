"""Those who wait for something with a number to change. Whoever writes a change tells them.

Nobody polls, but for what another server may change, which tells nobody here: see `every`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Watch:
    """One who waits, on its own event loop; `tell` may be called from another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Future[None] = self._loop.create_future()

    def tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there any more
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self._told.done():
            self._told.set_result(None)

    def clear(self) -> None:
        """Forget what was told: the next look sees all of it."""
        if self._told.done():
            self._told = self._loop.create_future()

    async def wait(self, seconds: float, gone: asyncio.Future[None] | None) -> None:
        """Until it is told, `gone` is done, or the seconds are over."""
        others = (gone,) if gone is not None else ()
        await asyncio.wait((self._told, *others), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


class Watches:
    """All of them, by the number of what they wait for."""

    def __init__(self) -> None:
        self._watches: dict[int, set[Watch]] = {}
        self._lock = threading.Lock()
        self.stopped = False
        """True once everybody shall go with what they have."""

    async def until(
        self,
        number: int,
        look: Callable[[], Awaitable[T]],
        enough: Callable[[T], bool],
        seconds: float,
        gone: asyncio.Future[None] | None,
        *,
        every: float | None = None,
    ) -> T:
        """What `look` finds once it is `enough`; or what there is when the seconds are over, or its client is
        `gone`. With `every` it looks again after so many seconds in which nobody told it. Raises what `look`
        raises."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with self._watch(number) as watch:
            while True:
                watch.clear()  # before the look, or a change may slip through
                found = await look()
                left = deadline - loop.time()
                hung_up = gone is not None and gone.done()
                if enough(found) or left <= 0 or hung_up or self.stopped:
                    return found
                await watch.wait(left if every is None else min(left, every), gone)

    @contextlib.contextmanager
    def _watch(self, number: int) -> Iterator[Watch]:
        watch = Watch()
        with self._lock:
            self._watches.setdefault(number, set()).add(watch)
        try:
            yield watch
        finally:
            with self._lock:
                watches = self._watches[number]
                watches.discard(watch)
                if not watches:
                    del self._watches[number]

    def tell(self, numbers: Iterable[int]) -> None:
        """These have changed."""
        if not self._watches:
            return
        with self._lock:
            told = [watch for number in numbers for watch in self._watches.get(number, ())]
        for watch in told:
            watch.tell()

    def tell_all(self) -> None:
        """Anything may have changed."""
        with self._lock:
            numbers = list(self._watches)
        self.tell(numbers)

    def stop(self) -> None:
        """Let everybody go, now and from now on."""
        self.stopped = True
        self.tell_all()

    def __len__(self) -> int:
        return sum(map(len, self._watches.values()))
