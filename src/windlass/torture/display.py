"""What a person sees of a storm: a bar while it lasts, and a table at its end."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from windlass.torture.storm import Plan, Report
from windlass.torture.storm import Progress as Step


@contextmanager
def bar(console: Console, plan: Plan) -> Iterator[Callable[[Step], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (
        TextColumn("{task.fields[phase]}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} kills"),
        TextColumn("{task.fields[stored]:,} stored, {task.fields[received]:,} received"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=plan.kills, phase="starting", stored=0, received=0)

        def update(step: Step) -> None:
            progress.update(
                task, completed=step.kills, phase=step.phase, stored=step.stored, received=step.received
            )

        yield update


def show(report: Report) -> None:
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
