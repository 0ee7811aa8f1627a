"""Celery with Redis as its broker and for its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery

from bench import tasks

app = Celery("bench", broker=tasks.url(), backend=tasks.url())


def noop() -> int:
    return tasks.started()


task = app.task(name="noop")(noop)


def submit() -> Any:
    return task.delay()


def outcomes(handles: Sequence[Any]) -> list[int]:
    return [handle.get(timeout=tasks.PATIENCE) for handle in handles]
