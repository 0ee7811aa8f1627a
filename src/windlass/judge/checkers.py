"""Checkers: whether an output is the one that was expected. They run outside every box, on bytes alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from itertools import zip_longest

import msgspec

from windlass.errors import Invalid

_SHOWN = 40
_TOKEN = re.compile(rb"\S+")
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?\Z")
_LONGEST_NUMBER = 400
"""Bytes; what is longer is compared as text."""
_SPACE = b" \t\r\n\v\f"


class Checked(msgspec.Struct, frozen=True):
    """What a checker says."""

    accepted: bool
    reason: str = ""
    """Where the first difference is, for people; never the whole of what was expected."""


Checker = Callable[[bytes, bytes], Checked]
"""(output, expected) -> Checked"""


def checker_of(name: str) -> Checker:
    """The checker called `name`: "" or "lines", "exact", "tokens", "floats" or "floats:1e-9".

    Raises Invalid for any other.
    """
    if name.startswith("floats:"):
        return _floats(_tolerance(name.removeprefix("floats:")))
    try:
        return _CHECKERS[name]
    except KeyError:
        raise Invalid(
            f"There is no checker {name[:_SHOWN]!r}: use lines, exact, tokens, or floats:TOLERANCE.",
            field="checker",
        ) from None


def exact(output: bytes, expected: bytes) -> Checked:
    """Byte for byte."""
    if output == expected:
        return Checked(True)
    at = next((n for n, (one, other) in enumerate(zip(output, expected, strict=False)) if one != other), None)
    return Checked(False, f"differs at byte {min(len(output), len(expected)) if at is None else at}")


def lines(output: bytes, expected: bytes) -> Checked:
    """Line for line; white space at the end of a line, and empty lines at the end, do not count."""
    pairs = zip_longest(_lines(output), _lines(expected))
    for number, (one, other) in enumerate(pairs, 1):
        if one != other:
            return Checked(False, _difference(f"line {number}", one, other))
    return Checked(True)


def tokens(output: bytes, expected: bytes) -> Checked:
    """Word for word, whatever white space is between them."""
    return _compare(output, expected, lambda one, other: one == other)


def _floats(tolerance: float) -> Checker:
    def floats(output: bytes, expected: bytes) -> Checked:
        """Word for word; numbers may differ by the tolerance, absolutely or relative to what is expected."""
        return _compare(output, expected, lambda one, other: one == other or _near(one, other, tolerance))

    return floats


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # NaN is not
        raise Invalid("The tolerance of floats is a number from 0 to 1, as in floats:1e-6.", field="checker")
    return value


def _near(one: bytes, other: bytes, tolerance: float) -> bool:
    if max(len(one), len(other)) > _LONGEST_NUMBER or not (_NUMBER.match(one) and _NUMBER.match(other)):
        return False
    given, wanted = float(one), float(other)
    if not (math.isfinite(given) and math.isfinite(wanted)):
        return False
    return abs(given - wanted) <= tolerance * max(1.0, abs(wanted))


def _lines(text: bytes) -> Iterator[bytes]:
    """The lines without white space at their ends, and without empty ones at the end of all."""
    start, end = 0, len(text.rstrip(_SPACE))
    while start < end:
        stop = text.find(b"\n", start, end)
        stop = end if stop < 0 else stop
        yield text[start:stop].rstrip(_SPACE)
        start = stop + 1


def _compare(output: bytes, expected: bytes, same: Callable[[bytes, bytes], bool]) -> Checked:
    pairs = zip_longest(
        _TOKEN.finditer(output), _TOKEN.finditer(expected)
    )  # one by one: there may be millions
    for number, (one, other) in enumerate(pairs, 1):
        given, wanted = one and one.group(), other and other.group()
        if given is None or wanted is None or not same(given, wanted):
            return Checked(False, _difference(f"word {number}", given, wanted))
    return Checked(True)


def _difference(where: str, given: bytes | None, wanted: bytes | None) -> str:
    if given is None:
        return f"{where} is missing"
    if wanted is None:
        return f"{where} is one too many"
    return f"{where} is {_shown(given)}, not {_shown(wanted)}"


def _shown(text: bytes) -> str:
    cut = text[:_SHOWN].decode("utf-8", "replace")
    return repr(cut + ("..." if len(text) > _SHOWN else ""))


_CHECKERS: dict[str, Checker] = {
    "": lines,
    "lines": lines,
    "exact": exact,
    "tokens": tokens,
    "floats": _floats(1e-6),
}
