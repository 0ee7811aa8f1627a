"""The reaper looks when something is due, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from tests.harness import Jumping
from windlass.clock import ManualClock
from windlass.errors import StoreClosed, StoreUnavailable
from windlass.queues.reaper import Reaper
from windlass.store import Changes, Store


class Upkeep:
    """The one verb of a store that the reaper knows; what it answers is the test's choice."""

    shared = False

    def __init__(self, *answers: int | Exception | None) -> None:
        self.answers = list(answers)
        self.looked = asyncio.Event()
        self.looks = 0
        self.changed: Callable[[Changes], None] = lambda _: None

    def listen(self, listener: Callable[[Changes], None]) -> None:
        self.changed = listener

    async def expire(self) -> int | None:
        self.looks += 1
        self.looked.set()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(scenario)


def reaper_of(upkeep: Upkeep, clock: ManualClock) -> Reaper:
    return Reaper(cast("Store", upkeep), clock)


async def look(upkeep: Upkeep) -> None:
    await upkeep.looked.wait()
    upkeep.looked.clear()
    await asyncio.sleep(0)


def test_it_sleeps_while_nothing_is_due_and_wakes_for_what_falls_due_earlier() -> None:
    """Planted defect: polling; or sleeping through a lease that is shorter than the last one."""

    async def scenario() -> None:
        clock = ManualClock()
        upkeep = Upkeep(clock.now() + 60_000)
        reaper = reaper_of(upkeep, clock)
        reaper.start()
        await look(upkeep)
        upkeep.changed(Changes({}, [], [], clock.now() + 70_000))
        await asyncio.sleep(50)  # of the loop's time
        assert upkeep.looks == 1
        upkeep.changed(Changes({}, [], [], clock.now() + 10))
        await look(upkeep)
        assert upkeep.looks == 2
        await reaper.stop()

    run(scenario())


def test_it_looks_again_when_the_time_has_come() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        upkeep = Upkeep(clock.now() + 10, clock.now(), None)
        reaper = reaper_of(upkeep, clock)
        reaper.start()
        for _ in range(3):
            await look(upkeep)
        await asyncio.sleep(3600)
        assert upkeep.looks == 3
        await reaper.stop()

    run(scenario())


def test_a_store_that_fails_is_asked_again_and_one_that_is_closed_is_not() -> None:
    """Planted defect: dying of the first full disk."""

    async def scenario() -> None:
        clock = ManualClock()
        upkeep = Upkeep(StoreUnavailable("full"), StoreClosed())
        reaper = reaper_of(upkeep, clock)
        reaper.start()
        await look(upkeep)
        upkeep.changed(Changes({}, [], [], clock.now()))
        await look(upkeep)
        upkeep.changed(Changes({}, [], [], clock.now()))
        await asyncio.sleep(3600)
        assert upkeep.looks == 2
        await reaper.stop()

    run(scenario())


def test_starting_twice_is_starting_once_and_a_new_loop_gets_one_of_its_own() -> None:
    clock = ManualClock()

    async def once(reaper: Reaper, upkeep: Upkeep) -> None:
        upkeep.looked = asyncio.Event()
        before = upkeep.looks
        reaper.start()
        reaper.start()
        await look(upkeep)
        await asyncio.sleep(3600)
        assert upkeep.looks == before + 1

    upkeep = Upkeep()
    reaper = reaper_of(upkeep, clock)
    run(once(reaper, upkeep))
    run(once(reaper, upkeep))
    asyncio.run(reaper.stop())


def test_of_a_store_that_others_change_too_it_looks_every_second() -> None:
    """Fails when it rests until what it knows of is due: another server may bring what is due before."""

    async def scenario() -> None:
        clock = ManualClock()
        upkeep = Upkeep(None, clock.now() + 600_000)
        upkeep.shared = True
        reaper, loop = reaper_of(upkeep, clock), asyncio.get_running_loop()
        reaper.start()
        for _ in range(10):
            await look(upkeep)
        assert 6 < loop.time() < 12  # nine rests
        await reaper.stop()

    run(scenario())
