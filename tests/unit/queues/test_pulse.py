"""The pulse looks once a second at each name, spread over the second, while somebody waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from tests.harness import Jumping
from windlass.errors import StoreClosed, StoreUnavailable
from windlass.queues.pulse import Pulse


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(scenario)


def test_each_name_once_a_second_and_not_all_at_once() -> None:
    """Planted defects: a look for each part of the second; all names in its first part."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        looks: Counter[str] = Counter()
        at_once: Counter[float] = Counter()

        async def look(name: str) -> None:
            looks[name] += 1
            at_once[loop.time()] += 1

        pulse = Pulse(lambda: [f"q{n}" for n in range(95)], look, "pulse")
        pulse.start()
        await asyncio.sleep(10.05)
        assert set(looks.values()) == {10}
        assert len(looks) == 95
        assert max(at_once.values()) == 10
        await pulse.stop()

    run(scenario())


def test_it_rests_while_nobody_waits_and_goes_on_when_somebody_does() -> None:
    """Planted defects: it polls for nobody; it ends with the last who waits."""

    async def scenario() -> None:
        names: list[str] = []
        asked, looked = 0, asyncio.Event()

        def waited_for() -> list[str]:
            nonlocal asked
            asked += 1
            return list(names)

        async def look(_: str) -> None:
            looked.set()

        pulse = Pulse(waited_for, look, "pulse")
        pulse.start()
        await asyncio.sleep(600)
        assert asked <= 2
        names.append("q")
        pulse.start()
        await looked.wait()
        await pulse.stop()

    run(scenario())


def test_a_look_that_fails_is_in_nobodys_way_and_a_closed_store_ends_it() -> None:
    """Planted defect: the first failure ends it, and whoever waits waits for ever."""

    async def scenario() -> None:
        looks: Counter[str] = Counter()
        closed = asyncio.Event()

        async def look(name: str) -> None:
            looks[name] += 1
            if name == "broken":
                raise StoreUnavailable if looks[name] % 2 else OSError
            if looks[name] == 5:
                closed.set()
                raise StoreClosed

        pulse = Pulse(lambda: ["broken", "fine"], look, "pulse")
        pulse.start()
        await closed.wait()
        await asyncio.sleep(60)
        assert looks["broken"] == looks["fine"] == 5
        await pulse.stop()

    run(scenario())
