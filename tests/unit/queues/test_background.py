"""Work beside the requests looks when it is woken, and ends when it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tests.harness import Jumping
from windlass.queues.background import Background


class Looks:
    """A look takes a second of the loop's time."""

    def __init__(self) -> None:
        self.background = Background(self._work, "looks")
        self.begun = self.done = 0

    async def _work(self) -> None:
        while True:
            self.background.clear()
            self.begun += 1
            await asyncio.sleep(1)
            self.done += 1
            await self.background.rest(60)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(scenario)


def test_it_looks_at_once_when_woken_and_by_itself_when_the_time_is_over() -> None:
    """Planted defects: a wake that nobody hears; a rest without an end."""

    async def scenario() -> None:
        looks = Looks()
        looks.background.wake()  # it was not started: nothing
        looks.background.start()
        looks.background.start()
        await asyncio.sleep(2)
        assert (looks.begun, looks.done) == (1, 1)
        looks.background.wake()
        await asyncio.sleep(2)
        assert looks.done == 2
        await asyncio.sleep(61)
        assert looks.done == 3
        await looks.background.stop()

    run(scenario())


def test_who_wakes_it_during_a_look_is_seen_by_the_next() -> None:
    """Planted defect: forgetting who woke it after the look, and not before."""

    async def scenario() -> None:
        looks = Looks()
        looks.background.start()
        await asyncio.sleep(0.5)
        looks.background.wake()
        await asyncio.sleep(2)
        assert looks.done == 2
        await asyncio.sleep(30)
        assert looks.begun == 2  # and not by one more
        await looks.background.stop()

    run(scenario())


def test_when_stop_returns_it_has_ended_and_it_may_begin_again_on_another_loop() -> None:
    """Planted defect: a stop that does not wait."""
    looks = Looks()

    async def scenario() -> None:
        before = looks.done
        looks.background.start()
        await asyncio.sleep(2)
        assert looks.done == before + 1
        await looks.background.stop()
        assert [task for task in asyncio.all_tasks() if task.get_name() == "looks"] == []
        looks.background.start()  # and nobody stops it

    run(scenario())
    run(scenario())
