"""What a person sees of an attack: bars while it lasts, then a chart and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from windlass.attack.assault import Plan
from windlass.attack.report import Report, Tally

SOURCES = {
    "bloom_filter": "filter",
    "negative_cache": "negative",
    "cache": "cache",
    "database": "database",
}
LABELS = {
    "unguarded": "behind nothing (computed: one for each look-up)",
    "without_key": "behind a filter without a key (computed: crafted ids pass it)",
    "guarded": "behind Windlass's guard (measured by /metrics)",
}
"""What the fields of Rates are called in charts."""
_COLOURS = {"unguarded": "red", "without_key": "yellow", "guarded": "cyan"}  # known to plotext and rich
_WIDEST, _HEIGHT = 120, 18


@contextmanager
def crafting(console: Console, wanted: int) -> Iterator[Callable[[int], None]]:
    """A bar for the ids that are being crafted, on a terminal alone."""
    columns = (
        TextColumn("crafting ids"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=wanted)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def attacking(console: Console, plan: Plan) -> Iterator[Callable[[Report], None]]:
    """A bar for the attack, with what is going on at the moment."""
    columns = (
        TextColumn("attacking"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=plan.seconds, now="")

        def update(report: Report) -> None:
            now = ""
            if len(report.samples) > 1:
                *_, rates = report.rates()
                now = f"{rates.unguarded:,.0f} look-ups/s, {rates.guarded:,.0f} of them reach the database"
            progress.update(task, completed=min(report.seconds, plan.seconds), now=now)

        yield update


def chart(report: Report, *, width: int, colour: bool) -> str:
    """The round trips a second over time, for a terminal. Raises ImportError where plotext has no binary."""
    import plotext

    rates = list(report.rates())
    seconds = [each.at for each in rates]
    figure = plotext.figure.clear()
    figure.theme("simple").title("database round trips a second").label("seconds").plot_size(width, _HEIGHT)
    for name in LABELS:
        marker = plotext.marker("hd", _COLOURS[name])
        signal = figure.signal(seconds, [getattr(each, name) for each in rates], marker=marker)
        signal.lines()
        figure.draw(signal)
    top = max(1.0, *(each.unguarded for each in rates))
    ticks = [0, round(top / 2), round(top)]
    figure.ruler("y").lim(0, 1.05 * top).ticks(ticks, [f"{tick:,}" for tick in ticks])
    text: str = figure.build().string(not colour)
    return text


def show(report: Report) -> None:
    """Chart, table, and what they come to, on standard output."""
    console = Console(highlight=False)
    try:
        print(chart(report, width=min(console.width, _WIDEST), colour=console.is_terminal))
        for place, (name, label) in zip(("from above:", "", ""), LABELS.items(), strict=True):
            console.print(f"{place:>11} [{_COLOURS[name]}]▬[/] {label}")
    except ImportError as error:
        console.print(f"There is no chart: {error}\n", markup=False)
    console.print(_table(report))
    console.print()
    passed = report.kinds["crafted"]
    for value, what in (
        (
            f"{report.requests:,}",
            f"look-ups in {report.seconds:.1f} s: as many round trips with nothing in front",
        ),
        (f"{report.without_key:,}", "round trips behind a filter without a key (computed)"),
        (f"{report.roundtrips:,}", "round trips that were made (measured by /metrics)"),
        (f"{report.reduction:.1%}", "saved"),
    ):
        console.print(f"{value:>10}  {what}")
    if passed.sources:
        let_through = sum(passed.sources.values()) - passed.sources["bloom_filter"]
        console.print(
            f"{let_through:>10,}  crafted ids of {sum(passed.sources.values()):,} passed the filter"
        )


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ids")
    for heading in ("look-ups", *SOURCES.values(), "failed", "p50", "p99"):
        table.add_column(heading, justify="right")
    for kind, tally in report.kinds.items():
        table.add_row(kind, *_row(tally))
    return table


def _row(tally: Tally) -> Iterator[str]:
    yield f"{len(tally.seconds):,}"
    for source in SOURCES:
        yield f"{tally.sources[source]:,}"
    yield f"{tally.failures.total():,}"
    for share in (0.5, 0.99):
        took = tally.milliseconds(share)
        yield "-" if took is None else f"{took:.1f} ms"
