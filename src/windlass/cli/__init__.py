"""The one program: windlass."""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from windlass import __version__

_MODULES = (
    "serve", "runner", "key", "send", "receive", "status", "queue", "problem", "submit", "submission", "jobs",
    "job", "runners", "products", "store", "torture", "doctor",
)  # fmt: skip
"""Each has the function of one command, or an `app` of several, under its own name."""


class _Commands(UserDict[str, Any]):
    """The commands by name. A module is imported when it is asked for: the others are a tenth of a start."""

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            self.data[name] = _command(name)
        return self.data[name]


class _Program(TyperGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands(dict.fromkeys(_MODULES))


def _command(name: str) -> Any:
    module = import_module(f"windlass.cli.{name}")
    alone = typer.Typer(rich_markup_mode=None)
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=name)
    else:
        alone.command()(getattr(module, name))
    return typer.main.get_group(alone).commands[name]


app = typer.Typer(
    name="windlass",
    cls=_Program,
    help="A self-hosted work server: durable queues over plain HTTP and SQS, jobs for runners, a judge,"
    " products behind a guard.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"windlass {__version__}")
        raise typer.Exit


@app.callback()
def _windlass(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """A self-hosted work server: durable queues over plain HTTP and SQS."""


def main() -> None:
    """Run the program; the exit status is 0, 1 for a failure, 2 for a wrong command line."""
    app()
