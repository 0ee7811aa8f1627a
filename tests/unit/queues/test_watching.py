"""Waiting for a change: none is missed, and nobody waits longer than they asked to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from tests.harness import Jumping
from windlass.queues.watching import Watches


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(scenario)


def test_a_change_during_a_look_is_followed_by_another_look() -> None:
    """Planted defect: what was told is forgotten after the look, and not before it."""

    async def scenario() -> None:
        watches = Watches()
        looks = 0

        async def look() -> int:
            nonlocal looks
            looks += 1
            watches.tell([1])  # the change that this look did not see
            await asyncio.sleep(1)
            return looks

        assert await watches.until(1, look, lambda found: found == 3, 60, None) == 3
        assert len(watches) == 0

    run(scenario())


def test_what_nobody_tells_of_is_seen_by_looking_again() -> None:
    """Planted defects: `every` left out; a look every second also where nobody else can change anything."""

    async def scenario() -> None:
        watches = Watches()
        loop = asyncio.get_running_loop()
        began = loop.time()
        looks: list[float] = []

        async def look() -> float:
            looks.append(loop.time() - began)
            return looks[-1]

        assert await watches.until(1, look, lambda since: since >= 2.5, 60, None, every=1) == 3
        assert looks == [0, 1, 2, 3]
        looks.clear()
        began = loop.time()
        assert await watches.until(1, look, lambda _: False, 0.5, None, every=1) == 0.5
        assert await watches.until(1, look, lambda since: since >= 2.5, 60, None) == 60.5
        assert looks == [0, 0.5, 0.5, 60.5]

    run(scenario())


def test_it_ends_by_the_time_by_the_client_and_by_the_stop() -> None:
    """Planted defects: any of the three left out."""

    async def scenario() -> None:
        watches = Watches()
        loop = asyncio.get_running_loop()

        async def look() -> str:
            return "as it is"

        def never(_: str) -> bool:
            return False

        began = loop.time()
        assert await watches.until(1, look, never, 5, None) == "as it is"
        assert 5 <= loop.time() - began < 6
        gone: asyncio.Future[None] = loop.create_future()
        loop.call_later(2, gone.set_result, None)
        assert await watches.until(1, look, never, 600, gone) == "as it is"
        loop.call_later(2, watches.stop)
        assert await watches.until(1, look, never, 600, None) == "as it is"
        assert await watches.until(1, look, never, 600, None) == "as it is"  # from now on, too
        assert loop.time() - began < 20
        assert len(watches) == 0

    run(scenario())


def test_those_who_wait_for_something_else_are_not_woken() -> None:
    async def scenario() -> None:
        watches = Watches()
        looks: list[int] = []

        async def wait_for(number: int) -> int:
            async def look() -> int:
                looks.append(number)
                return looks.count(number)

            return await watches.until(number, look, lambda count: count > 1, 60, None)

        waiting = [asyncio.ensure_future(wait_for(number)) for number in (1, 2)]
        await asyncio.sleep(1)
        assert len(watches) == 2
        watches.tell([2, 3])
        assert await waiting[1] == 2
        watches.tell_all()
        assert await waiting[0] == 2
        assert looks == [1, 2, 2, 1]

    run(scenario())


def test_another_thread_may_tell_also_when_the_loop_is_closed() -> None:
    """Planted defect: what a closed loop raises gets out."""
    watches = Watches()
    looked = threading.Event()
    changed = threading.Event()

    async def look() -> bool:
        looked.set()
        return changed.is_set()

    def tell() -> None:
        assert looked.wait(60)
        changed.set()
        watches.tell([1])

    teller = threading.Thread(target=tell)
    teller.start()
    assert asyncio.run(watches.until(1, look, bool, 60, None))
    teller.join()

    async def leave() -> object:
        waiting = watches._watch(1)
        waiting.__enter__()
        return waiting

    left = asyncio.run(leave())
    watches.tell([1])
    del left
