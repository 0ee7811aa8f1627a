"""Heartbeats wait for company only where there is some, and never longer than a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.harness import Jumping
from windlass.dispatch.gate import GATHER, Gate


class Still(Jumping):
    """A loop whose time is what its timers skip, and nothing else: a busy machine changes no figure here."""

    def time(self) -> float:
        return self._selector_of_time.skipped


def passing(*after: float) -> list[float]:
    """When each of those who come after so many seconds passes one gate, in seconds."""

    async def come(gate: Gate, moment: float) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(moment)
        await gate.passed()
        return loop.time() - began

    async def all_of_them() -> list[float]:
        gate = Gate()
        return await asyncio.gather(*(come(gate, moment) for moment in after))

    return _run(all_of_them)


def _run(main: Callable[[], Coroutine[Any, Any, list[float]]]) -> list[float]:
    with asyncio.Runner(loop_factory=Still) as runner:
        return runner.run(main())


def test_who_comes_alone_does_not_wait() -> None:
    """Planted: a gate that is closed at first, and one that stays closed after a quiet time."""
    assert passing(0, 1, 2) == pytest.approx([0, 1, 2])


def test_those_that_come_soon_after_another_pass_together() -> None:
    """Planted: a gate that lets everybody through, each with a commit of its own."""
    first, *others = passing(0, 0.2 * GATHER, 0.5 * GATHER, 0.9 * GATHER)
    assert first == pytest.approx(0)
    assert others == pytest.approx([GATHER] * 3)


def test_a_stream_passes_once_in_a_while_and_nobody_waits_longer() -> None:
    """Planted: a gate that the next one to come closes again for all who wait."""
    came = [share * GATHER / 4 for share in range(20)]
    passed = passing(*came)
    assert all(0 <= then - now <= 1.01 * GATHER for now, then in zip(came, passed, strict=True))
    assert len({round(4 * moment / GATHER) for moment in passed}) == 6


def test_one_that_gives_up_leaves_the_others_their_turn() -> None:
    """Planted: one future for all, which a cancellation ends for all."""

    async def main() -> list[float]:
        loop, gate = asyncio.get_running_loop(), Gate()
        await gate.passed()
        began = loop.time()
        one, other = (asyncio.create_task(gate.passed()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await other
        return [loop.time() - began]

    assert _run(main) == pytest.approx([GATHER])
