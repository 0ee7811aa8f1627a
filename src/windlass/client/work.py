"""Jobs for runners, and the judge: what `client.jobs` and `client.judge` are. For blocking code alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from windlass.client import work_calls as calls
from windlass.client.events import ServerEvent
from windlass.client.work_values import (
    Accepted,
    JobInfo,
    ProblemInfo,
    ProblemSummary,
    RunnerInfo,
    SubmissionInfo,
    SubmissionSummary,
)

if TYPE_CHECKING:
    from windlass.client.client import Client

JobState = Literal["queued", "running", "failed"]


class Jobs:
    """The jobs of a server's runners."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        command: Mapping[str, Any],
        *,
        labels: Sequence[str] = (),
        priority: int = 0,
        max_seconds: int | None = None,
    ) -> str:
        """Give a command to whichever runner asks first; the job's id.

        `command`: `{"argv": [...], "env": {}, "files": {path: text}, "stdin": "", "time_limit": ms,
        "memory_limit": KiB, "processes": n}`, all but argv may be left out. `labels`: a runner has to offer
        them all.
        """
        return self._client.run(calls.create_job(command, labels, priority, max_seconds)).job_id

    def show(self, job_id: str, wait: float = 0.0) -> JobInfo:
        """A job as it is; with `wait`, once it is over, or after so many seconds (60 at most)."""
        return self._client.run(calls.job(job_id, wait))

    def list(self, state: JobState, limit: int = 1000) -> list[JobInfo]:
        """Jobs in one state."""
        return self._client.run(calls.jobs(state, limit))

    def cancel(self, job_id: str) -> None:
        """It never runs again; a runner that has it is told to stop. Gone where it is over."""
        self._client.run(calls.cancel_job(job_id))

    def runners(self) -> Sequence[RunnerInfo]:
        """The runners that may take jobs."""
        return self._client.run(calls.runners())

    def events(self, job_id: str) -> Iterator[ServerEvent]:
        """What happens to a job, as it comes, until it is over.

        Broken connections are made again, as long as `client.retry` says. A job whose runner died begins
        anew: `started` comes again then. Some may be lost: `lost` stands for those that were known to be.
        """
        return self._client._events(calls.job_events(job_id), over=lambda: self.show(job_id).over)


class Judge:
    """The problems and submissions of a server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create_problem(
        self, meta: Mapping[str, Any], testdata: bytes, *, sent: Callable[[int], None] | None = None
    ) -> ProblemInfo:
        """A new problem, under a number that the server chooses; `windlass.judge.package` reads both parts
        from a directory. `sent` is called with the bytes of each piece of test data that went out."""
        return self._client.run(calls.create_problem(meta, testdata, sent))

    def put_problem(
        self,
        problem_id: int,
        meta: Mapping[str, Any],
        testdata: bytes,
        *,
        sent: Callable[[int], None] | None = None,
    ) -> ProblemInfo:
        """Create a problem under this number, or replace the one that has it."""
        return self._client.run(calls.put_problem(problem_id, meta, testdata, sent))

    def problem(self, problem_id: int) -> ProblemInfo:
        """A problem without its test data."""
        return self._client.run(calls.problem(problem_id))

    def problems(self) -> list[ProblemSummary]:
        """All problems by their numbers."""
        return self._client.follow(calls.problems())

    def delete_problem(self, problem_id: int) -> None:
        """Delete a problem. Its submissions stay; those without a verdict end as JE."""
        self._client.run(calls.delete_problem(problem_id))

    def rejudge_problem(self, problem_id: int) -> int:
        """Judge all its submissions again; how many there are."""
        return self._client.run(calls.rejudge_problem(problem_id))

    def submit(
        self,
        problem_id: int,
        language: int,
        source: bytes,
        *,
        priority: int = 0,
        labels: Sequence[str] = (),
    ) -> Accepted:
        """Have a program judged. `language`: 0 C11, 1 C++17, 2 Python 3. `source`: its bytes, or a zip."""
        return self._client.run(calls.submit(problem_id, language, source, priority, labels))

    def submission(self, submission_id: str, wait: float = 0.0) -> SubmissionInfo:
        """A submission as it is; with `wait`, once it is done, or after so many seconds (60 at most)."""
        return self._client.run(calls.submission(submission_id, wait))

    def submissions(self, problem_id: int | None = None, most: int = 100) -> list[SubmissionSummary]:
        """The newest submissions, without their cases."""
        return self._client.follow(calls.submissions(problem_id, most))

    def rejudge(self, submission_id: str) -> SubmissionInfo:
        """Judge a submission again, by its problem as it is now."""
        return self._client.run(calls.rejudge(submission_id))

    def events(self, submission_id: str) -> Iterator[ServerEvent]:
        """A submission as it changes (`submission`), and what its runner tells between (`compiled`, `case`),
        until it is done. Broken connections are made again, as long as `client.retry` says."""
        path = calls.submission_events(submission_id)
        return self._client._events(path, over=lambda: self.submission(submission_id).done)
