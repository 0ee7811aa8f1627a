"""Submissions whose job is gone without a word: judged again, once, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update

from tests.judging import Bench, result
from windlass.errors import StoreUnavailable
from windlass.judge import stranded, sweeper
from windlass.judge.problem import current
from windlass.judge.tables import outbox, submissions


@pytest.fixture
def bench(tmp_path: Path, url: str | None) -> Iterator[Bench]:
    with Bench(tmp_path / "data", url=url) as opened:
        opened.problem()
        yield opened


def look(bench: Bench) -> int:
    return bench.run(bench.judge.stranded.look())


def status(bench: Bench, submission_id: str) -> tuple[str, int, str | None]:
    found = bench.run(bench.judge.submissions.get(submission_id))
    return found.status, found.generation, found.job_id


def rejudged_unsent(bench: Bench) -> str:
    """A submission whose second generation is in the outbox, and nobody sends it."""

    def away(_verb: str) -> None:
        raise StoreUnavailable("not now")

    submission_id = bench.submit()
    bench.dispatch.before = away
    bench.run(bench.judge.submissions.rejudge(submission_id))
    bench.run(bench.judge.sweeper.stop())
    return submission_id


def test_a_submission_whose_job_ended_without_a_word_is_judged_again(bench: Bench) -> None:
    """Planted defects: it waits for ever; the job of before is sent once more, under its old dedup id."""
    waiting, lost = bench.submit(), bench.submit()
    bench.dispatch.ended.add("jb_2")
    assert look(bench) == 0  # its outcome may be on its way
    assert look(bench) == 1
    assert bench.sweep()
    assert status(bench, lost) == ("pending", 2, "jb_3")
    assert status(bench, waiting) == ("pending", 1, "jb_1")
    assert [look(bench) for _ in range(3)] == [0, 0, 0]
    bench.finish(lost, "WA", "WA", job_id="jb_2")  # of the generation before
    assert status(bench, lost) == ("pending", 2, "jb_3")
    bench.finish(lost, "AC", "AC", generation=2, job_id="jb_3")
    assert status(bench, lost) == ("done", 2, "jb_3")


def test_an_outcome_on_its_way_is_waited_for(bench: Bench) -> None:
    """Planted defect: whatever has ended when somebody looks is judged again at once."""
    one, other = bench.submit(), bench.submit()
    bench.dispatch.ended |= {"jb_1", "jb_2"}
    assert look(bench) == 0
    bench.finish(one, "AC", "AC")
    bench.run(bench.judge.submissions.rejudge(other))
    assert look(bench) == 0
    assert status(bench, one) == ("done", 1, "jb_1")
    assert status(bench, other) == ("pending", 2, "jb_3")


def test_a_submission_that_has_neither_job_nor_wish_is_judged_again(bench: Bench) -> None:
    """Planted defect: only those with a job are looked at."""
    submission_id = bench.submit()

    def damage(connection: Connection) -> None:
        connection.execute(update(submissions).values(job_id=None))

    bench.run(bench.judge.outbox._database.write(damage))
    assert (look(bench), look(bench)) == (0, 1)
    assert bench.sweep()
    assert status(bench, submission_id) == ("pending", 2, "jb_2")


def test_a_wish_that_is_on_its_way_is_left_to_the_outbox(bench: Bench) -> None:
    """Planted defect: one that was not sent yet is judged again, and again at each look."""
    submission_id = rejudged_unsent(bench)
    assert (look(bench), look(bench)) == (0, 0)
    assert status(bench, submission_id)[:2] == ("pending", 2)


@pytest.mark.parametrize("spec", [b"", b"{", b"\xff\xfe", b'{"dedup":"x"}'])
def test_a_wish_that_cannot_be_read_is_made_anew(bench: Bench, spec: bytes) -> None:
    """Planted defect: a damaged row of the outbox fails at every sweep, and its submission waits for ever."""
    submission_id = rejudged_unsent(bench)
    bench.dispatch.before = lambda _: None

    def damage(connection: Connection) -> None:
        connection.execute(update(outbox).where(outbox.c.job_id.is_(None)).values(spec=spec))

    bench.run(bench.judge.outbox._database.write(damage))
    assert bench.sweep()
    assert (look(bench), look(bench)) == (0, 1)
    assert bench.sweep()
    assert status(bench, submission_id) == ("pending", 3, "jb_2")


def test_a_deleted_problem_is_nothing_to_judge_by(bench: Bench) -> None:
    submission_id = bench.submit()
    bench.dispatch.ended.add("jb_1")
    assert look(bench) == 0
    bench.run(bench.judge.problems.delete(1))
    assert (look(bench), look(bench)) == (0, 0)
    assert status(bench, submission_id)[0] == "done"


def test_a_look_goes_through_a_page_and_the_next_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: only the first page is ever looked at; the last is the end of looking."""
    monkeypatch.setattr(stranded, "_PAGE", 2)
    for _ in range(5):
        bench.submit()
    bench.dispatch.ended |= {"jb_5"}
    assert sum(look(bench) for _ in range(4)) == 1
    bench.dispatch.ended |= {"jb_1"}
    assert sum(look(bench) for _ in range(5)) == 1


def test_the_sweeper_looks_and_whoever_waits_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defects: nobody looks; whoever follows the submission is not told of its new generation."""
    monkeypatch.setattr(sweeper, "LOOK", 0)
    monkeypatch.setattr(sweeper, "INTERVAL", 0.01)
    submission_id = bench.submit()
    bench.dispatch.ended.add("jb_1")

    async def scenario() -> int:
        bench.judge.start()
        found = await bench.judge.submissions.until(submission_id, lambda now: now.generation > 1, 60)
        await bench.judge.sweeper.stop()
        return found.generation

    assert bench.run(asyncio.wait_for(scenario(), 60)) == 2


def test_a_job_whose_record_was_damaged_before_its_id_was_noted(bench: Bench) -> None:
    """The whole of it: its end names nobody, and sending it again under its dedup id gives the same job."""
    submission_id = bench.submit()

    def not_yet_noted(connection: Connection) -> None:
        connection.execute(update(submissions).values(job_id=None))
        row = connection.execute(select(submissions)).one()
        problem = current(connection, 1)
        assert problem is not None
        bench.judge.stranded._generations.ask(connection, problem, [row])

    bench.run(bench.judge.outbox._database.write(not_yet_noted))
    bench.run(bench.judge.project("jb_1", "", 0, {"failed": "The job's record cannot be read."}))
    bench.dispatch.ended.add("jb_1")
    assert bench.sweep()
    assert status(bench, submission_id) == ("pending", 1, "jb_1")
    assert (look(bench), look(bench)) == (0, 1)
    assert bench.sweep()
    bench.run(bench.judge.project("jb_2", submission_id, 2, result(["AC", "AC"])))
    assert status(bench, submission_id) == ("done", 2, "jb_2")
