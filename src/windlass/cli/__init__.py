"""The one program: windlass."""

from __future__ import annotations

from typing import Annotated

import typer

from windlass import __version__
from windlass.cli import key, queue, receive, send, serve, status, torture

app = typer.Typer(
    name="windlass",
    help="A self-hosted work server: durable queues over plain HTTP.",
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
    """A self-hosted work server: durable queues over plain HTTP."""


app.command()(serve.serve)
app.add_typer(key.app, name="key")
app.command()(send.send)
app.command()(receive.receive)
app.command()(status.status)
app.add_typer(queue.app, name="queue")
app.command()(torture.torture)


def main() -> None:
    """Run the program; the exit status is 0, 1 for a failure, 2 for a wrong command line."""
    app()
