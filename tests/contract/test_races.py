"""What meets in the store: a result, a reclaim and a rejudge of one job, in every order.

Each call is held back at the store's door; then they are let in, one commit each or all in one, and the lease
ends at every place between them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.contract.bench import Bench
from tests.contract.yard import Yard, result
from windlass.dispatch import Delivery, Dispatch, Job, Task
from windlass.dispatch.labels import JOBS
from windlass.dispatch.runners import Runner
from windlass.errors import JobLost, WindlassError

LEASE = 30
TIME = "the lease ends"


@pytest.fixture
def yard(bench: Bench) -> Iterator[Yard]:
    made = Yard(bench, lease=LEASE)
    yield made
    made.stop()


class Door:
    """Holds the store's verbs back until their call is let in."""

    def __init__(self, yard: Yard, whose: Mapping[tuple[str, str], str]) -> None:
        """`whose`: (verb, id of the runner or "") -> the call that it belongs to."""
        self._clock = yard.clock
        self._whose = whose
        self._open = {call: asyncio.Event() for call in whose.values()}
        self._here: set[str] = set()
        self._patch = pytest.MonkeyPatch()
        for verb in {verb for verb, _ in whose}:
            self._patch.setattr(yard.bench.store, verb, self._held(verb, getattr(yard.bench.store, verb)))

    def _held(self, verb: str, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        def held(*arguments: Any, **more: Any) -> Awaitable[Any]:
            runner = str(arguments[3]) if verb == "receive" else ""

            async def let_in() -> Any:
                call = self._whose[verb, runner]
                self._here.add(call)
                await self._open[call].wait()
                return await real(*arguments, **more)

            return asyncio.ensure_future(let_in())

        return held

    async def race(
        self, calls: Mapping[str, Awaitable[Any]], order: Sequence[str], *, one_commit: bool
    ) -> dict[str, Any]:
        """What comes of each call, or what it raises."""
        tasks = {name: asyncio.ensure_future(call) for name, call in calls.items()}
        try:
            async with asyncio.timeout(60):
                while len(self._here) < len(calls):  # noqa: ASYNC110 - turns: the store has no event for it
                    await asyncio.sleep(0)
                for name in order:
                    if name == TIME:
                        self._clock.advance(LEASE)
                        continue
                    self._open[name].set()
                    if not one_commit:
                        await asyncio.wait([tasks[name]])
                found = await asyncio.gather(*tasks.values(), return_exceptions=True)
        finally:
            self._patch.undo()
        return dict(zip(tasks, found, strict=True))


def orders(*calls: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every order of the calls, and whether they share a commit. A commit has one time: in it the lease has
    ended or has not."""
    for order in itertools.permutations((*calls, TIME)):
        yield order, False
    for order in itertools.permutations(calls):
        yield order, True
        yield (TIME, *order), True


def bring(dispatch: Dispatch, how: str, runner: Runner, job_id: str) -> Awaitable[Any]:
    if how == "complete":
        return dispatch.results.complete(runner, job_id, result(2, 1))
    return dispatch.results.exchange(runner, [(job_id, result(2, 1))], limit=1)


def came_of(brought: Any) -> tuple[WindlassError | None, list[Delivery]]:
    """Why a result was not taken, and what was given for it."""
    if isinstance(brought, tuple):
        (refusal,), deliveries = brought
        return refusal, deliveries
    assert brought is None or isinstance(brought, WindlassError), brought
    return brought, []


def is_taken(yard: Yard, runner: Runner, job_id: str) -> bool:
    """Whether a result is taken from a runner now."""
    try:
        yard.complete(runner, job_id)
    except JobLost:
        return False
    return True


@pytest.mark.parametrize("how", ["complete", "exchange"])
def test_a_result_and_a_reclaim_have_one_winner(yard: Yard, how: str) -> None:
    """Planted defect: a result that is taken from whoever brings it."""
    first, second = yard.register("a"), yard.register("b")
    seen = set()
    for order, one_commit in orders("result", "reclaim"):
        job_id = yard.submit()
        assert yard.take(first) == job_id

        async def race(
            dispatch: Dispatch, job_id: str = job_id, order: Any = order, one_commit: bool = one_commit
        ) -> dict[str, Any]:
            door = Door(
                yard,
                {("acknowledge", ""): "result", ("receive", first.id): "result",
                 ("receive", second.id): "reclaim"},
            )  # fmt: skip
            calls = {"result": bring(dispatch, how, first, job_id), "reclaim": dispatch.claim(second)}
            return await door.race(calls, order, one_commit=one_commit)

        found = yard.run(race)
        refusal, exchanged = came_of(found["result"])
        reclaimed = [delivery.job_id for delivery in found["reclaim"]]
        yard.settle()
        if refusal is None:
            seen.add("first")
            assert (reclaimed, exchanged) == ([], [])
            assert not is_taken(yard, second, job_id)
        else:
            assert isinstance(refusal, JobLost)
            if reclaimed:
                seen.add("second")
            elif exchanged:  # for a result that was refused in the end: its place is free all the same
                seen.add("first again")
            else:
                seen.add("nobody yet")
                assert yard.view(job_id).state == "queued"
                assert yard.take(second) == job_id
            holder, other = (first, second) if exchanged else (second, first)
            assert not is_taken(yard, other, job_id)
            assert is_taken(yard, holder, job_id)
        yard.settle()
        assert yard.view(job_id).state == "done"
        assert yard.bench.counts(JOBS) == {}
        assert [told[0] for told in yard.told].count(job_id) == 1
    assert seen == {"first", "second", "nobody yet" if how == "complete" else "first again"}


@pytest.mark.parametrize("how", ["complete", "exchange"])
def test_a_rejudge_a_result_and_a_reclaim_leave_one_verdict_a_generation(yard: Yard, how: str) -> None:
    """Planted defects: a result that is taken after its job was superseded; a rejudge that cannot end a job
    which another runner has by now."""
    first, second = yard.register("a"), yard.register("b")
    seen = set()
    for number, (order, one_commit) in enumerate(orders("result", "rejudge", "reclaim")):
        owner = str(number)
        old = yard.submit(owner)
        assert yard.take(first) == old

        async def rejudge(dispatch: Dispatch, old: str = old, owner: str = owner) -> str:
            await dispatch.supersede(old)
            tasks = tuple(Task(n, count, 65_536, 1_000) for n, count in enumerate((2, 1), 1))
            return await dispatch.submit(
                Job(owner=owner, generation=2, problem_id=7, language=2, tasks=tasks)
            )

        async def race(
            dispatch: Dispatch, old: str = old, order: Any = order, one_commit: bool = one_commit
        ) -> dict[str, Any]:
            door = Door(
                yard,
                {("acknowledge", ""): "result", ("receive", first.id): "result",
                 ("receive", second.id): "reclaim", ("cancel", ""): "rejudge"},
            )  # fmt: skip
            calls = {
                "result": bring(dispatch, how, first, old),
                "rejudge": rejudge(dispatch),
                "reclaim": dispatch.claim(second),
            }
            return await door.race(calls, order, one_commit=one_commit)

        found = yard.run(race)
        new = found["rejudge"]
        assert isinstance(new, str), new
        refusal, exchanged = came_of(found["result"])
        given = [(second, each.job_id) for each in found["reclaim"]]
        given += [(first, each.job_id) for each in exchanged]
        yard.settle()
        if refusal is None:
            assert yard.view(old).state == "done"
        else:
            assert isinstance(refusal, JobLost)
            assert yard.view(old).state == "superseded"
            assert not is_taken(yard, first, old)
        seen.add((yard.view(old).state, old in [job_id for _, job_id in given]))
        for runner, job_id in given:
            if job_id == old and refusal is not None:
                assert not is_taken(yard, runner, old)
        holders = [runner for runner, job_id in given if job_id == new]
        taken = [is_taken(yard, runner, new) for runner in dict.fromkeys(holders)]
        if not any(taken):  # it waits still, or again where its lease ended before its runner spoke
            assert yard.take(second) == new
            yard.complete(second, new)
        assert taken.count(True) <= 1
        yard.settle()
        assert yard.bench.counts(JOBS) == {}
        generations = [generation for _, told, generation, _ in yard.told if told == owner]
        assert sorted(generations) == ([1, 2] if refusal is None else [2])
    assert seen == {("done", False), ("superseded", False), ("superseded", True)}
