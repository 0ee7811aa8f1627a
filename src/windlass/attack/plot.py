"""The picture of an attack, as PNG or SVG, by matplotlib (the extra `plots`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from windlass.attack.display import LABELS
from windlass.attack.report import Report

_METADATA = ("Creator", "Date", "Format", "Type")
"""What an SVG says of itself unless told not to."""
_GROUND, _LINE, _TEXT, _FAINT = "#0e1a2a", "#2f4a68", "#f2f6fa", "#9fb3c8"
_COLOURS = {"unguarded": "#e57f7f", "without_key": "#e9b872", "guarded": "#5fb4e5"}
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",  # words stay words: smaller, and they can be found
    "svg.hashsalt": "windlass",  # the same numbers are the same file
    "text.color": _TEXT,
    "axes.facecolor": _GROUND,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
}


def draw(report: Report, path: Path) -> None:
    """Write the picture; the name's end says what it is. OSError: it cannot be written.

    It brings its own dark ground, so it reads the same on a light page and on a dark one.
    """
    rates = list(report.rates())
    seconds = [each.at for each in rates]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 3.9), facecolor=_GROUND)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        axes = figure.subplots()
        axes.set_title("Database round trips a second", loc="left", fontweight="bold", fontsize=12)
        for name, label in LABELS.items():
            values = [getattr(each, name) for each in rates]
            solid = "-" if name == "guarded" else "--"
            axes.plot(seconds, values, solid, color=_COLOURS[name], linewidth=2, label=label)
            axes.fill_between(seconds, values, color=_COLOURS[name], alpha=0.12, linewidth=0)
        axes.set_xlim(0, report.seconds)
        axes.set_ylim(0, 1.05 * max(1.0, *(each.unguarded for each in rates)))
        axes.set_xlabel(_summary(report))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", color=_LINE, linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(loc="outside lower left", ncols=1, frameon=False, fontsize=9)
        metadata = dict.fromkeys(_METADATA) if path.suffix == ".svg" else None
        figure.savefig(path, format=path.suffix[1:], dpi=150, metadata=metadata)


def _summary(report: Report) -> str:
    parts = ", ".join(f"{len(tally.seconds):,} {kind}" for kind, tally in report.kinds.items())
    return f"seconds; {parts} ids looked up, {report.roundtrips:,} round trips, {report.reduction:.1%} saved"
