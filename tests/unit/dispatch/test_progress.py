"""What is told of jobs: bounded, numbered so that nobody misses or repeats one, and over when the job is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tests.harness import Jumping
from windlass.dispatch import progress
from windlass.dispatch.progress import Progress

T = TypeVar("T")


def run(what: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(what)


def names(events: list[progress.Numbered]) -> list[str]:
    return [event["event"] for _, event in events]


def test_who_comes_back_goes_on_behind_the_last() -> None:
    async def scenario() -> None:
        told = Progress()
        told.tell(1, {"event": "a"}, {"event": "b"})
        first, over = await told.after(1, 0, 1)
        assert (names(first), over) == (["a", "b"], False)
        told.tell(1, {"event": "c"}, over=True)
        rest, over = await told.after(1, first[-1][0], 1)
        assert (names(rest), over) == (["c"], True)

    run(scenario())


def test_numbers_go_on_rising_in_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: numbers from 1, so that who comes back after a restart misses what they have seen
    the numbers of."""

    starts = iter((1_000_000_000, 2_000_000_000))
    monkeypatch.setattr(progress, "time_ns", lambda: next(starts))

    async def scenario() -> None:
        before = Progress()
        before.tell(1, *[{"event": "a"}] * 100)
        last = (await before.after(1, 0, 1))[0][-1][0]
        after = Progress()
        after.tell(1, {"event": "b"})
        assert names((await after.after(1, last, 1))[0]) == ["b"]

    run(scenario())


def test_what_is_not_kept_is_told_as_lost_once() -> None:
    async def scenario() -> None:
        told = Progress()
        told.tell(1, *[{"event": "a"}] * (progress.MAX_EVENTS + 5))
        events, _ = await told.after(1, 0, 1)
        assert names(events) == ["lost"] + ["a"] * progress.MAX_EVENTS
        told.tell(1, {"event": "b"})
        assert names((await told.after(1, events[-1][0], 1))[0]) == ["b"]

    run(scenario())


def test_the_bytes_of_a_job_and_of_all_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a bound on the number of events alone; a runner's texts fill the server's memory."""
    monkeypatch.setattr(progress, "MAX_BYTES", 1_000)
    monkeypatch.setattr(progress, "MAX_ALL", 2_500)

    async def scenario() -> None:
        told = Progress()
        for job in (1, 2, 3):
            told.tell(job, *[{"event": "output", "text": "x" * 100}] * 50)
        kept = [await told.after(job, 0, 0) for job in (3, 2)]
        assert all(names(events)[0] == "lost" and len(events) < 10 for events, _ in kept)
        assert (await told.after(1, 0, 0))[0] == []  # there was no room for it
        told.tell(4, {"event": "output", "text": "x" * 10_000})
        assert names((await told.after(4, 0, 0))[0]) == ["output"]

    run(scenario())


def test_a_watcher_wakes_when_told_and_when_all_have_to_look() -> None:
    async def scenario() -> None:
        told = Progress()
        loop = asyncio.get_running_loop()
        watching = asyncio.ensure_future(told.after(1, 0, 15))
        await asyncio.sleep(1)
        told.tell(1, {"event": "a"})
        assert names((await watching)[0]) == ["a"]
        began = loop.time()
        watching = asyncio.ensure_future(told.after(2, 0, 15))
        await asyncio.sleep(1)
        told.wake_all()
        assert await watching == ([], False)
        assert loop.time() - began < 2

    run(scenario())


def test_an_end_without_a_word_is_told_to_those_who_watch_alone() -> None:
    async def scenario() -> None:
        told = Progress()
        told.end(1, {"event": "failed"})
        assert await told.after(1, 0, 0) == ([], False)
        told.end(1, {"event": "failed"})
        events, over = await told.after(1, 0, 0)
        assert (names(events), over) == (["failed"], True)

    run(scenario())
