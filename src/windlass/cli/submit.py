"""windlass submit: have a program judged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.connect import Json, Key, Server, connect
from windlass.cli.output import note, print_json
from windlass.cli.verdicts import judged, watch
from windlass.client.transport import DEFAULT_URL
from windlass.judge.languages import LANGUAGES, language_of_file

_KNOWN = ", ".join(f"{language.number} {language.name}" for language in LANGUAGES.values())


def submit(
    file: Annotated[
        Path, typer.Argument(metavar="FILE|-", help="The source, or a zip with it; - reads a pipe.")
    ],
    problem: Annotated[
        int, typer.Option("--problem", "-p", metavar="ID", min=1, help="The problem's number.")
    ],
    language: Annotated[
        str | None,
        typer.Option(
            "--language", "-l", metavar="N|NAME", help=f"{_KNOWN}.", show_default="by the file's name"
        ),
    ] = None,
    watching: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Show the cases as they are judged, and wait for the verdict."),
    ] = False,
    priority: Annotated[int, typer.Option(metavar="0-9", min=0, max=9, help="9 is judged first.")] = 0,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="LABEL", help="The runner has to offer it; may be repeated."),
    ] = None,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Submit a program to a problem.

    It prints the submission's id and ends; with --watch it shows every case and ends with 0 for AC, 1 for any
    other verdict. Ctrl-C ends the watching, not the judging.

    \b
    Examples:
      windlass submit main.cpp --problem 1 --watch
      windlass submit solution.py -p 1 --language python3 -w --json | jq .score
      windlass submit - --problem 1 --language c11 < main.c
    """
    number = _language(file, language)
    source = _read(file)
    with connect(server, key) as client:
        accepted = client.judge.submit(problem, number, source, priority=priority, labels=label or [])
        if not watching:
            if json:
                print_json(accepted)
            else:
                print(accepted.submission_id)
                note(f"See what comes of it: windlass submission show {accepted.submission_id}")
            return
        done = watch(client, accepted.submission_id, label or [], quiet=json)
        judged(done, json)


def _language(file: Path, named: str | None) -> int:
    if named is None:
        found = language_of_file(file.name)
        if found is None:
            raise typer.BadParameter(
                f"{file.name} does not tell; use one of {_KNOWN}", param_hint="--language"
            )
        return found.number
    for language in LANGUAGES.values():
        if named.lower() in (str(language.number), language.name):
            return language.number
    raise typer.BadParameter(f"{named!r} is none; use one of {_KNOWN}", param_hint="--language")


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
