"""windlass jobs: what waits, what runs, what failed."""

from __future__ import annotations

import shlex
from enum import StrEnum
from typing import Annotated

import typer

from windlass.cli.connect import Json, Key, Server, connect
from windlass.cli.output import note, number, print_json, print_table, shown
from windlass.client.transport import DEFAULT_URL
from windlass.client.work_values import JobInfo

_LONGEST_COMMAND = 60


class State(StrEnum):
    """The states that jobs are listed by."""

    RUNNING = "running"
    QUEUED = "queued"
    FAILED = "failed"


def jobs(
    state: Annotated[
        State | None, typer.Option(help="Only these.", show_default="running, then queued")
    ] = None,
    most: Annotated[
        int, typer.Option("--max", metavar="N", min=1, max=1000, help="At most so many of each.")
    ] = 100,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """List jobs: those that run, those that wait, or those that failed for good.

    A job that is done is not listed; windlass job show tells of it for a week.

    \b
    Examples:
      windlass jobs
      windlass jobs --state failed
      windlass jobs --state queued --json | jq length
    """
    with connect(server, key) as client:
        states = [state] if state is not None else [State.RUNNING, State.QUEUED]
        found = [job for each in states for job in client.jobs.list(each.value, most)]
        if json:
            print_json(found)
        elif not found:
            what = state.value if state is not None else "running or queued"
            note(
                f"No job is {what}."
                if state is State.FAILED
                else f"No job is {what}. See also --state failed."
            )
        else:
            print_table(
                ("JOB", "STATE", "PRIORITY", "ATTEMPTS", "LABELS", "RUNNER", "WHAT"),
                [_row(job) for job in found],
            )


def _row(job: JobInfo) -> tuple[str, ...]:
    return (
        job.job_id,
        job.state,
        number(job.priority),
        number(job.attempts),
        ",".join(job.labels) or "-",
        job.runner or "-",
        what_of(job),
    )


def what_of(job: JobInfo) -> str:
    """What a job does, on a line: the submission that it judges, or its command."""
    if job.command is None:
        return f"judge {job.submission_id}" if job.submission_id else "-"
    text = shown(shlex.join(map(str, job.command.get("argv", []))))
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 3] + "..."
