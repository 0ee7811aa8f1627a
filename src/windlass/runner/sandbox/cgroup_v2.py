"""Control groups, version 2: one hierarchy, whose inner groups hold no processes."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from windlass.runner.sandbox import cgroup
from windlass.runner.sandbox.cgroup import Group, Groups, Mount, NoGroups, Peak, Usage, fields, read, write

_NEEDED = ("memory", "pids")  # cpu.stat is there without a controller
_LEAF = "windlass-runner"


def open_v2(mounts: Iterable[Mount], memberships: Mapping[str, str]) -> Groups:
    """Groups below our own, or for root without one of its own below the root of all."""
    mount = next((each for each in mounts if each.version == 2), None)
    if mount is None:
        return NoGroups("there are no control groups")
    own = cgroup.place(mount, memberships.get("", "/"))
    parents = [own]
    if os.geteuid() == 0 and own != mount.path and not (mount.path / "cgroup.type").exists():
        parents.append(mount.path)  # the real root: it alone may hold processes beside groups
    why = ""
    for parent in parents:
        try:
            _open_up(parent)
            return GroupsV2(parent)
        except OSError as error:
            why = why or f"{error.filename or parent}: {error.strerror}"
    return NoGroups(f"no control groups of our own ({why}); a systemd unit has them with Delegate=yes")


def _open_up(parent: Path) -> None:
    """Let groups below `parent` have limits. Raises OSError."""
    offered = read(parent / "cgroup.controllers").split()
    for controller in _NEEDED:
        if controller not in offered:
            raise OSError(0, f"the controller {controller} is not offered", str(parent))
    switch = parent / "cgroup.subtree_control"
    if set(_NEEDED) <= set(read(switch).split()):
        return
    wanted = " ".join(f"+{controller}" for controller in _NEEDED)
    try:
        write(switch, wanted)
    except OSError as error:
        # A group with processes may not have limited groups below it. Move out, if it is ours alone.
        inside = set(map(int, read(parent / "cgroup.procs").split()))
        if not inside <= {os.getpid(), os.getppid()} or inside - {os.getpid(), 1}:
            raise OSError(error.errno, "other processes are in the same group", str(parent)) from error
        (parent / _LEAF).mkdir(exist_ok=True)
        for process in inside:  # in a container process 1 is only our herald
            write(parent / _LEAF / "cgroup.procs", str(process))
        write(switch, wanted)


class GroupsV2(Groups):
    enforces = frozenset(("memory", "processes", "cpu"))

    def __init__(self, parent: Path) -> None:
        cgroup.sweep(parent)
        self._base = parent / cgroup.new_name()
        self._numbers = itertools.count(1)
        self._make_base()

    def _make_base(self) -> None:
        self._base.mkdir(exist_ok=True)
        write(self._base / "cgroup.subtree_control", " ".join(f"+{name}" for name in _NEEDED))

    def make(self, *, memory_bytes: int, processes: int) -> Group:
        if not self._base.exists():
            self._make_base()
        group = GroupV2(self._base / str(next(self._numbers)))
        try:
            group.limit(memory_bytes, processes)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> None:
        cgroup.remove_tree(self._base)


class GroupV2(Group):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._peak = Peak()
        super().__init__((path,), "cgroup.procs")

    def limit(self, memory_bytes: int, processes: int) -> None:
        write(self._path / "memory.max", str(memory_bytes))
        write(self._path / "pids.max", str(processes))
        for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
            with contextlib.suppress(OSError):  # without swap, or before Linux 4.19
                write(self._path / name, value)

    def usage(self) -> Usage:
        stat = fields(read(self._path / "memory.stat"))
        files = stat.get("file", 0) - stat.get("shmem", 0)  # a tmpfs is memory, not cache
        peak = read(self._path / "memory.peak")  # since Linux 5.19
        return Usage(
            fields(read(self._path / "cpu.stat")).get("usage_usec", 0) * 1000,
            self._peak.look(
                int(read(self._path / "memory.current") or 0), files, int(peak) if peak.strip() else None
            ),
            fields(read(self._path / "memory.events")).get("oom_kill", 0) > 0,
        )

    def kill(self) -> None:
        try:
            write(self._path / "cgroup.kill", "1")
        except OSError:  # before Linux 5.14
            super().kill()
