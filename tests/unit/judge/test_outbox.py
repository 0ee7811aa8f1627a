"""Crashes between the judge's store and the dispatch's: whatever is lost, there is one job a generation.

Every gap twice: the process killed with SIGKILL, and (at more places) an exception that nothing catches.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.harness import clean_environment, until
from tests.judging import Bench, FakeDispatch, Killed, meta, once, result, zipped
from windlass.errors import StoreUnavailable
from windlass.judge import sweeper
from windlass.judge.jobs import JobSpec
from windlass.message import Once

ROOT = Path(__file__).parents[3]
KEY = Once(b"k" * 24, b"f" * 24)


@pytest.fixture
def bench(tmp_path: Path, url: str | None) -> Iterator[Bench]:
    with Bench(tmp_path / "data", url=url) as opened:
        opened.problem()
        yield opened


def killed_at(bench: Bench, place: str, act: Callable[[], object]) -> None:
    """Do something; the process ends before or after the dispatch did its part. Then a new one begins."""
    when, _, verb = place.partition(" ")
    setattr(bench.dispatch, when, once(verb, Killed()))
    with pytest.raises(Killed):
        act()
    bench.reopen()


def statuses(bench: Bench) -> list[tuple[str, int, str | None]]:
    listed = bench.run(bench.judge.submissions.list(None, None, 100))
    return [(one.status, one.generation, one.job_id) for one in listed]


@pytest.mark.parametrize("place", ["before submit", "after submit"])
def test_a_submission_that_was_written_is_sent_once(bench: Bench, place: str) -> None:
    """Planted defects: no sweep at the start; a sweep under another dedup id."""
    killed_at(bench, place, bench.submit)
    assert statuses(bench) == [("pending", 1, None)]
    for _ in range(3):
        assert bench.sweep()
    assert list(bench.dispatch.jobs) == ["jb_1"]
    assert statuses(bench) == [("pending", 1, "jb_1")]
    assert bench.dispatch.calls.count(("submit", bench.dispatch.jobs["jb_1"].dedup)) <= 2


@pytest.mark.parametrize("place", ["before submit", "after submit"])
def test_whoever_repeats_with_a_key_gets_the_submission_that_was_written(bench: Bench, place: str) -> None:
    """Planted defect: a key that is remembered once the answer is ready, and not with the submission."""
    killed_at(bench, place, lambda: bench.submit(once=KEY))
    answer = bench.run(bench.judge.submissions.submit(1, 2, b"print(1)", once=KEY))
    assert answer.job_id == "jb_1"
    assert statuses(bench) == [("pending", 1, "jb_1")]
    assert bench.sweep()
    assert list(bench.dispatch.jobs) == ["jb_1"]


@pytest.mark.parametrize("place", ["before submit", "after submit", "before supersede", "after supersede"])
def test_a_rejudge_that_was_written_supersedes_and_is_sent_once(bench: Bench, place: str) -> None:
    """Planted defect: superseding before the new generation is on disk, or never after a crash."""
    submission_id = bench.submit()
    killed_at(bench, place, lambda: bench.run(bench.judge.submissions.rejudge(submission_id)))
    assert bench.sweep()
    assert bench.sweep()
    assert list(bench.dispatch.living) == ["jb_2"]
    assert statuses(bench) == [("pending", 2, "jb_2")]


@pytest.mark.parametrize("first", ["before submit", "after submit"])
@pytest.mark.parametrize("second", ["before submit", "after submit", "before supersede", "after supersede"])
def test_a_rejudge_of_what_was_never_confirmed_leaves_one_living_job(
    bench: Bench, first: str, second: str
) -> None:
    """Planted defect: a job whose id a crash has kept from us, and that nobody supersedes."""
    killed_at(bench, first, bench.submit)
    (one,) = bench.run(bench.judge.submissions.list(None, None, 10))
    killed_at(bench, second, lambda: bench.run(bench.judge.submissions.rejudge(one.submission_id)))
    assert bench.sweep()
    assert bench.sweep()
    assert [spec.generation for spec in bench.dispatch.living.values()] == [2]
    bench.run(bench.judge.project("jb_1", one.submission_id, 1, result(["WA", "WA"])))
    assert bench.run(bench.judge.submissions.get(one.submission_id)).status == "pending"


@pytest.mark.parametrize("place", ["before submit", "after submit", "before supersede", "after supersede"])
def test_a_replaced_problem_is_what_everything_is_judged_by(bench: Bench, place: str) -> None:
    known, unknown = bench.submit(), None
    killed_at(bench, "after submit", bench.submit)
    unknown = bench.run(bench.judge.submissions.list(None, None, 1))[0].submission_id
    bench.problem(counts=(1,))
    setattr(bench.dispatch, place.split()[0], once(place.split()[1], Killed()))
    bench.sweep()
    bench.reopen()
    assert bench.sweep()
    living = {spec.submission_id: spec for spec in bench.dispatch.living.values()}
    assert set(living) == {known, unknown}
    assert {(spec.generation, spec.tasks[0].case_count) for spec in living.values()} == {(2, 1)}


def test_an_outcome_that_comes_before_the_job_has_a_name_is_kept(bench: Bench) -> None:
    """Planted defect: a fast runner's outcome of a job that the judge does not know yet, thrown away."""
    killed_at(bench, "after submit", bench.submit)
    spec = bench.dispatch.jobs["jb_1"]
    bench.run(bench.judge.project("jb_1", spec.submission_id, 1, result(["AC", "AC"])))
    assert bench.sweep()
    assert statuses(bench) == [("done", 1, "jb_1")]
    assert len(bench.dispatch.calls) == 1


def test_an_outcome_between_the_job_and_its_name_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: noting the job's name makes a judged submission pending, or loses its verdict."""
    submit = bench.dispatch.submit

    async def fast(spec: JobSpec, /) -> str:
        job_id = await submit(spec)
        await bench.judge.project(job_id, spec.submission_id, spec.generation, result(["AC", "AC"]))
        return job_id

    monkeypatch.setattr(bench.dispatch, "submit", fast)
    bench.submit()
    assert statuses(bench) == [("done", 1, "jb_1")]
    assert bench.dispatch.superseded == []
    assert bench.sweep()


def test_a_dispatch_that_is_away_is_asked_until_it_is_back(bench: Bench) -> None:
    killed_at(bench, "before submit", bench.submit)
    bench.dispatch.before = always(StoreUnavailable())
    assert not bench.sweep()
    bench.dispatch.before = once("submit", ZeroDivisionError())
    assert not bench.sweep()
    assert bench.sweep()
    assert statuses(bench) == [("pending", 1, "jb_1")]


def always(error: Exception) -> Callable[[str], None]:
    def hook(_: str) -> None:
        raise error

    return hook


def test_one_that_cannot_be_sent_does_not_hold_up_the_others(bench: Bench) -> None:
    """Planted defect: a sweep that ends at the first failure."""
    for _ in range(3):
        killed_at(bench, "before submit", bench.submit)
    bench.dispatch.before = once("submit", ZeroDivisionError())
    assert not bench.sweep()
    assert len(bench.dispatch.jobs) == 2


def test_the_sweeper_sends_at_its_start_and_when_it_is_woken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: a sweeper that ends with its first error; one that waits its interval first."""
    killed_at(bench, "before submit", bench.submit)
    monkeypatch.setattr(sweeper, "INTERVAL", 3600)
    bench.dispatch.before = once("submit", ZeroDivisionError())

    async def scenario() -> None:
        bench.judge.start()
        bench.judge.start()
        async with asyncio.timeout(60):
            while not bench.dispatch.calls[1:]:  # noqa: ASYNC110 - the dispatch is asked: there is no event
                await asyncio.sleep(0.001)
            while not bench.dispatch.jobs:
                bench.judge.sweeper.wake()
                await asyncio.sleep(0.001)
        await bench.judge.sweeper.stop()

    bench.run(scenario())
    assert list(bench.dispatch.jobs) == ["jb_1"]


# --- kill -9 ----------------------------------------------------------------------------------------


class DiskDispatch(FakeDispatch):
    """A dispatch whose jobs are on the disk, so that it outlives the process; each call is a line."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        for line in path.read_text().splitlines() if path.exists() else ():
            verb, *rest = json.loads(line)
            if verb == "submit":
                job_id, spec = rest
                self.jobs[job_id] = msgspec.convert(spec, JobSpec)
                self._by_dedup[self.jobs[job_id].dedup] = job_id
            else:
                self.superseded.append(rest[0])

    async def submit(self, spec: JobSpec, /) -> str:
        self.before("submit")
        new = spec.dedup not in self._by_dedup
        job_id = self._by_dedup.setdefault(spec.dedup, f"jb_{len(self._by_dedup) + 1}")
        self.jobs.setdefault(job_id, spec)
        if new:
            self._write("submit", job_id, msgspec.to_builtins(spec))
        self.after("submit")
        return job_id

    async def supersede(self, job_id: str, /) -> None:
        self.before("supersede")
        self.superseded.append(job_id)
        self._write("supersede", job_id)
        self.after("supersede")

    def _write(self, *line: object) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def child(folder: Path, place: str, act: str) -> None:
    """What the killed process runs."""
    dispatch = DiskDispatch(folder.parent / "jobs")
    with Bench(folder, dispatch) as bench:
        when, _, verb = place.partition(" ")
        if act != "submit":
            first = bench.submit()

        def die(called: str) -> None:
            if called == verb:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(dispatch, when, die)
        if act == "submit":
            bench.submit()
        elif act == "rejudge":
            bench.run(bench.judge.submissions.rejudge(first))
        else:
            bench.run(bench.put(1, meta((1,)), zipped((1,))))
            bench.sweep()
    raise AssertionError("it was not killed")


@pytest.mark.parametrize(
    ("place", "act"),
    [
        ("before submit", "submit"), ("after submit", "submit"),
        ("before submit", "rejudge"), ("after submit", "rejudge"),
        ("before supersede", "rejudge"), ("after supersede", "rejudge"),
        ("before supersede", "replace"), ("after submit", "replace"),
    ],
)  # fmt: skip
def test_a_kill_in_any_gap_costs_nothing_and_makes_no_second_job(
    tmp_path: Path, place: str, act: str
) -> None:
    """Planted defect: an outbox row that is removed before the dispatch has answered."""
    folder = tmp_path / "data"
    with Bench(folder) as bench:
        bench.problem()
    ran = subprocess.run(
        [sys.executable, "-m", "tests.unit.judge.test_outbox", str(folder), place, act],
        cwd=ROOT,
        env=clean_environment({"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    generation = 1 if act == "submit" else 2
    dispatch = DiskDispatch(tmp_path / "jobs")
    with Bench(folder, dispatch) as bench:

        async def started() -> None:
            bench.judge.start()  # as a server does: nobody has to ask

        bench.run(started())
        until(lambda: bench.run(all_sent(bench)), what="everything sent")
        assert [(one, there) for one, there, _ in statuses(bench)] == [("pending", generation)]
        (living,) = dispatch.living.values()
        assert living.generation == generation
        bench.run(bench.judge.project("jb_x", living.submission_id, generation, {"failed": "x"}))
        assert statuses(bench)[0][0] == "done"


async def all_sent(bench: Bench) -> bool:
    listed = await bench.judge.submissions.list(None, None, 10)
    return all(one.job_id for one in listed) and len(bench.dispatch.living) == len(listed)


if __name__ == "__main__":
    child(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
