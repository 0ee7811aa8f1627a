"""Huey on Redis. Its results are looked for every 10 ms where they are not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huey import RedisHuey

from bench import tasks

huey = RedisHuey("bench", host="127.0.0.1", port=tasks.port())


def noop() -> int:
    return tasks.started()


task = huey.task()(noop)


def submit() -> Any:
    return task()


def outcomes(handles: Sequence[Any]) -> list[int]:
    return [handle.get(blocking=True, timeout=tasks.PATIENCE, max_delay=0.01) for handle in handles]
