"""Sizes on the command line: 64M, 1.5G, 512K."""

from __future__ import annotations

import re

import typer

_UNITS = {"K": 1, "M": 1024, "G": 1024 * 1024}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG])(?:i?B)?", re.ASCII | re.IGNORECASE)


def parse_kib(text: str) -> int:
    """KiB; BadParameter when it is no size. A unit is asked for: a bare number could mean any."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a size; write 512K, 64M or 1.5G")
    return max(1, round(float(found[1]) * _UNITS[found[2].upper()]))


def size(kib: float) -> str:
    """A size for people: 512 KiB, 64 MiB."""
    value, unit = kib, "KiB"
    for larger in ("MiB", "GiB"):
        if value >= 1024:
            value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
