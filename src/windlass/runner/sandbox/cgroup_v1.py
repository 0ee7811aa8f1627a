"""Control groups, version 1: a hierarchy for each controller."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

from windlass.runner.sandbox import cgroup
from windlass.runner.sandbox.cgroup import Group, Groups, Mount, Peak, Usage, fields, read, write

# what is enforced: the controller that does it
CONTROLLERS = {"memory": "memory", "processes": "pids", "cpu": "cpuacct"}


class GroupsV1(Groups):
    """Groups below our own in each hierarchy. Whatever cannot be had is missing, the rest works."""

    def __init__(self, mounts: Iterable[Mount], memberships: Mapping[str, str]) -> None:
        hierarchies = [mount for mount in mounts if mount.version == 1]
        name = cgroup.new_name()
        self._bases: dict[str, Path] = {}
        missing: dict[str, str] = {}
        for check, controller in CONTROLLERS.items():
            mount = next((each for each in hierarchies if controller in each.controllers), None)
            if mount is None:
                missing[check] = f"the cgroup controller {controller} is not mounted"
                continue
            parent = cgroup.place(mount, memberships.get(controller, "/"))
            try:
                cgroup.sweep(parent)
                (parent / name).mkdir(exist_ok=True)  # two controllers may share a hierarchy
            except OSError as error:
                missing[check] = f"{parent} cannot be written to: {error.strerror}"
            else:
                self._bases[controller] = parent / name
        self.enforces = frozenset(CONTROLLERS) - frozenset(missing)
        self.missing = missing
        self._numbers = itertools.count(1)

    def make(self, *, memory_bytes: int, processes: int) -> Group:
        box = str(next(self._numbers))
        group = GroupV1({controller: base / box for controller, base in self._bases.items()})
        try:
            group.limit(memory_bytes, processes)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> None:
        for base in self._bases.values():
            cgroup.remove_tree(base)


class GroupV1(Group):
    def __init__(self, by_controller: Mapping[str, Path]) -> None:
        self._memory = by_controller.get("memory")
        self._pids = by_controller.get("pids")
        self._cpu = by_controller.get("cpuacct")
        self._peak = Peak()
        # The door is "tasks", not "cgroup.procs": for one thread the kernel needs no lock over all of them.
        super().__init__(dict.fromkeys(by_controller.values()), "tasks")

    def limit(self, memory_bytes: int, processes: int) -> None:
        if self._memory is not None:
            write(self._memory / "memory.limit_in_bytes", str(memory_bytes))
            with contextlib.suppress(OSError):  # where swap is not accounted for
                write(self._memory / "memory.memsw.limit_in_bytes", str(memory_bytes))
        if self._pids is not None:
            write(self._pids / "pids.max", str(processes))

    def usage(self) -> Usage:
        cpu = None if self._cpu is None else int(read(self._cpu / "cpuacct.usage") or 0)
        if self._memory is None:
            return Usage(cpu)
        stat = fields(read(self._memory / "memory.stat"))
        now, peak = (
            int(read(self._memory / f"memory.{name}_in_bytes") or 0) for name in ("usage", "max_usage")
        )
        files = stat.get("total_cache", 0) - stat.get("total_shmem", 0)  # a tmpfs is memory, not cache
        killed = fields(read(self._memory / "memory.oom_control")).get("oom_kill", 0)
        return Usage(cpu, self._peak.look(now, files, peak), killed > 0)
