"""What tests of the judge share: a dispatch that remembers, a judge that can end, test data, results."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from sqlalchemy import update

from windlass.clock import ManualClock
from windlass.ids import Ids
from windlass.judge.jobs import JobSpec
from windlass.judge.problem import Problem, ProblemMeta
from windlass.judge.service import Judge
from windlass.judge.tables import files

T = TypeVar("T")


def _nothing(_: str) -> None:
    """No hook."""


class Killed(BaseException):
    """The process ended here. Nothing may catch it."""


class FakeDispatch:
    """Keeps every job there ever was, as the dispatch's own store does across a restart of the judge."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobSpec] = {}
        self.superseded: list[str] = []
        self.ended: set[str] = set()
        """Jobs that the test says are over."""
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str], None] = _nothing
        """Called with "submit" or "supersede" before it happens; may raise."""
        self.after: Callable[[str], None] = _nothing
        """The same afterwards: it has happened, but nobody is told."""
        self._by_dedup: dict[str, str] = {}

    async def submit(self, spec: JobSpec, /) -> str:
        self.calls.append(("submit", spec.dedup))
        self.before("submit")
        await asyncio.sleep(0)
        job_id = self._by_dedup.setdefault(spec.dedup, f"jb_{len(self._by_dedup) + 1}")
        kept = msgspec.json.decode(msgspec.json.encode(spec), type=JobSpec)
        assert self.jobs.setdefault(job_id, kept) == kept, "the same dedup with another job"
        self.after("submit")
        return job_id

    async def supersede(self, job_id: str, /) -> None:
        self.calls.append(("supersede", job_id))
        self.before("supersede")
        await asyncio.sleep(0)
        assert job_id in self.jobs
        self.superseded.append(job_id)
        self.after("supersede")

    async def over(self, job_id: str, /) -> bool:
        return job_id not in self.living or job_id in self.ended

    @property
    def living(self) -> dict[str, JobSpec]:
        """The jobs that may still run."""
        return {job_id: spec for job_id, spec in self.jobs.items() if job_id not in self.superseded}


def once(verb: str, error: BaseException) -> Callable[[str], None]:
    """A hook that raises at the next call of `verb`, and never again."""
    left = [error]

    def hook(called: str) -> None:
        if called == verb and left:
            raise left.pop()

    return hook


class Bench:
    """A judge on a directory, in a loop of its own, with a clock that the test moves."""

    def __init__(self, folder: Path, dispatch: FakeDispatch | None = None, *, url: str | None = None) -> None:
        """`url` is that of a PostgreSQL for its tables and files; None: they are in the directory."""
        self.folder = folder
        self.url = url
        self.dispatch = dispatch or FakeDispatch()
        self.clock = ManualClock()
        self._runner = asyncio.Runner()
        self.open()

    def open(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.judge = Judge.open(
            self.folder, Ids(b"k" * 32), self.clock, self.dispatch, url=self.url, synchronous="off"
        )

    def reopen(self) -> None:
        """End it without a word and begin again on the same directory."""
        self.judge.close()
        self.open()

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(scenario)

    def problem(self, problem_id: int = 1, counts: Sequence[int] = (2,), **changes: Any) -> Problem:
        """Put a problem with as many cases in its tasks."""
        return self.run(self.put(problem_id, meta(counts, **changes), zipped(counts)))[0]

    async def put(
        self, problem_id: int, wanted: ProblemMeta, data: bytes | None = None
    ) -> tuple[Problem, bool]:
        if data is None:
            return await self.judge.problems.put(problem_id, wanted)
        with self.judge.files.incoming() as incoming:
            incoming.write(data)
            return await self.judge.problems.put(problem_id, wanted, incoming)

    def submit(self, problem_id: int = 1, source: bytes = b"print(1)", **more: Any) -> str:
        """Submit Python; the submission's id."""
        return self.run(self.judge.submissions.submit(problem_id, 2, source, **more)).submission_id

    def finish(self, submission_id: str, *statuses: str, generation: int = 1, job_id: str = "jb_1") -> None:
        """Bring an outcome with one task."""
        self.run(self.judge.project(job_id, submission_id, generation, result(statuses)))

    def sweep(self) -> bool:
        """One sweep of the whole outbox, with nobody else at it."""
        self.run(self.judge.sweeper.stop())
        return self.run(self.judge.outbox.sweep())

    def collect(self) -> int:
        """A collection of files an hour later: nobody holds any."""
        if self.url is not None:
            self.judge._database.change(lambda c: c.execute(update(files).values(held_until=0)) and None)
        return self.run(self.judge.collect())

    def close(self) -> None:
        self.run(self.judge.stop())
        self.judge.close()
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def meta(counts: Sequence[int] = (2,), **changes: Any) -> ProblemMeta:
    """A problem with tasks of as many cases, of 10 points each."""
    return msgspec.convert({**meta_json(counts), **changes}, ProblemMeta)


def meta_json(counts: Sequence[int] = (2,)) -> dict[str, Any]:
    task = {"score": 10, "time_limit": 1000, "memory_limit": 65536}
    return {"title": "A+B", "tasks": [{**task, "case_count": count} for count in counts]}


def zipped(counts: Sequence[int] = (2,), **more: bytes) -> bytes:
    """Test data with as many cases in its tasks; `more` is added under these names, `_` for a dot."""
    files = {
        f"{task:02}{case:02}.{end}": f"{task} {case} {end}\n".encode()
        for task, count in enumerate(counts, 1)
        for case in range(1, count + 1)
        for end in ("in", "out")
    }
    return archive(files | {name.replace("_", "."): data for name, data in more.items()})


def archive(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)  # of 1980: the same files are the same archive
            member.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(member, data)
    return file.getvalue()


def case(status: str = "AC", **more: Any) -> dict[str, Any]:
    """A case as the wire has it."""
    return {
        "stdout": "1\n", "stderr": "", "exitCode": 0, "execTime": 12, "memoryUsage": 1024, "status": status,
    } | more  # fmt: skip


def result(*tasks: Sequence[str]) -> dict[str, Any]:
    """An outcome with these statuses in its tasks."""
    return {"tasks": [[case(status) for status in task] for task in tasks]}
