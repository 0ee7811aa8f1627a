"""What the shim is told: what it runs, with which descriptors, and the limits of each process."""

from __future__ import annotations

import math
import resource
from collections.abc import Sequence

from windlass.judge.verdict import NEAR
from windlass.runner.sandbox.arguments import ENVIRONMENT, joined
from windlass.runner.sandbox.base import Command

_KIB = 1024
_OPEN_FILES = 1024


def configuration(
    command: Command,
    *,
    status: int,
    standard: tuple[int, int, int],
    fetching: int,
    doors: Sequence[int],
    memory_enforced: bool,
) -> bytes:
    """What the shim reads, in its order.

    Descriptors: `status` is where it tells how it goes, `standard` the program's stdin, stdout and stderr,
    `fetching` where a file goes that is fetched (-1: none is), `doors` those of the box's group.
    `memory_enforced`: the group keeps the limit of memory.
    """
    fetch = command.fetch
    environment = ENVIRONMENT | dict(command.environment)
    limits = _limits(command, memory_enforced=memory_enforced)
    return joined(
        [
            *map(str, (status, *standard)),
            *(fetch.name if fetch else "", str(fetching), str(fetch.max_bytes if fetch else 0)),
            *_listed([str(door) for door in doors]),
            *_listed([str(value) for pair in limits for value in pair]),
            *_listed(command.argv),
            *_listed([f"{name}={value}" for name, value in environment.items()]),
        ]
    )


def _listed(words: Sequence[str]) -> list[str]:
    return [str(len(words)), *words]


def _limits(command: Command, *, memory_enforced: bool) -> list[tuple[int, int]]:
    """Each process's own, besides those of the group."""
    memory = command.limits.memory_kib * _KIB
    found = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, math.ceil(command.limits.time_ms * (1 + NEAR) / 1000) + 1),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_STACK, memory),
        # Its own, and that of bubblewrap and the shim.
        (resource.RLIMIT_NPROC, command.processes + 4),
    ]
    if not memory_enforced:
        # Wide enough for a program to be seen above its limit before it is refused more.
        found.append((resource.RLIMIT_DATA, 2 * memory + 64 * _KIB * _KIB))
    return found
