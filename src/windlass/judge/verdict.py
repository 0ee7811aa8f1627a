"""Verdicts: of one run, of a task, of a submission; and the scores that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

NEAR = 0.1
"""A run over its time limit by less than this share is measured again before it counts."""


class Status(StrEnum):
    """What became of a case; the names are those of the wire."""

    ACCEPTED = "AC"
    WRONG_ANSWER = "WA"
    COMPILE_ERROR = "CE"
    TIME_LIMIT = "TLE"
    MEMORY_LIMIT = "MLE"
    RUNTIME_ERROR = "RE"
    OUTPUT_LIMIT = "OLE"
    JUDGE_ERROR = "JE"


# The worst first: what a task, or a submission, is called by when its cases differ.
_WORST = (
    Status.JUDGE_ERROR,
    Status.COMPILE_ERROR,
    Status.RUNTIME_ERROR,
    Status.OUTPUT_LIMIT,
    Status.MEMORY_LIMIT,
    Status.TIME_LIMIT,
    Status.WRONG_ANSWER,
    Status.ACCEPTED,
)


class Limits(msgspec.Struct, frozen=True):
    """What one run may use."""

    time_ms: int
    """Processor time of all processes together."""
    memory_kib: int
    wall_ms: int
    """For programs that sleep, or wait for what never comes."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox saw of one run."""

    exit_code: int | None = None
    signal: int | None = None
    """The signal that ended it; None where it ended by itself."""
    time_ms: int = 0
    wall_ms: int = 0
    memory_kib: int = 0
    out_of_memory: bool = False
    """The kernel refused it memory, or ended it for want of it."""
    output_exceeded: bool = False
    fault: str | None = None
    """Why the sandbox itself could not do its work."""


def of_run(run: Run, limits: Limits) -> Status | None:
    """The verdict of a run before anybody has looked at its output; None: a checker has to.

    The order matters: a program that is ended for its time dies by a signal, and one that is refused memory
    often crashes.
    """
    if run.fault is not None:
        return Status.JUDGE_ERROR
    if run.time_ms > limits.time_ms or run.wall_ms > limits.wall_ms:
        return Status.TIME_LIMIT
    if run.out_of_memory or run.memory_kib > limits.memory_kib:
        return Status.MEMORY_LIMIT
    if run.output_exceeded:
        return Status.OUTPUT_LIMIT
    if run.signal is not None or run.exit_code != 0:
        return Status.RUNTIME_ERROR
    return None


def again(run: Run, limits: Limits) -> bool:
    """True where a run missed its time limit by so little that it has to be measured once more."""
    return limits.time_ms < run.time_ms <= limits.time_ms * (1 + NEAR) and run.wall_ms <= limits.wall_ms


def worst(statuses: Iterable[Status]) -> Status:
    """What several verdicts come to. Raises ValueError for none: nothing was judged."""
    return min(statuses, key=_WORST.index)


def score(points: float, statuses: Sequence[Status], *, partial: bool) -> float:
    """What a task gives: all of its points or none, or with `partial` a share for each accepted case."""
    if not statuses:
        return 0.0
    accepted = sum(status is Status.ACCEPTED for status in statuses)
    if accepted == len(statuses):
        return points  # not by way of a fraction, which may round
    return points * accepted / len(statuses) if partial else 0.0
