"""Figures of one benchmark: every run kept, medians and ratios from these runs alone, one JSON file."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import environment
from bench.processes import raise_file_limit, scratch_directory

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class Options:
    """What a user can choose: see `benchmarks/run.py --help`."""

    rounds: int
    seconds: float
    connections: tuple[int, ...]
    threads: int
    size: int
    waiters: int
    runners: int
    only: tuple[str, ...]
    windlass: Path
    scratch: Path
    out: Path

    def wants(self, name: str) -> bool:
        """Whether `--only` names this part, or names none."""
        return not self.only or name in self.only


@dataclass(frozen=True)
class Run:
    """One measurement of `variant` in `round` (from 1); `value` is in the metric's unit."""

    metric: str
    variant: str
    round: int
    value: float
    details: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """Median and extremes of the runs of one metric and variant."""

    median: float
    lowest: float
    highest: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Ratio:
    """`above` by `below`: of the medians, and the extremes over the rounds, each round a pair.

    `at_most` turns the aim round: the ratio, or the value, is to stay below it.
    """

    name: str
    value: float
    lowest: float
    highest: float
    aim: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.value <= self.aim if self.at_most else self.value >= self.aim


@dataclass
class Result:
    """Collects the runs of the benchmark `name`."""

    name: str
    options: Options
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)

    def add(self, metric: str, variant: str, round_: int, value: float, **details: float) -> None:
        self.runs.append(Run(metric, variant, round_, value, details))
        unit = self.units.get(metric, "/s")
        console.print(f"  round {round_}  {metric:<28} {variant:<30} {value:>12,.1f} {unit}", style="dim")

    def values(self, metric: str, variant: str) -> dict[int, float]:
        """The values by round."""
        return {run.round: run.value for run in self.runs if (run.metric, run.variant) == (metric, variant)}

    def spread(self, metric: str, variant: str) -> Spread:
        return Spread.of(list(self.values(metric, variant).values()))

    def ratio(
        self,
        name: str,
        above: tuple[str, str],
        below: tuple[str, str],
        *,
        aim: float | None = None,
        at_most: bool = False,
    ) -> None:
        """Compare two (metric, variant) pairs; left out where one of them was not measured."""
        top, bottom = self.values(*above), self.values(*below)
        pairs = [top[round_] / bottom[round_] for round_ in sorted(top.keys() & bottom.keys())]
        if pairs:
            value = statistics.median(top.values()) / statistics.median(bottom.values())
            self.ratios.append(Ratio(name, value, min(pairs), max(pairs), aim, at_most))

    def limit(self, name: str, measured: tuple[str, str], *, at_most: float) -> None:
        """An aim for a median itself."""
        if self.values(*measured):
            spread = self.spread(*measured)
            ratio = Ratio(name, spread.median, spread.lowest, spread.highest, at_most, at_most=True)
            self.ratios.append(ratio)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every (metric, variant) in the order of its first run."""
        return iter(dict.fromkeys((run.metric, run.variant) for run in self.runs))

    def show(self) -> None:
        """Print medians, spread and ratios."""
        table = Table(title=f"{self.name}: medians of {self.options.rounds} interleaved rounds")
        for heading in ("metric", "variant"):
            table.add_column(heading)
        for heading in ("median", "min", "max", "unit"):
            table.add_column(heading, justify="right")
        for metric, variant in self.pairs():
            spread = self.spread(metric, variant)
            figures = [_number(value) for value in (spread.median, spread.lowest, spread.highest)]
            table.add_row(metric, variant, *figures, self.units.get(metric, "/s"))
        console.print(table)
        if self.ratios:
            table = Table(title=f"{self.name}: ratios and aims")
            for heading in ("what", "value", "min", "max", "aim", "met"):
                table.add_column(heading, justify="left" if heading == "what" else "right")
            for ratio in self.ratios:
                sign = "<=" if ratio.at_most else ">="
                aim = "" if ratio.aim is None else f"{sign} {_number(ratio.aim)}"
                met = {None: "", True: "yes", False: "NO"}[ratio.met]
                figures = [_number(value) for value in (ratio.value, ratio.lowest, ratio.highest)]
                table.add_row(ratio.name, *figures, aim, met)
            console.print(table)
        for note in self.notes:
            console.print(f"note: {note}")

    def write(self) -> Path:
        """Write `<out>/<name>.json` and return its path."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        path = self.options.out / f"{self.name}.json"
        summary = [
            {
                "metric": metric,
                "variant": variant,
                "unit": self.units.get(metric, "/s"),
                **asdict(self.spread(metric, variant)),
            }
            for metric, variant in self.pairs()
        ]
        document = {
            "benchmark": self.name,
            "settings": self.settings,
            "notes": self.notes,
            "summary": summary,
            "ratios": [{**asdict(ratio), "met": ratio.met} for ratio in self.ratios],
            "runs": [asdict(run) for run in self.runs],
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {path}")
        return path


def begin(name: str, options: Options) -> Result:
    """A result that already tells commit, machine, versions and disk."""
    raise_file_limit()
    with scratch_directory(options.scratch, "probe") as directory:
        disk = environment.disk(directory)
    settings = {
        "commit": environment.commit(),
        "dirty": environment.dirty(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average_before": environment.load_average(),
        "machine": environment.machine(),
        "disk": disk,
        "versions": environment.versions(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": list(options.connections),
        "wrk_threads": options.threads,
    }
    console.print(f"[bold]{name}[/bold]: {options.rounds} rounds of {options.seconds:g} s", highlight=False)
    console.print(f"  {settings['machine']}, {disk}")
    if environment.load_average()[0] > 1:
        console.print(
            f"  warning: others are at work here: load {environment.load_average()[0]:.2f}", style="red"
        )
    return Result(name, options, settings)


def finish(result: Result) -> None:
    result.show()
    result.write()


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}"
