"""What is known of a queue, while it is changed and made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from windlass.message import QueueInfo, QueueSettings
from windlass.server.sqs.known import Knowledge
from windlass.store import Store


class Slow:
    """A store that reads a queue, and then something happens before that is told."""

    number = 1
    delay = "1"

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None

    def queue_number(self, _: str) -> int:
        return self.number

    async def queue(self, name: str) -> QueueInfo:
        settings = QueueSettings(sqs={"DelaySeconds": self.delay})
        self.meanwhile()
        return QueueInfo(name=name, settings=settings, paused=False, created_at=0)


def test_what_was_read_before_a_change_is_not_known_after_it() -> None:
    """Planted defect: settings read while they are changed here count for another second."""
    store = Slow()
    knowledge = Knowledge(cast("Store", store))

    def change() -> None:
        store.delay = "2"
        knowledge.forget("q")

    store.meanwhile = change
    assert asyncio.run(knowledge.look("q")).delay == 1
    assert knowledge.of("q") is None
    store.meanwhile = lambda: None
    assert asyncio.run(knowledge.look("q")).delay == 2
    known = knowledge.of("q")
    assert known is not None
    assert known.delay == 2


def test_the_settings_of_a_queue_that_is_gone_are_not_the_next_ones() -> None:
    """Planted defect: the number of a queue that is made anew meanwhile, with the settings of the old one."""
    store = Slow()
    knowledge = Knowledge(cast("Store", store))
    store.meanwhile = lambda: setattr(store, "number", 2)
    asyncio.run(knowledge.look("q"))
    assert knowledge.of("q") is None
