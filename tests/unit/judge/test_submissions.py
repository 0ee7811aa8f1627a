"""Submissions: taken in once, judged once a generation, and only the newest generation counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import until
from tests.judging import Bench, archive, case, once, result
from windlass.errors import (
    IdempotencyFull,
    IdempotencyKeyReused,
    Invalid,
    ProblemNotFound,
    QueueFull,
    StoreUnavailable,
    SubmissionNotFound,
    TooLarge,
)
from windlass.judge.languages import LANGUAGES
from windlass.judge.source import MAX_SOURCE, read_source
from windlass.judge.submission import Submission
from windlass.message import Once

DAY = 24 * 3600
KEY = Once(b"k" * 24, b"f" * 24)


@pytest.fixture
def bench(tmp_path: Path, url: str | None) -> Iterator[Bench]:
    with Bench(tmp_path / "data", url=url) as opened:
        opened.problem()
        yield opened


def get(bench: Bench, submission_id: str) -> Submission:
    return bench.run(bench.judge.submissions.get(submission_id))


def source_of(bench: Bench, submission_id: str) -> bytes:
    _, file = bench.run(bench.judge.submissions.open_source(submission_id))
    with file:
        return read_source(file, LANGUAGES[2])


# --- in ---------------------------------------------------------------------------------------------


def test_a_submission_is_one_job_with_all_that_a_runner_needs(bench: Bench) -> None:
    accepted = bench.run(bench.judge.submissions.submit(1, 2, b"print(1)", priority=7, labels=["gpu", "big"]))
    (job_id,) = bench.dispatch.jobs
    spec = bench.dispatch.jobs[job_id]
    assert (accepted.job_id, accepted.status) == (job_id, "pending")
    assert spec.submission_id == accepted.submission_id
    assert (spec.generation, spec.problem_id, spec.language, spec.checker) == (1, 1, 2, "")
    assert (spec.priority, spec.labels) == (7, ["gpu", "big"])
    (task,) = spec.tasks
    assert (task.task_id, task.case_count, task.time_limit, task.memory_limit) == (1, 2, 1000, 65536)
    digest, file = bench.run(bench.judge.submissions.open_source(accepted.submission_id))
    file.close()
    assert spec.source == digest
    assert get(bench, accepted.submission_id).status == "pending"


@pytest.mark.parametrize("source", [b"\0" * 1000, b"\xff\xfe\xfd", "\u202e".encode(), b"#" * MAX_SOURCE])
def test_hostile_sources_are_kept_byte_for_byte(bench: Bench, source: bytes) -> None:
    assert source_of(bench, bench.submit(source=source)) == source


def test_a_zip_is_taken_apart_and_made_anew(bench: Bench) -> None:
    """Planted defect: handing a stranger's archive on to runners."""
    first, second = bench.submit(source=archive({"main.py": b"x"})), bench.submit(source=b"x")
    specs = [spec.source for spec in bench.dispatch.jobs.values()]
    assert specs[0] == specs[1]
    assert source_of(bench, first) == source_of(bench, second) == b"x"


def test_what_is_refused_leaves_nothing(bench: Bench) -> None:
    for error, problem_id, language, source in (
        (ProblemNotFound, 2, 2, b"x"),
        (Invalid, 1, 3, b"x"),
        (Invalid, 1, 2, b""),
        (Invalid, 1, 2, archive({"main.py": b""})),
        (Invalid, 1, 2, archive({"../main.py": b"x"})),
        (TooLarge, 1, 2, b"x" * (MAX_SOURCE + 1)),
    ):
        with pytest.raises(error):
            bench.run(bench.judge.submissions.submit(problem_id, language, source))
    assert bench.run(bench.judge.submissions.list(None, None, 10)) == []
    assert bench.sweep()
    assert bench.dispatch.jobs == {}


@pytest.mark.parametrize("error", [QueueFull(), StoreUnavailable()])
def test_where_the_dispatch_refuses_the_submission_is_taken_back(bench: Bench, error: Exception) -> None:
    """Planted defect: an answer that says "nothing was done" while the sweeper sends it after all."""
    bench.dispatch.before = once("submit", error)
    with pytest.raises(type(error)):
        bench.submit(once=KEY)
    assert bench.run(bench.judge.submissions.list(None, None, 10)) == []
    assert bench.sweep()
    assert bench.dispatch.jobs == {}
    assert get(bench, bench.submit(once=KEY)).status == "pending"


def test_where_the_sweeper_was_faster_a_refusal_is_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: taking back a submission whose job is sent."""
    refused = once("submit", QueueFull())

    async def scenario() -> Any:
        started, go_on = asyncio.Event(), asyncio.Event()
        submit = bench.dispatch.submit

        async def slow(spec: Any, /) -> str:
            started.set()
            await go_on.wait()
            refused("submit")
            return await submit(spec)

        monkeypatch.setattr(bench.dispatch, "submit", slow)
        mine = asyncio.ensure_future(bench.judge.submissions.submit(1, 2, b"x"))
        await started.wait()
        monkeypatch.undo()
        bench.judge.outbox._busy.clear()  # as another server would see it
        assert await bench.judge.outbox.sweep()
        go_on.set()
        return await mine

    accepted = bench.run(scenario())
    assert list(bench.dispatch.living) == [accepted.job_id]
    assert get(bench, accepted.submission_id).job_id == accepted.job_id


# --- Idempotency-Key --------------------------------------------------------------------------------


def test_the_same_key_is_the_same_submission_for_a_day(bench: Bench) -> None:
    first = bench.run(bench.judge.submissions.submit(1, 2, b"x", once=KEY))
    bench.reopen()
    bench.clock.advance(DAY - 1)
    assert bench.run(bench.judge.submissions.submit(1, 2, b"x", once=KEY)) == first
    bench.run(bench.judge.submissions.rejudge(first.submission_id))  # it has another job now
    assert bench.run(bench.judge.submissions.submit(1, 2, b"x", once=KEY)) == first
    bench.clock.advance(1)
    assert bench.run(bench.judge.submissions.submit(1, 2, b"x", once=KEY)) != first


def test_the_same_key_with_another_body_is_refused(bench: Bench) -> None:
    bench.submit(once=KEY)
    with pytest.raises(IdempotencyKeyReused):
        bench.submit(once=Once(KEY.key, b"g" * 24))
    assert len(bench.dispatch.jobs) == 1


def test_repeats_at_the_same_time_are_one_submission(bench: Bench) -> None:
    """Planted defect: remembering the key after the submission instead of in the same commit."""

    async def scenario() -> list[Any]:
        return await asyncio.gather(
            *(bench.judge.submissions.submit(1, 2, b"x", once=KEY) for _ in range(20))
        )

    answers = bench.run(scenario())
    assert len({(answer.submission_id, answer.job_id) for answer in answers}) == 1
    assert len(bench.dispatch.jobs) == 1


def test_when_no_more_can_be_remembered_new_keys_are_refused_and_old_ones_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: forgetting the oldest to make room."""
    monkeypatch.setattr("windlass.judge.submissions.MAX_ANSWERS", 1)
    first = bench.submit(once=KEY)
    with pytest.raises(IdempotencyFull):
        bench.submit(once=Once(b"l" * 24, b"f" * 24))
    assert bench.submit(once=KEY) == first
    bench.clock.advance(DAY)
    assert bench.submit(once=Once(b"l" * 24, b"f" * 24)) != first


# --- what comes of it -------------------------------------------------------------------------------


def test_a_result_is_verdicts_and_scores(bench: Bench) -> None:
    bench.problem(2, (2, 3), tasks=[
        {"score": 40, "case_count": 2, "time_limit": 1, "memory_limit": 1},
        {"score": 60, "case_count": 3, "time_limit": 1, "memory_limit": 1, "scoring": "partial"},
    ])  # fmt: skip
    submission_id = bench.submit(2)
    bench.run(bench.judge.project("jb_1", submission_id, 1, result(["AC", "RE"], ["AC", "WA", "AC"])))
    found = get(bench, submission_id)
    assert (found.status, found.verdict, found.score, found.max_score) == ("done", "RE", 40, 100)
    assert [(task.task_id, task.verdict, task.score) for task in found.tasks] == [(1, "RE", 0), (2, "WA", 40)]
    assert [one.verdict for one in found.tasks[1].cases] == ["AC", "WA", "AC"]
    one = found.tasks[0].cases[0]
    assert (one.case, one.time_ms, one.memory_kib, one.exit_code, one.stdout) == (1, 12, 1024, 0, "1\n")


def test_what_a_program_printed_is_cut_and_may_be_anything(bench: Bench) -> None:
    """Planted defect: a NUL or a surrogate that the database refuses, so that the outcome never goes in."""
    submission_id = bench.submit()
    printed = case("CE", stdout="\0\ud800" + "x" * 10_000_000, stderr="e" * 100_000)
    bench.run(bench.judge.project("jb_1", submission_id, 1, {"tasks": [[printed, printed]]}))
    first, second = get(bench, submission_id).tasks[0].cases
    assert first.stdout.startswith("\0?x")
    assert (len(first.stdout), len(first.stderr), len(second.stderr)) == (4096, 65536, 4096)


def test_the_same_outcome_again_changes_nothing(bench: Bench) -> None:
    """Planted defect: the first outcome written over by a late second one."""
    submission_id = bench.submit()
    bench.finish(submission_id, "AC", "AC")
    before = get(bench, submission_id)
    bench.clock.advance(5)
    bench.finish(submission_id, "WA", "WA")
    bench.run(bench.judge.project("jb_1", submission_id, 1, {"failed": "late"}))
    assert get(bench, submission_id) == before


def test_outcomes_at_the_same_time_are_one(bench: Bench) -> None:
    submission_id = bench.submit()

    async def scenario() -> None:
        outcomes = [result(["AC", "AC"]), result(["WA", "WA"]), {"failed": "x"}] * 5
        await asyncio.gather(
            *(bench.judge.project("jb_1", submission_id, 1, outcome) for outcome in outcomes)
        )

    bench.run(scenario())
    assert get(bench, submission_id).verdict == "AC"


@pytest.mark.parametrize("outcome", [{}, {"tasks": 5}, result(["AC"]), {"tasks": None}, {"failed": {"a": 1}}])
def test_an_outcome_of_any_shape_is_confirmed(bench: Bench, outcome: dict[str, Any]) -> None:
    """Planted defect: raising, so that it is brought again for ever and the submission never ends."""
    submission_id = bench.submit()
    bench.run(bench.judge.project("jb_1", submission_id, 1, outcome))
    found = get(bench, submission_id)
    assert (found.status, found.verdict, found.score, found.tasks) == ("done", "JE", 0, [])


def test_a_job_that_failed_tells_its_history(bench: Bench) -> None:
    submission_id = bench.submit()
    attempts = [{"runner": "rn_1", "reason": "lease_expired"}] * 3
    bench.run(
        bench.judge.project("jb_1", submission_id, 1, {"failed": "3 attempts failed", "attempts": attempts})
    )
    found = get(bench, submission_id)
    assert (found.verdict, found.reason) == ("JE", "3 attempts failed")
    assert found.attempts is not None
    assert bytes(found.attempts).count(b"lease_expired") == 3


@pytest.mark.parametrize("submission_id", ["", "sb_x", "x" * 1000, "sb_" + "A" * 24])
def test_an_outcome_of_nothing_is_confirmed(bench: Bench, submission_id: str) -> None:
    bench.run(bench.judge.project("jb_9", submission_id, 1, result(["AC"])))
    bench.run(bench.judge.started(submission_id, 1))


def test_a_job_whose_record_is_damaged_ends_whose_job_it_is(bench: Bench) -> None:
    """Planted defect: it is set aside, and its submission waits for ever."""
    first, second = bench.submit(), bench.submit(source=b"print(2)")
    job_id = get(bench, first).job_id
    assert job_id is not None
    failed = {"failed": "The job's record cannot be read."}
    bench.run(bench.judge.project(job_id, "", 0, failed))
    found = get(bench, first)
    assert (found.status, found.verdict, found.reason) == ("done", "JE", failed["failed"])
    assert get(bench, second).status == "pending"
    bench.run(bench.judge.submissions.rejudge(first))
    bench.run(bench.judge.project(job_id, "", 0, failed))  # it is nobody's any more
    assert get(bench, first).status == "pending"


def test_an_id_that_was_never_issued_is_not_looked_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a look-up for every forgery."""
    submission_id = bench.submit()
    forged = submission_id[:-1] + ("A" if submission_id[-1] != "A" else "B")

    async def never(*_: object) -> Any:
        raise AssertionError

    monkeypatch.setattr(bench.judge.submissions._database, "read", never)
    monkeypatch.setattr(bench.judge.submissions._database, "write", never)
    for ask in (
        bench.judge.submissions.get(forged),
        bench.judge.submissions.rejudge(forged),
        bench.judge.submissions.until(forged, lambda _: True, 1),
        bench.judge.submissions.open_source(forged),
        bench.judge.submissions.list(None, forged, 5),
    ):
        with pytest.raises(SubmissionNotFound):
            bench.run(ask)


# --- again ------------------------------------------------------------------------------------------


def test_a_rejudge_is_a_new_job_and_the_old_ones_result_is_too_late(bench: Bench) -> None:
    """Planted defect, a known mistake: results of a superseded job written over newer ones."""
    submission_id = bench.submit()
    again = bench.run(bench.judge.submissions.rejudge(submission_id))
    assert (again.status, again.generation, again.job_id) == ("pending", 2, "jb_2")
    assert bench.dispatch.superseded == ["jb_1"]
    bench.finish(submission_id, "WA", "WA", generation=1, job_id="jb_1")
    assert get(bench, submission_id).status == "pending"
    bench.finish(submission_id, "AC", "AC", generation=2, job_id="jb_2")
    bench.finish(submission_id, "WA", "WA", generation=1, job_id="jb_1")
    assert get(bench, submission_id).verdict == "AC"


def test_a_rejudge_of_what_is_done_shows_no_old_verdict(bench: Bench) -> None:
    submission_id = bench.submit()
    bench.finish(submission_id, "WA", "WA")
    again = bench.run(bench.judge.submissions.rejudge(submission_id))
    assert (again.status, again.verdict, again.score, again.tasks) == ("pending", None, None, ())
    assert bench.dispatch.superseded == []  # it ended
    bench.finish(submission_id, "AC", "AC", generation=2, job_id="jb_2")
    assert [one.verdict for one in get(bench, submission_id).tasks[0].cases] == ["AC", "AC"]


def test_all_of_a_problems_submissions_are_judged_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass.judge.submissions._STEP", 2)
    bench.problem(2)
    mine, other = [bench.submit() for _ in range(5)], bench.submit(2)
    bench.finish(mine[0], "AC", "AC")
    assert bench.run(bench.judge.submissions.rejudge_all(1)) == 5
    assert bench.sweep()
    assert {get(bench, one).generation for one in mine} == {2}
    assert get(bench, other).generation == 1
    assert len(bench.dispatch.living) == 1 + 5 + 1  # one that ended, five anew, the other problem's
    assert bench.run(bench.judge.submissions.rejudge_all(2)) == 1
    with pytest.raises(ProblemNotFound):
        bench.run(bench.judge.submissions.rejudge_all(3))


def test_a_rejudge_stands_though_the_dispatch_is_away(bench: Bench) -> None:
    """Planted defect: a rejudge that is answered with an error and happens all the same, or never."""
    submission_id = bench.submit()
    bench.dispatch.before = once("supersede", StoreUnavailable())
    again = bench.run(bench.judge.submissions.rejudge(submission_id))
    assert (again.generation, again.job_id) == (2, None)
    # The sweeper was woken: what it has begun is left to it, or done twice.
    until(lambda: bench.sweep() and get(bench, submission_id).job_id == "jb_2", what="the new job")
    until(lambda: bench.sweep() and set(bench.dispatch.superseded) == {"jb_1"}, what="the old job's end")


# --- looking and waiting ----------------------------------------------------------------------------


def test_the_newest_come_first_in_pages(bench: Bench) -> None:
    bench.problem(2)
    mine = [bench.submit() for _ in range(3)]
    bench.submit(2)
    page = bench.run(bench.judge.submissions.list(1, None, 2))
    assert [one.submission_id for one in page] == mine[:0:-1]
    page = bench.run(bench.judge.submissions.list(1, page[-1].submission_id, 2))
    assert [one.submission_id for one in page] == mine[:1]
    assert len(bench.run(bench.judge.submissions.list(None, None, 10))) == 4


def test_whoever_waits_is_told_without_polling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: looking again and again until the time is over."""
    submission_id = bench.submit()
    monkeypatch.setattr(bench.judge.submissions, "_every", None)  # as if no other server wrote
    looks = []
    read = bench.judge.submissions._database.read

    async def counted(step: Any) -> Any:
        found = await read(step)
        looks.append(step)
        return found

    monkeypatch.setattr(bench.judge.submissions._database, "read", counted)

    async def scenario() -> Submission:
        waiting = asyncio.ensure_future(
            bench.judge.submissions.until(submission_id, lambda found: found.status == "done", 60)
        )
        while not looks:  # noqa: ASYNC110 - turns, no time
            await asyncio.sleep(0)
        for _ in range(200):  # commits that change nothing: time in which it might look
            await bench.judge.started(submission_id, 99)
        assert len(looks) == 1
        await bench.judge.started(submission_id, 1)
        await bench.judge.project("jb_1", submission_id, 1, result(["AC", "AC"]))
        return await asyncio.wait_for(waiting, 60)

    assert bench.run(scenario()).verdict == "AC"
    assert len(looks) <= 3
    assert len(bench.judge.watches) == 0


def test_a_wait_ends_with_its_time_its_client_or_the_server(bench: Bench) -> None:
    submission_id = bench.submit()

    async def scenario() -> None:
        until = bench.judge.submissions.until
        assert (await until(submission_id, lambda _: False, 0.01)).status == "pending"
        gone = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(until(submission_id, lambda _: False, 60, gone))
        await asyncio.sleep(0)
        gone.set_result(None)
        assert (await waiting).status == "pending"
        waiting = asyncio.ensure_future(until(submission_id, lambda _: False, 60))
        await asyncio.sleep(0)
        bench.judge.release_waiters()
        assert (await waiting).status == "pending"

    bench.run(scenario())


def test_a_start_is_seen_and_changes_nothing_else(bench: Bench) -> None:
    submission_id = bench.submit()
    bench.run(bench.judge.started(submission_id, 2))
    assert get(bench, submission_id).status == "pending"
    bench.run(bench.judge.started(submission_id, 1))
    assert get(bench, submission_id).status == "judging"
    bench.finish(submission_id, "AC", "AC")
    bench.run(bench.judge.started(submission_id, 1))
    assert get(bench, submission_id).status == "done"


def test_every_state_has_a_name_of_its_own(bench: Bench) -> None:
    submission_id = bench.submit()
    names = [get(bench, submission_id).event_id]
    bench.run(bench.judge.started(submission_id, 1))
    names.append(get(bench, submission_id).event_id)
    bench.finish(submission_id, "AC", "AC")
    names.append(get(bench, submission_id).event_id)
    bench.run(bench.judge.submissions.rejudge(submission_id))
    names.append(get(bench, submission_id).event_id)
    assert names == ["1.0", "1.1", "1.2", "2.0"]


def test_a_source_is_kept_while_its_submission_is_there(bench: Bench) -> None:
    submission_id = bench.submit()
    assert bench.collect() == 0
    assert source_of(bench, submission_id) == b"print(1)"
