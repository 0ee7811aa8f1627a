"""docs/reference/cli.md is what the commands say of themselves.

After a change of a command: `python -m tests.unit.cli.test_reference` writes it anew.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import typer

from windlass import cli

REFERENCE = Path(__file__).parents[3] / "docs/reference/cli.md"

COMMANDS = [
    "runner", "send", "receive", "status",
    "queue create", "queue list", "queue show", "queue update", "queue peek",
    "queue purge", "queue redrive", "queue pause", "queue resume", "queue delete",
    "problem add", "problem list", "problem show", "problem remove", "problem rejudge",
    "submit", "submission show", "submission list", "submission rejudge",
    "jobs", "job run", "job show", "job cancel", "runners",
    "products get", "products put", "products delete", "products list", "products import",
    "products export", "products stats", "products rebuild", "products trigger", "products attack",
    "store copy", "doctor",
]  # fmt: skip

HEAD = """\
# Client commands

These speak HTTP to a server; only [`windlass doctor`](#windlass-doctor) looks at the machine it is on, and
takes `--json` alone, [`windlass store copy`](#windlass-store-copy-from-to) at stores, with the same, and
[`windlass products trigger`](#windlass-products-trigger) at nothing.
`windlass runner` takes `--server`. The others take:

- `--server URL`, or `WINDLASS_URL`: the server's address, `http://127.0.0.1:8000` unless told.
- `--key KEY`, or `WINDLASS_KEY`: an [API key](../how-to/api-keys.md).
- `--json`: print JSON, for programs. Messages are one JSON object a line.

`TIME` is a number of seconds, or a number with a unit: `250ms`, `30s`, `5m`, `2h`, `7d`.

Exit status: 0 when it did what was asked, also when there was no message; 1 when it failed, with a line that
says why and one that says what to do; 2 for a wrong command line; 130 after Ctrl-C (0 for `receive --follow`,
where that is the way to end it); 141 when the reader of its output went away. `submit --watch` and
`submission rejudge --watch` end with 0 for AC and 1 for any other verdict, `job run` as its command does.

`windlass queue send` and `windlass queue receive` are the same as `windlass send` and `windlass receive`,
`windlass job list` is the same as `windlass jobs`. How the last ones are used:
[submit programs](../how-to/submit.md), [run commands on other machines](../how-to/jobs.md),
[move a store](../how-to/move.md).
"""


def written() -> str:
    return HEAD + "".join(section(name) for name in COMMANDS)


def section(name: str) -> str:
    command = typer.main.get_command(cli.app)
    context = typer.Context(command, info_name="windlass")
    for word in name.split():
        assert isinstance(command, typer.core.TyperGroup)
        found = command.get_command(context, word)
        assert found is not None, name
        command = found
        context = typer.Context(command, info_name=word, parent=context)
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    _, _, lines = examples.partition("\n")
    words = [param.metavar or "" for param in command.params if param.param_type_name == "argument"]
    table = "".join(row for param in command.params if (row := option(param, context)))
    return (
        f"\n## {' '.join(['windlass', name, *words])}\n\n{text.strip()}\n\n"
        f"```text\n{inspect.cleandoc(lines)}\n```\n"
        + (f"\n| option | |\n|---|---|\n{table}" if table else "")
    )


def option(param: object, context: typer.Context) -> str | None:
    if not isinstance(param, typer.core.TyperOption) or param.name in ("server", "key", "json", "help"):
        return None
    record = param.get_help_record(context)
    assert record is not None
    names, text = (" ".join(part.split()).replace("|", "\\|") for part in record)
    return f"| `{names}` | {text} |\n"


def test_the_reference_is_what_the_commands_say() -> None:
    """Planted defect: an option that was renamed and still stands in the document."""
    assert REFERENCE.read_text() == written()


if __name__ == "__main__":
    REFERENCE.write_text(written())
