"""Durations on the command line: 30, 1.5, 30s, 5m, 2h, 7d."""

from __future__ import annotations

import math

import typer

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_seconds(text: str, option: str | None = None) -> float:
    """Seconds; BadParameter, naming the option, when it is not a duration."""
    digits = text.strip().rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text.strip()[len(digits) :].strip() or "s"
    try:
        value = float(digits) * _UNITS[unit]
    except (ValueError, KeyError):
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(
            f"{text!r} is not a duration; write 30, 1.5, 30s, 5m, 2h or 7d", param_hint=option
        )
    return value


def parse_seconds_or_none(text: str, option: str) -> float | None:
    """As `parse_seconds`; the word none gives None."""
    return None if text.strip() == "none" else parse_seconds(text, option)


def parse_count_or_none(text: str, option: str) -> int | None:
    """A whole number, or the word none for None."""
    if text.strip() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor none", param_hint=option) from None
