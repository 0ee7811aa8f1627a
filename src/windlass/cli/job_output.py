"""The output of a job on this side: printed as it comes, and made whole at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

KEPT = 64 * 1024
"""Bytes of output in a job's result: its last ones."""
_LETTER = 4
"""Bytes of the longest letter: one that is cut in two is left out."""
_ENOUGH = 256
"""Characters that have to be the same for two pieces to be taken for one."""


class Rest(NamedTuple):
    """What is still to be printed, and whether something before it is missing."""

    text: str
    missing: bool


class Output:
    """What was printed. The events that bring it may be lost; the result's end of it is not."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._tail = ""
        self._whole = True
        """Whether `_tail` is all there was."""

    def add(self, text: str) -> None:
        self._write(text)
        self._tail += text
        if len(self._tail) > 4 * KEPT:
            self._tail = self._tail[-2 * KEPT :]
            self._whole = False

    def miss(self) -> None:
        """Some of it did not come, and nobody knows how much."""
        self._tail, self._whole = "", False

    def begin_anew(self) -> None:
        """Another attempt: what comes is its output from the beginning."""
        self._tail, self._whole = "", True

    def rest(self, final: str) -> Rest:
        """What of `final`, the end of all output, was not printed."""
        if not final or self._tail.endswith(final):
            return Rest("", False)
        if self._whole and len(final.encode()) < KEPT - _LETTER:  # `final` is all there was
            if final.startswith(self._tail):
                return Rest(final[len(self._tail) :], False)
            return Rest(final, True)
        end = self._tail[-_ENOUGH:]
        if len(end) == _ENOUGH:
            if final.endswith(end):  # its beginning may be half a letter, so not all of it is compared
                return Rest("", False)
            at = final.rfind(end)
            if at >= 0:
                return Rest(final[at + _ENOUGH :], False)
        return Rest(final, True)
