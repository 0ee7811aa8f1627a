"""Verdicts for people: the cases while they are judged, and what came of all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from windlass.cli.output import note, print_fields, print_json, print_table, shown, time
from windlass.cli.runners import say_if_nobody
from windlass.cli.sizes import size
from windlass.client import Client, Retry
from windlass.client.work_values import CaseInfo, SubmissionInfo

if TYPE_CHECKING:
    from rich.console import RenderableType

_PATIENCE = Retry(limit=120.0)
"""How long a server that went away is waited for while a submission is watched."""
_LONGEST_REMARK = 2_000
_HEADER = ("TASK", "CASE", "VERDICT", "TIME", "MEMORY")
_HEAD_AND_FOOT = 5
"""Lines of the terminal that are not for cases."""

Row = tuple[str, str, str, str, str]


class Board:
    """What is known of a submission while it is judged."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], Row] = {}
        """By task and case, in the order in which they came."""
        self.state = "It waits for a runner."
        self.submission: SubmissionInfo | None = None
        self._begun = False

    def take(self, event: dict[str, Any]) -> str | None:
        """Take what a runner tells; the line that says it, None where there is nothing to say."""
        match event:
            case {"event": "started", "runner": str(runner)}:
                again, self._begun = self._begun, True
                self.rows.clear()  # whoever had it before is gone
                self.state = f"{shown(runner)} compiles it."
                return f"{shown(runner)} {'begins it anew' if again else 'has it'}"
            case {"event": "compiled", "status": str(status)}:
                self.state = f"It does not compile: {status}."
                return None
            case {"event": "compiled"}:
                self.state = "It compiles; its cases are run."
                return None
            case {
                "event": "case",
                "task": int(task),
                "case": int(case),
                "status": str(status),
                "execTime": int() | float() as ms,
                "memoryUsage": int() | float() as kib,
            }:
                self.rows[task, case] = row = _row(task, case, status, ms, kib)
                return _case_line(row)
            case {"event": "given_back", "reason": str(reason)}:
                self.state = "It waits for another runner."
                return f"its runner gave it back: {shown(reason)}"
        return None


def watch(
    client: Client, submission_id: str, labels: Sequence[str] = (), *, quiet: bool = False
) -> SubmissionInfo:
    """Show a submission while it is judged, on a terminal as a live table, else line by line; with `quiet`
    nothing. Returns it once it is done."""
    client.retry = _PATIENCE
    say_if_nobody(client, labels)
    board = Board()
    try:
        with _display(board, quiet) as show:
            for event in client.judge.events(submission_id):
                if event.name == "submission":
                    board.submission = msgspec.convert(event.data, SubmissionInfo)
                elif isinstance(event.data, dict):
                    show(board.take(event.data))
    except KeyboardInterrupt:
        note(f"\nIt is judged all the same: windlass submission show {submission_id}")
        raise
    done = board.submission
    if done is None or not done.done:
        done = client.judge.submission(submission_id)
    if not quiet and not sys.stdout.isatty():
        for row in _rows(done):  # those whose events were lost
            if (int(row[0]), int(row[1])) not in board.rows:
                print(_case_line(row))
    return done


@contextmanager
def _display(board: Board, quiet: bool) -> Iterator[Callable[[str | None], None]]:
    """Gives what is to be called after each event, with the line that says it."""
    if quiet:
        yield lambda _: None
    elif not sys.stdout.isatty():
        yield _print_line
    else:
        from rich.console import Console  # here, as only a terminal needs it and it takes long to import
        from rich.live import Live

        console = Console(highlight=False)
        # It is asked for the table at each refresh, so that the events that come at once cost one drawing.
        with Live(console=console, transient=True, get_renderable=lambda: _live(board, console.height)):
            yield lambda _: None


def _print_line(line: str | None) -> None:
    if line is not None:
        print(line, flush=True)


def _live(board: Board, height: int) -> RenderableType:
    from rich.console import Group
    from rich.spinner import Spinner

    rows = list(board.rows.values())
    room = max(1, height - _HEAD_AND_FOOT)
    counted = f" {len(rows)} cases so far." if rows else ""
    return Group(_table(rows[-room:]), Spinner("dots", f"{board.state}{counted}"))


def _table(rows: Sequence[Row]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(*_HEADER, box=None, pad_edge=False, header_style="bold")
    for task, case, verdict, took, memory in rows:
        style = "green" if verdict == "AC" else "red"
        table.add_row(task, case, Text(verdict, style), took, memory)
    return table


def _row(task: int, case: int, verdict: str, ms: float, kib: float) -> Row:
    return (str(task), str(case), shown(verdict), f"{ms:,.0f} ms", size(kib))


def _rows(submission: SubmissionInfo) -> list[Row]:
    return [
        _row(task.task_id, case.case, case.verdict, case.time_ms, case.memory_kib)
        for task in submission.tasks
        for case in task.cases
    ]


def _case_line(row: Row) -> str:
    return "task {}  case {:<2}  {:<3}  {:>9}  {}".format(*row)


# --- afterwards ---------------------------------------------------------------------------------------


def judged(submission: SubmissionInfo, json: bool) -> None:
    """Print what came of a submission that was watched; ends with 1 unless it was accepted."""
    if json:
        print_json(submission)
    else:
        if sys.stdout.isatty():
            _print_cases(submission)
        for line in verdict_lines(submission):
            print(line)
        note(f"Its id: {submission.submission_id}")
    if submission.verdict != "AC":
        raise typer.Exit(1)


def print_submission(submission: SubmissionInfo) -> None:
    """All of a submission for people."""
    print_fields(
        [
            ("submission", submission.submission_id),
            ("problem", str(submission.problem_id)),
            ("status", submission.status),
            ("job", submission.job_id or "-"),
            ("judged", f"{submission.generation} times" if submission.generation > 1 else "once"),
            ("submitted", time(submission.submitted_at)),
            *([("done", time(submission.judged_at))] if submission.judged_at else []),
        ]
    )
    print()
    if submission.done:
        _print_cases(submission)
        for line in verdict_lines(submission):
            print(line)
    else:
        print(f"It is {submission.status}; windlass jobs --state queued lists what waits.")


def _print_cases(submission: SubmissionInfo) -> None:
    rows = _rows(submission)
    if not rows:
        return
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(_table(rows))
    else:
        print_table(_HEADER, rows)
    print()


def verdict_lines(submission: SubmissionInfo) -> list[str]:
    """The verdict, the score, and why it is not a better one."""
    lines = [f"{submission.verdict}: {submission.score or 0:g} of {submission.max_score:g} points"]
    if len(submission.tasks) > 1:
        lines += [
            f"  task {task.task_id}: {task.verdict}, {task.score:g} of {task.max_score:g}"
            for task in submission.tasks
        ]
    if submission.reason:
        lines.append(shown(submission.reason))
    first = _first_wrong(submission)
    if first is not None:
        task, case = first
        said = shown(case.stderr[:_LONGEST_REMARK], lines=True).rstrip()
        if case.verdict != "CE":
            lines.append(f"The first that was not right: task {task}, case {case.case}: {case.verdict}")
        lines += [said] if said else []
    return lines


def _first_wrong(submission: SubmissionInfo) -> tuple[int, CaseInfo] | None:
    for task in submission.tasks:
        for case in task.cases:
            if case.verdict != "AC":
                return task.task_id, case
    return None
