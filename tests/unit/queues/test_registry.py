"""The registry asks the store for what other servers did: at once for all who want to know, and seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from tests.harness import Jumping
from windlass.errors import StoreClosed, StoreUnavailable
from windlass.queues.registry import Registry
from windlass.store import Changes, Store


class Known:
    """What a registry asks a store: one look takes `seconds`, and finds what there was when it began."""

    shared = True

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.truth = self.memory = 0
        self.looks = 0
        self.fails: list[Exception] = []
        self.changed: Callable[[Changes], None] = lambda _: None

    def listen(self, listener: Callable[[Changes], None]) -> None:
        self.changed = listener

    async def refresh(self) -> bool:
        self.looks += 1
        if self.fails:
            raise self.fails.pop(0)
        found, before = self.truth, self.memory
        await asyncio.sleep(self.seconds)
        self.memory = max(self.memory, found)
        return self.memory != before


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(scenario)


def registry_of(known: Known) -> tuple[Registry, list[int]]:
    registry = Registry(cast("Store", known))
    told: list[int] = []
    registry.listen(lambda: told.append(known.memory))
    return registry, told


def test_whoever_asks_knows_what_was_done_before() -> None:
    """Planted defect: who asks during a look shares it, though it may have begun too early for them."""

    async def scenario() -> None:
        known = Known(1)
        registry, told = registry_of(known)
        known.truth = 1
        first = asyncio.create_task(registry.catch_up())
        await asyncio.sleep(0.5)
        known.truth = 2
        await registry.catch_up()
        assert known.memory == 2
        assert told == [1, 2]
        await first

    run(scenario())


def test_a_crowd_is_few_looks_however_long_they_take() -> None:
    """Planted defects: a look for each who asks; slow looks one behind the other, all of the time."""

    async def scenario() -> None:
        for seconds, most in ((0.001, 25), (1.0, 3)):
            known = Known(seconds)
            registry, _ = registry_of(known)
            asking = []
            for _ in range(1_000):
                asking.append(asyncio.create_task(registry.catch_up()))
                await asyncio.sleep(0.001)
            await asyncio.gather(*asking)
            assert 2 <= known.looks <= most

    run(scenario())


def test_it_looks_every_second_and_tells_of_what_is_different() -> None:
    """Planted defects: it relies on what it is told; it tells of every look."""

    async def scenario() -> None:
        known = Known()
        known.fails = [StoreUnavailable("away")]
        registry, told = registry_of(known)
        registry.start()
        await asyncio.sleep(20)
        assert 12 <= known.looks <= 28
        assert told == []
        known.truth = 1
        await asyncio.sleep(3)
        assert told == [1]
        known.changed(Changes({}, (), (), None))
        known.changed(Changes({}, (), (), None, registry=True))
        assert told == [1, 1]
        known.fails = [StoreClosed()]
        await asyncio.sleep(3)
        before = known.looks
        await asyncio.sleep(60)
        assert known.looks == before
        await registry.stop()

    run(scenario())


def test_a_store_that_is_not_shared_is_never_asked() -> None:
    """Planted defect: SQLite pays for servers that it cannot have."""

    async def scenario() -> None:
        known = Known()
        known.shared = False
        registry, _ = registry_of(known)
        registry.start()
        await registry.catch_up()
        await asyncio.sleep(60)
        assert known.looks == 0

    run(scenario())
