"""Coroutines on a loop where time passes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.harness import Jumping

T = TypeVar("T")


def jumping(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns; its waits take no time."""
    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(main)


def now() -> float:
    """Seconds on the present loop's clock."""
    return asyncio.get_running_loop().time()
