"""windlass submission: what became of what was submitted."""

from __future__ import annotations

from typing import Annotated

import typer

from windlass.cli.connect import Json, Key, Server, connect
from windlass.cli.output import note, print_json, print_table, time
from windlass.cli.verdicts import judged, print_submission, watch
from windlass.client.transport import DEFAULT_URL
from windlass.client.work_values import SubmissionSummary
from windlass.judge.languages import LANGUAGES

app = typer.Typer(
    help="What became of what was submitted; judge it again.", no_args_is_help=True, rich_markup_mode=None
)

SubmissionId = Annotated[
    str, typer.Argument(metavar="SUBMISSION", help="Its id, as windlass submit printed it.")
]


@app.command()
def show(
    submission_id: SubmissionId, server: Server = DEFAULT_URL, key: Key = None, json: Json = False
) -> None:
    """Show a submission: its verdict, its score, and every case.

    \b
    Examples:
      windlass submission show sb_AAAAAAAAAAG8yl3Rz6k0vQ1f
      windlass submission show sb_AAAAAAAAAAG8yl3Rz6k0vQ1f --json | jq '.tasks[].cases[].verdict'
    """
    with connect(server, key) as client:
        found = client.judge.submission(submission_id)
        if json:
            print_json(found)
        else:
            print_submission(found)


@app.command("list")
def list_submissions(
    problem: Annotated[
        int | None, typer.Option("--problem", "-p", metavar="ID", min=1, help="Only to this problem.")
    ] = None,
    most: Annotated[int, typer.Option("--max", metavar="N", min=1, help="At most so many.")] = 20,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """List submissions, the newest first.

    \b
    Examples:
      windlass submission list
      windlass submission list --problem 1 --max 1000 --json | jq -r '.[].verdict' | sort | uniq -c
    """
    with connect(server, key) as client:
        found = client.judge.submissions(problem, most)
        if json:
            print_json(found)
        elif not found:
            note("There are no submissions. Make one: windlass submit FILE --problem ID")
        else:
            header = ("SUBMISSION", "PROBLEM", "LANGUAGE", "STATUS", "VERDICT", "SCORE", "SUBMITTED")
            print_table(header, [_row(submission) for submission in found])


def _row(submission: SubmissionSummary) -> tuple[str, ...]:
    language = LANGUAGES.get(submission.language)
    score = "-" if submission.score is None else f"{submission.score:g} of {submission.max_score:g}"
    return (
        submission.submission_id,
        str(submission.problem_id),
        language.name if language else str(submission.language),
        submission.status,
        submission.verdict or "-",
        score,
        time(submission.submitted_at),
    )


@app.command()
def rejudge(
    submission_id: SubmissionId,
    watching: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Show the cases as they are judged, and wait for the verdict."),
    ] = False,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Judge a submission again, by its problem as it is now. A verdict under way is dropped.

    With --watch it ends with 0 for AC, 1 for any other verdict.

    \b
    Example:
      windlass submission rejudge sb_AAAAAAAAAAG8yl3Rz6k0vQ1f --watch
    """
    with connect(server, key) as client:
        found = client.judge.rejudge(submission_id)
        if watching:
            judged(watch(client, submission_id, quiet=json), json)
        elif json:
            print_json(found)
        else:
            print(f"{submission_id} is judged again, for the {_ordinal(found.generation)} time.")


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
