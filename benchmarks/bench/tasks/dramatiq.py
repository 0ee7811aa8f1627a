"""Dramatiq with its Redis broker and its Redis results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench import tasks

broker = RedisBroker(url=tasks.url())
broker.add_middleware(Results(backend=RedisBackend(url=tasks.url())))
dramatiq.set_broker(broker)


def noop() -> int:
    return tasks.started()


actor = dramatiq.actor(noop, store_results=True)


def submit() -> Any:
    return actor.send()


def outcomes(handles: Sequence[Any]) -> list[int]:
    return [handle.get_result(block=True, timeout=tasks.PATIENCE * 1000) for handle in handles]
