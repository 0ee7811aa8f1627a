"""Which problems there are, as the guard knows it: never a "no" for what is there, however things cross."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.judging import Bench, meta, zipped
from windlass.errors import Invalid, ProblemNotFound, StoreUnavailable
from windlass.judge import presence
from windlass.judge.problem import Problem
from windlass.message import Once


@pytest.fixture
def bench(tmp_path: Path, url: str | None) -> Iterator[Bench]:
    with Bench(tmp_path / "judge", url=url) as opened:
        yield opened


class Held:
    """A verb of the database whose answers wait: `reached` once one is there, until `free` is set."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
        self.reached = asyncio.Event()
        self.free = asyncio.Event()
        self.calls = 0
        database = bench.judge._database
        call = getattr(database, verb)

        async def held(step: Callable[..., Any]) -> Any:
            self.calls += 1
            answer = await call(step)
            self.reached.set()
            await self.free.wait()
            return answer

        monkeypatch.setattr(database, verb, held)


async def create(bench: Bench) -> Problem:
    with bench.judge.files.incoming() as incoming:
        incoming.write(zipped())
        return await bench.judge.problems.create(meta(), incoming)


async def found(bench: Bench, number: int) -> bool:
    try:
        await bench.judge.problems.get(number)
    except ProblemNotFound:
        return False
    return True


def test_one_that_is_deleted_and_made_again_is_there_again(bench: Bench) -> None:
    """Planted defect: `put` writes past the guard, which goes on remembering that there is nothing."""

    async def scenario() -> None:
        for _ in range(3):
            await bench.put(1, meta(), zipped())
            assert await found(bench, 1)
            await bench.judge.problems.delete(1)
            assert not await found(bench, 1)
            assert not await found(bench, 1)

    bench.run(scenario())


def test_one_that_was_deleted_is_gone_at_once(bench: Bench) -> None:
    """Planted defect: `delete` writes past the guard, which goes on remembering that there is one."""
    bench.problem()
    known = bench.judge.problems._presence
    assert bench.run(known.has(1))
    bench.run(bench.judge.problems.delete(1))
    assert not bench.run(known.has(1))
    assert not known.never(1)


def test_one_that_is_made_while_somebody_looks_is_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look finds nothing, then the problem is made, then the look comes back. Planted defect: `put`
    writes past the guard, which then learns from the look that there is nothing."""
    bench.problem()
    bench.run(bench.judge.problems.delete(1))

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            held = Held(bench, patch, "read")
            looking = asyncio.ensure_future(found(bench, 1))
            await held.reached.wait()
            await bench.put(1, meta(), zipped())
            held.free.set()
            await looking  # it began before: either answer is true
        assert await found(bench, 1)

    bench.run(scenario())


@pytest.mark.parametrize("many", [2, 12])
def test_those_that_are_created_at_once_are_all_there(bench: Bench, many: int) -> None:
    """Planted defect: the number that was read is not looked at again in the transaction (`new`): two
    creations make two versions of one problem."""

    async def scenario() -> None:
        made = await asyncio.gather(*(create(bench) for _ in range(many)))
        assert sorted(problem.id for problem in made) == list(range(1, many + 1))
        assert {problem.version for problem in made} == {1}
        assert all([await found(bench, problem.id) for problem in made])

    bench.run(scenario())


def test_a_number_that_somebody_names_meanwhile_is_theirs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: as above; what was put is replaced by what was created."""

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            held = Held(bench, patch, "read")
            creating = asyncio.ensure_future(create(bench))
            await held.reached.wait()
            put, _ = await bench.put(1, meta(title="Put"), zipped())
            held.free.set()
            assert (put.id, (await creating).id) == (1, 2)
        assert (await bench.judge.problems.get(1)).meta.title == "Put"

    bench.run(scenario())


def test_the_filter_never_denies_what_was_answered(bench: Bench) -> None:
    """Three writers and three who look, on few numbers, through five starts. Whoever is told that a problem
    is made finds it until somebody deletes it. Planted defect: `put` says that it adds nothing."""
    fate = random.Random(5)
    there: set[int] = set()

    async def writer(numbers: range) -> None:
        for _ in range(12):
            number = fate.choice(numbers)
            if number in there and fate.random() < 0.5:
                there.discard(number)
                await bench.judge.problems.delete(number)
            else:
                await bench.put(number, meta(), zipped())
                there.add(number)
            assert await found(bench, number) == (number in there)

    async def looker() -> None:
        for _ in range(60):
            number = fate.randrange(1, 12)
            before = number in there
            answer = await found(bench, number)
            if before and number in there:
                assert answer, number
            await asyncio.sleep(0)

    async def scenario() -> None:
        await asyncio.gather(
            *(writer(numbers) for numbers in (range(1, 5), range(5, 8), range(8, 12))),
            *(looker() for _ in range(3)),
        )

    for _ in range(5):
        bench.run(scenario())
        bench.reopen()
        assert {number for number in range(1, 12) if bench.run(found(bench, number))} == there


def test_a_start_reads_all_numbers_page_by_page(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: the first page alone."""
    numbers = [1, 2, 3, 5, 8, 1000, 2**31 - 1]
    for number in numbers:
        bench.problem(number)
    bench.problem(3)
    monkeypatch.setattr(presence, "_PAGE", 2)
    bench.reopen()
    assert [number for number in range(1, 12) if bench.run(found(bench, number))] == numbers[:5]
    assert all(bench.run(found(bench, number)) for number in numbers)


def test_a_deleted_problem_keeps_its_submissions_and_answers_over_a_start(bench: Bench) -> None:
    """Planted defect: a filter of the problems that there are, not of those that there ever were."""
    bench.problem()
    once = Once(b"k" * 24, b"f" * 24)
    submission = bench.submit(once=once)
    bench.run(bench.judge.problems.delete(1))
    bench.reopen()
    assert [each.submission_id for each in bench.run(bench.judge.submissions.list(1, None, 9))] == [
        submission
    ]
    assert bench.submit(once=once) == submission
    with pytest.raises(ProblemNotFound):
        bench.submit(once=Once(b"o" * 24, b"f" * 24))
    with pytest.raises(ProblemNotFound):
        bench.submit()


def test_meta_alone_makes_no_problem(bench: Bench) -> None:
    bench.problem()
    bench.run(bench.judge.problems.delete(1))
    for number in (1, 2):
        with pytest.raises(Invalid, match="needs its test data"):
            bench.run(bench.put(number, meta()))


def test_what_a_problem_is_is_looked_up_each_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that began before a new version's commit is not shared with whoever asks after it: a runner may
    have a job by the new one. Planted defect: the guard's query brings the version too."""
    bench.problem()

    async def scenario() -> None:
        assert await found(bench, 1)  # so that its being there is remembered
        with monkeypatch.context() as patch:
            reading, writing = Held(bench, patch, "read"), Held(bench, patch, "write")
            old = asyncio.ensure_future(bench.judge.problems.get(1))
            await reading.reached.wait()
            putting = asyncio.ensure_future(bench.put(1, meta(), zipped()))
            await writing.reached.wait()  # on disk, and nobody is told yet
            new = asyncio.ensure_future(bench.judge.problems.get(1))
            reading.free.set()
            # Where other servers write, its being there is not remembered, and that look is the one held.
            assert ((await old).version, (await new).version) == (1 if bench.url is None else 2, 2)
            writing.free.set()
            await putting

    bench.run(scenario())


def test_a_creator_that_goes_away_leaves_a_whole_problem(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its write goes on, and so its file is held. Planted defect: nobody holds it but the one who is gone."""

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            held, begun = asyncio.Event(), asyncio.Event()
            write = bench.judge._database.write

            async def late(step: Callable[..., Any]) -> Any:
                begun.set()
                await held.wait()
                return await write(step)

            patch.setattr(bench.judge._database, "write", late)
            putting = asyncio.ensure_future(bench.put(1, meta(), zipped()))
            await begun.wait()
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)
            await bench.judge.collect()
            held.set()
            await asyncio.gather(*bench.judge.problems._presence._guard._tasks)
        _, file = await bench.judge.problems.open_testdata(1)
        with file:
            assert file.read() == zipped()

    bench.run(scenario())


def test_a_database_that_is_away_is_no_absence(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: whatever the look raises is taken for "nothing"."""
    bench.problem()

    async def away(_: object) -> Any:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(bench.judge._database, "read", away)
        with pytest.raises(StoreUnavailable):
            bench.run(found(bench, 1))
    assert bench.run(found(bench, 1))


def test_it_is_asked_from_many_event_loops(bench: Bench) -> None:
    """A test client that is not entered brings one for each request."""
    asyncio.run(bench.put(1, meta(), zipped()))
    assert asyncio.run(found(bench, 1))
    asyncio.run(bench.judge.problems.delete(1))
    assert not asyncio.run(found(bench, 1))
    asyncio.run(bench.put(1, meta(), zipped()))
    assert asyncio.run(found(bench, 1))
