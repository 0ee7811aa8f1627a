"""What a job is: the content of its message, and the shapes of what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from windlass.errors import ResultMalformed

JOB = "jb"
"""The kind of a job's id."""
MAX_ATTEMPTS = 3
LEASE = 30_000
"""How long a job is leased, and again at each heartbeat, ms."""
MAX_SECONDS = 3_600


class Task(msgspec.Struct, frozen=True):
    """A task of a problem, as runners know it: limits in KiB and ms."""

    task_id: int
    case_count: int
    memory_limit: int
    time_limit: int


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job. It goes through JSON unchanged."""

    owner: str = ""
    """Who is told what became of it: the id of a submission; "": nobody."""
    generation: int = 0
    problem_id: int | None = None
    language: int | None = None
    checker: str = ""
    interactor: str = ""
    tasks: tuple[Task, ...] = ()
    command: dict[str, Any] | None = None
    """For jobs that are a command: what the runner's executor takes."""
    max_seconds: int = MAX_SECONDS
    """The longest that one attempt may last."""

    @property
    def judged(self) -> bool:
        return self.problem_id is not None

    def wire(self, job_id: str, code_url: str) -> dict[str, Any]:
        """What next-job answers."""
        if not self.judged:
            return {"job_id": job_id, "command": self.command, "max_seconds": self.max_seconds}
        wire = {
            "job_id": job_id,
            "submission_id": self.owner,
            "problem_id": self.problem_id,
            "language": self.language,
            "code_url": code_url,
            "checker": self.checker,
            "tasks": self.tasks,
        }
        if self.interactor:  # unknown to the oldest runners, which cannot judge such problems
            wire["interactor"] = self.interactor
        return wire


class Delivery(msgspec.Struct, frozen=True):
    """A job for a runner."""

    job_id: str
    job: Job


class Case(msgspec.Struct, frozen=True):
    """What came of one case, named as on the wire: ms and KiB."""

    stdout: str
    stderr: str
    exitCode: int  # noqa: N815 - the wire's name
    execTime: Annotated[float, Meta(ge=0)]  # noqa: N815
    memoryUsage: Annotated[float, Meta(ge=0)]  # noqa: N815
    status: Annotated[str, Meta(pattern=r"\A(AC|WA|CE|TLE|MLE|RE|OLE|JE)\Z")]


class Result(msgspec.Struct, frozen=True):
    """What a runner brings: the cases of each task."""

    tasks: list[list[Case]]


class Outcome(msgspec.Struct, frozen=True):
    """How a job's outcome is kept: the result as it came, and for whom it is."""

    owner: str
    generation: int
    result: msgspec.Raw


encode = msgspec.json.Encoder().encode
decode_job = msgspec.json.Decoder(Job).decode
decode_outcome = msgspec.json.Decoder(Outcome).decode
_decode_result = msgspec.json.Decoder(Result).decode


def check_result(job: Job, body: bytes) -> None:
    """Raise ResultMalformed where `body` is not the result of this job, with as many cases as it has."""
    try:
        result = _decode_result(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultMalformed(f"The result is malformed: {error}.", field="tasks") from None
    wanted = [task.case_count for task in job.tasks] if job.judged else [1]
    found = [len(cases) for cases in result.tasks]
    if found != wanted:
        raise ResultMalformed(
            f"The result has {_few(found)} cases in its tasks, the job has {_few(wanted)}.", field="tasks"
        )


def _few(counts: Sequence[int]) -> str:
    return f"[{', '.join(map(str, counts[:10]))}{', ...' if len(counts) > 10 else ''}]"
