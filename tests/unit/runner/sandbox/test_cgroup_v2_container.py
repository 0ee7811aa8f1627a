"""Control groups, version 2, where the runner is process 1 of a container: on files that stand for them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from windlass.runner.sandbox import cgroup_v2
from windlass.runner.sandbox.cgroup import Mount
from windlass.runner.sandbox.cgroup_v2 import GroupsV2, open_v2


class Kernel:
    """A group as a container has it: limits below it are refused as long as there are processes in it."""

    def __init__(self, root: Path, processes: list[int]) -> None:
        self.root = root
        self.processes = processes
        self.moved: list[int] = []
        (root / "cgroup.controllers").write_text("cpu memory pids\n")
        (root / "cgroup.type").write_text("domain\n")
        (root / "cgroup.subtree_control").write_text("\n")
        self._tell()

    def _tell(self) -> None:
        left = [process for process in self.processes if process not in self.moved]
        (self.root / "cgroup.procs").write_text("".join(f"{process}\n" for process in left))

    def write(self, path: Path, value: str) -> None:
        if path.name == "cgroup.procs":
            self.moved.append(int(value))
            self._tell()
        elif path == self.root / "cgroup.subtree_control" and set(self.processes) - set(self.moved):
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        else:
            path.write_text(value.replace("+", ""))


def opened(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, *, parent: int) -> object:
    monkeypatch.setattr(cgroup_v2, "write", kernel.write)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    return open_v2([Mount(kernel.root, "/", 2, frozenset())], {"": "/"})


def test_process_1_and_its_child_move_out_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: only a group with nobody but this process counts as ours, so no container ever has limits."""
    kernel = Kernel(tmp_path, [1, os.getpid()])
    assert isinstance(opened(kernel, monkeypatch, parent=1), GroupsV2)
    assert sorted(kernel.moved) == [1, os.getpid()]


def test_others_are_not_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: whoever is in the group is moved."""
    for processes, parent in ([1, os.getpid(), 4_000_000], 1), ([1, os.getpid()], os.getpid() - 1):
        kernel = Kernel(tmp_path, processes)
        groups = opened(kernel, monkeypatch, parent=parent)
        assert not isinstance(groups, GroupsV2)
        assert kernel.moved == []
