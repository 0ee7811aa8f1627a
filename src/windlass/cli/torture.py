"""windlass torture: kill a real server again and again under load, and check every promise."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from windlass.torture import Plan, Report, Server, Storm
from windlass.torture import Progress as Step


def torture(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="A directory on the disk to test; a new folder is made in it. [default: a temporary one]"
        ),
    ] = None,
    kills: Annotated[int, typer.Option(min=1, help="How many times the server is killed.")] = 20,
    seed: Annotated[
        int | None, typer.Option(help="Repeat the choices of an earlier run. [default: a new one, printed]")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="No more kills after so many seconds. [default: no limit]")
    ] = None,
    senders: Annotated[int, typer.Option(min=1, help="Clients that send.")] = 8,
    consumers: Annotated[int, typer.Option(min=4, help="Clients that receive.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Kill a real server with SIGKILL again and again, under load, and check that it keeps its promises.

    The exit status is 0 when every promise was kept and 1 when not; the data and the log are then left for
    you to look at.
    """
    plan = Plan(seed=random.randrange(2**32) if seed is None else seed, kills=kills, seconds=seconds,
                senders=senders, consumers=consumers)  # fmt: skip
    console = Console(stderr=True)
    try:
        if data_dir is not None:
            data_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="windlass-torture-", dir=data_dir))
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--data-dir") from None
    console.print(f"seed {plan.seed}, data in {folder}")
    with _display(console, plan) as show:
        report = asyncio.run(_run(plan, folder, show))
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    else:
        _print(report)
    if report.passed:
        shutil.rmtree(folder, ignore_errors=True)
        return
    console.print(f"the data and the server's log are kept in {folder}")
    raise typer.Exit(1)


async def _run(plan: Plan, folder: Path, show: Callable[[Step], None]) -> Report:
    return await Storm(plan, Server(folder / "data", folder), show).run()


@contextmanager
def _display(console: Console, plan: Plan) -> Iterator[Callable[[Step], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (
        TextColumn("{task.fields[phase]}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} kills"),
        TextColumn("{task.fields[stored]:,} stored, {task.fields[received]:,} received"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=plan.kills, phase="starting", stored=0, received=0)

        def show(step: Step) -> None:
            bar.update(
                task, completed=step.kills, phase=step.phase, stored=step.stored, received=step.received
            )

        yield show


def _print(report: Report) -> None:
    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    starts = report.ready_seconds or [0.0]
    for value, what in (
        (f"{report.kills}", f"kills in {report.seconds:.1f} s"),
        (f"{statistics.median(starts):.2f} s", f"until ready again (median; at most {max(starts):.2f} s)"),
        (f"{report.stored:,}", "messages acknowledged as sent"),
        (f"{report.received:,}", "messages received"),
        (f"{report.acknowledged:,}", "messages acknowledged as consumed"),
        (f"{report.unanswered_sends}", f"sends cut off ({report.retried_sends} tried again)"),
        (f"{report.unanswered_receives}", f"plain receives cut off by a kill ({report.gone} messages gone)"),
    ):
        table.add_row(value, what)
    console.print(table)
    if report.passed:
        console.print("\n[green]Every promise was kept.[/green]")
        return
    console.print(f"\n[red]{len(report.violations)} broken promises[/red] (seed {report.seed}):")
    for violation in report.violations:
        console.print(f"  {violation}", markup=False, highlight=False, soft_wrap=True)
