"""Problems: the numbers they get, and the programs that their test data brings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.judging import Bench, meta, zipped
from windlass.errors import Invalid
from windlass.judge.problem import Problem


@pytest.fixture
def bench(tmp_path: Path, url: str | None) -> Iterator[Bench]:
    with Bench(tmp_path / "judge", url=url) as opened:
        yield opened


def create(bench: Bench, data: bytes | None = None, **changes: Any) -> Problem:
    async def do() -> Problem:
        with bench.judge.files.incoming() as incoming:
            incoming.write(data or zipped())
            return await bench.judge.problems.create(meta(**changes), incoming)

    return bench.run(do())


def test_a_new_problem_gets_the_next_number_and_never_one_that_was_deleted(bench: Bench) -> None:
    """Planted defect: the number behind the highest that is there now, so that a deleted problem's
    submissions belong to a new one."""
    assert create(bench).id == 1
    bench.problem(7)
    assert create(bench).id == 8
    bench.run(bench.judge.problems.delete(8))
    made = create(bench)
    assert (made.id, made.version) == (9, 1)


def test_two_that_are_created_at_once_are_two(bench: Bench) -> None:
    async def both() -> tuple[Problem, Problem]:
        with bench.judge.files.incoming() as one, bench.judge.files.incoming() as other:
            one.write(zipped())
            other.write(zipped())
            problems = bench.judge.problems
            return await asyncio.gather(problems.create(meta(), one), problems.create(meta(), other))

    assert {problem.id for problem in bench.run(both())} == {1, 2}


def test_the_highest_number_is_the_end_of_choosing(bench: Bench) -> None:
    bench.problem(2**31 - 1)
    with pytest.raises(Invalid, match="name a free one"):
        create(bench)


def test_a_program_that_is_named_has_to_be_in_the_test_data(bench: Bench) -> None:
    with pytest.raises(Invalid, match=r"names checker\.cpp"):
        create(bench, checker="checker.cpp")
    with pytest.raises(Invalid, match=r"names interactor\.cpp"):
        create(bench, interactor="interactor.cpp")
    made = create(bench, zipped(checker_cpp=b"int main(){}"), checker="checker.cpp")
    assert made.meta.programs == ["checker.cpp"]
    with pytest.raises(Invalid, match=r"Send test data along that has interactor\.cpp"):
        bench.run(bench.put(made.id, meta(interactor="interactor.cpp")))
    kept, _ = bench.run(bench.put(made.id, meta(checker="checker.cpp", title="Other words")))
    assert (kept.testdata, kept.version) == (made.testdata, 2)


def test_a_job_names_its_interactor(bench: Bench) -> None:
    """Planted defect: a job without it, whose program then talks to nobody."""
    made = create(bench, zipped(interactor_cpp=b"int main(){}"), interactor="interactor.cpp")
    bench.submit(made.id)
    assert [job.interactor for job in bench.dispatch.jobs.values()] == ["interactor.cpp"]
