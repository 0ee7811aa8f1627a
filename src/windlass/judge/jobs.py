"""What the judge asks of the dispatch: jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from windlass.judge.problem import Problem


class JobTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task as next-job has it: the limits of its cases, in ms and KiB."""

    task_id: int
    """From 1."""
    case_count: int
    memory_limit: int
    time_limit: int


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of a submission, to be judged. It goes through JSON unchanged."""

    dedup: str
    """The same for the same generation of the same submission, and for nothing else."""
    submission_id: str
    generation: int
    problem_id: int
    language: int
    source: str
    """SHA-256 of the archive with the source, which `Submissions.open_source` gives."""
    checker: str
    interactor: str = ""
    tasks: Sequence[JobTask]
    priority: int = 0
    """0 to 9, 9 leaves first."""
    labels: Sequence[str] = ()
    """A runner has to offer all of them."""


class Dispatch(Protocol):
    """Gives jobs to runners; what came of each is brought back to `Judge.project`."""

    async def submit(self, spec: JobSpec, /) -> str:
        """Have a job done; its id, once it is on disk.

        As often as it is called with a `dedup` whose job was not confirmed by `Judge.project`, it is the same
        one job. A WindlassError says that there is no job; of anything else that is unknown.
        """
        ...

    async def supersede(self, job_id: str, /) -> None:
        """This job never runs again, and a late result of it is refused. One that ended stays as it is."""
        ...

    async def over(self, job_id: str, /) -> bool:
        """True where this job has ended, or is not known; its outcome may still be on its way."""
        ...


def spec_of(
    problem: Problem,
    submission_id: str,
    generation: int,
    *,
    language: int,
    source: str,
    priority: int,
    labels: Sequence[str],
) -> JobSpec:
    """The job that judges a generation of a submission by this version of its problem."""
    return JobSpec(
        dedup=f"{submission_id}.{generation}",
        submission_id=submission_id,
        generation=generation,
        problem_id=problem.id,
        language=language,
        source=source,
        checker=problem.meta.checker,
        interactor=problem.meta.interactor,
        tasks=[
            JobTask(
                task_id=number,
                case_count=task.case_count,
                memory_limit=task.memory_limit,
                time_limit=task.time_limit,
            )
            for number, task in enumerate(problem.meta.tasks, 1)
        ],
        priority=priority,
        labels=labels,
    )
