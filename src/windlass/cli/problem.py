"""windlass problem: problems of the judge, from directories."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.connect import Json, Key, Server, connect, fail
from windlass.cli.output import note, number, print_fields, print_json, print_table, shown, time
from windlass.cli.queue import Yes, confirm
from windlass.cli.sizes import size
from windlass.client.transport import DEFAULT_URL
from windlass.client.work_values import ProblemInfo
from windlass.errors import Invalid, TooLarge

app = typer.Typer(
    help="Problems of the judge: add them from directories, look at them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_HIGHEST = 2**31 - 1

ProblemId = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=_HIGHEST, help="The problem's number.", show_default=False)
]


@app.command()
def add(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The directory: problem.toml, a statement, data/.")
    ],
    problem_id: Annotated[
        int | None,
        typer.Option(
            "--id",
            metavar="ID",
            min=1,
            max=_HIGHEST,
            help="Its number; a problem that has it is replaced.",
            show_default="the next one",
        ),
    ] = None,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Add a problem from a directory, or replace one with --id.

    The directory has problem.toml (title, checker, and for each of the tasks score, case_count, time_limit in
    ms and memory_limit in KiB), statement.md, data/ with 0101.in and 0101.out for task 1, case 1 and so on,
    and perhaps checker.cpp and interactor.cpp. What else is there stays there.

    Where one is replaced, submissions that wait for a verdict are judged by the new version; those that have
    one keep it until windlass problem rejudge.

    \b
    Examples:
      windlass problem add examples/problems/a-plus-b
      windlass problem add examples/problems/a-plus-b --id 7
    """
    from windlass.judge.package import read_package  # the other commands start faster without

    try:
        meta, testdata = read_package(directory)
    except (Invalid, TooLarge) as error:
        fail(error.detail, "What a problem's directory holds: windlass problem add --help")
    with connect(server, key) as client:
        with _progress(len(testdata)) as sent:
            if problem_id is None:
                problem = client.judge.create_problem(meta, testdata, sent=sent)
            else:
                problem = client.judge.put_problem(problem_id, meta, testdata, sent=sent)
        if json:
            print_json(problem)
            return
        done = "added" if problem.version == 1 else f"replaced, version {problem.version}"
        cases = sum(task.case_count for task in problem.tasks)
        print(f"Problem {problem.problem_id} ({shown(problem.title)}) is {done}: {number(cases)} cases.")
        note(f"Submit to it: windlass submit FILE --problem {problem.problem_id} --watch")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr while it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    # Here, as only a terminal needs them and they take long to import.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)


@app.command("list")
def list_problems(server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """List the problems.

    \b
    Examples:
      windlass problem list
      windlass problem list --json | jq -r '.[].title'
    """
    with connect(server, key) as client:
        found = client.judge.problems()
        if json:
            print_json(found)
        elif not found:
            note("There are no problems. Add one: windlass problem add DIR")
        else:
            print_table(
                ("ID", "TITLE", "POINTS", "VERSION", "CHANGED"),
                [
                    (
                        str(p.problem_id),
                        shown(p.title),
                        f"{p.max_score:g}",
                        str(p.version),
                        time(p.updated_at),
                    )
                    for p in found
                ],
            )


@app.command()
def show(problem_id: ProblemId, server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Show a problem: its limits, points and statement.

    \b
    Examples:
      windlass problem show 1
      windlass problem show 1 --json | jq -r .statement
    """
    with connect(server, key) as client:
        problem = client.judge.problem(problem_id)
        if json:
            print_json(problem)
            return
        print_fields(_fields(problem))
        print()
        print_table(
            ("TASK", "POINTS", "SCORING", "CASES", "TIME", "MEMORY"),
            [
                (
                    str(place),
                    f"{task.score:g}",
                    task.scoring,
                    str(task.case_count),
                    f"{task.time_limit:,} ms",
                    size(task.memory_limit),
                )
                for place, task in enumerate(problem.tasks, 1)
            ],
        )
        if problem.statement.strip():
            print(f"\n{shown(problem.statement.strip(), lines=True)}")


def _fields(problem: ProblemInfo) -> list[tuple[str, str]]:
    return [
        ("problem", str(problem.problem_id)),
        ("title", shown(problem.title)),
        ("points", f"{problem.max_score:g}"),
        ("checker", shown(problem.checker) or "lines"),
        *([("interactor", problem.interactor)] if problem.interactor else []),
        ("version", str(problem.version)),
        ("changed", time(problem.updated_at)),
        ("test data", f"{size(problem.testdata_size / 1024)}, {problem.checksum[:16]}"),
    ]


@app.command()
def remove(
    problem_id: ProblemId, yes: Yes = False, server: Server = DEFAULT_URL, key: Key = None, json: Json = False
) -> None:
    """Remove a problem. Its submissions stay; those that wait for a verdict end as JE.

    \b
    Examples:
      windlass problem remove 7
      windlass problem remove 7 --yes
    """
    with connect(server, key) as client:
        confirm(yes, f"Remove problem {problem_id} and its test data?")
        client.judge.delete_problem(problem_id)
        if json:
            print_json({"removed": problem_id})
        else:
            print(f"Problem {problem_id} is removed.")


@app.command()
def rejudge(
    problem_id: ProblemId, yes: Yes = False, server: Server = DEFAULT_URL, key: Key = None, json: Json = False
) -> None:
    """Judge all submissions of a problem again, by the problem as it is now.

    \b
    Examples:
      windlass problem rejudge 7
      windlass problem rejudge 7 --yes
    """
    with connect(server, key) as client:
        confirm(yes, f"Judge all submissions of problem {problem_id} again? Their verdicts may change.")
        count = client.judge.rejudge_problem(problem_id)
        if json:
            print_json({"submissions": count})
        else:
            print(f"{number(count)} submissions are judged again.")
