"""The processes of a box, one by one: what they use where there are no control groups, and their end.

What is looked up so can miss some.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from windlass.runner.sandbox.cgroup import Peak, Usage, read

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_KIB = 1024
_PROC = Path("/proc")


def children(process: int, proc: Path = _PROC) -> list[int]:
    """The children of all threads of a process; none where the kernel does not tell."""
    return [
        int(child)
        for file in (proc / str(process) / "task").glob("*/children")
        for child in read(file).split()
    ]


class Descendants:
    """The processes below bubblewrap and the shim. One that has gone without being waited for is missed."""

    def __init__(self, bubblewrap: int, proc: Path = _PROC) -> None:
        self._proc = proc
        self._bubblewrap = bubblewrap
        self._cpu_ns = 0
        self._peak = Peak()

    def usage(self) -> Usage:
        """What was seen until now; it stays when they have gone."""
        cpu, memory = 0, 0
        for depth, process in self._below():
            own, children, anonymous = self._look(process)
            if depth > 1:  # what the shim uses is not the program's; what it has waited for is
                cpu += own
                memory += anonymous
            cpu += children
        self._cpu_ns = max(self._cpu_ns, cpu)
        return Usage(self._cpu_ns, self._peak.look(memory, 0))

    def _below(self) -> Iterator[tuple[int, int]]:
        """Depth and id of all processes below bubblewrap; the shim is at depth 1."""
        left = [(0, self._bubblewrap)]
        while left:
            depth, process = left.pop()
            if depth:
                yield depth, process
            left.extend((depth + 1, child) for child in children(process, self._proc))

    def _look(self, process: int) -> tuple[int, int, int]:
        """Nanoseconds of its own and of the children it waited for, and bytes that are no file's."""
        stat = read(self._proc / str(process) / "stat").rpartition(")")[2].split()
        if len(stat) < 15:
            return 0, 0, 0
        own, children = (sum(map(int, stat[at : at + 2])) * _TICK_NS for at in (11, 13))
        kib = 0
        for line in read(self._proc / str(process) / "status").splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                kib += int(line.split()[1])
        return own, children, kib * _KIB


def end_all_of(user: int) -> None:
    """End every process of a user that only one box has."""
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == user:
                os.kill(int(process.name), signal.SIGKILL)
