"""The one program: windlass."""

from __future__ import annotations

from typing import Annotated

import typer

from windlass import __version__
from windlass.cli import (
    doctor,
    job,
    jobs,
    key,
    problem,
    products,
    queue,
    receive,
    runner,
    runners,
    send,
    serve,
    status,
    submission,
    submit,
    torture,
)

app = typer.Typer(
    name="windlass",
    help="A self-hosted work server: durable queues over plain HTTP, jobs for runners, a judge,"
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
    """A self-hosted work server: durable queues over plain HTTP."""


app.command()(serve.serve)
app.command()(runner.runner)
app.add_typer(key.app, name="key")
app.command()(send.send)
app.command()(receive.receive)
app.command()(status.status)
app.add_typer(queue.app, name="queue")
app.add_typer(problem.app, name="problem")
app.command()(submit.submit)
app.add_typer(submission.app, name="submission")
app.command()(jobs.jobs)
app.add_typer(job.app, name="job")
app.command()(runners.runners)
app.add_typer(products.app, name="products")
app.command()(torture.torture)
app.command()(doctor.doctor)


def main() -> None:
    """Run the program; the exit status is 0, 1 for a failure, 2 for a wrong command line."""
    app()
