"""Control groups as the kernel describes them, on a directory that plays the kernel's part."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from windlass.runner.sandbox import cgroup, cgroup_v2
from windlass.runner.sandbox.cgroup import Mount, Peak, memberships, mounts, place
from windlass.runner.sandbox.cgroup_v1 import GroupsV1
from windlass.runner.sandbox.cgroup_v2 import open_v2

HYBRID = r"""
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 0:25 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw
31 30 0:26 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/with\040space rw - cgroup cgroup rw,memory
33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
""".strip()


def test_mounts_are_found_with_their_controllers() -> None:
    found = mounts(HYBRID)
    assert [(str(each.path), each.root, each.version) for each in found] == [
        ("/sys/fs/cgroup/cpu,cpuacct", "/docker/ab", 1),
        ("/sys/fs/cgroup/with space", "/", 1),
        ("/sys/fs/cgroup/unified", "/", 2),
    ]
    assert {"cpu", "cpuacct"} <= found[0].controllers


def test_memberships_by_controller() -> None:
    text = "4:cpu,cpuacct:/a\n3:name=systemd:/b:c\n0::/d\n"
    assert memberships(text) == {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/b:c", "": "/d"}


def test_our_place_is_below_the_mount_if_it_is_seen_there(tmp_path: Path) -> None:
    """In a container the path is the host's, and the mount shows only a part of the hierarchy."""
    (tmp_path / "unit").mkdir()
    mount = Mount(tmp_path, "/", 2, frozenset())
    assert place(mount, "/unit") == tmp_path / "unit"
    assert place(mount, "/elsewhere") == tmp_path
    inside = Mount(tmp_path, "/docker/ab", 1, frozenset())
    assert place(inside, "/docker/ab/unit") == tmp_path / "unit"
    assert place(inside, "/docker/ab") == tmp_path
    assert place(inside, "/docker/abc") == tmp_path


def test_the_peak_leaves_out_the_cache() -> None:
    peak = Peak()
    assert peak.look(now=50, files=30, peak=60) == 30
    assert peak.look(now=100, files=0, peak=100) == 100
    # The cache has grown after the peak: what was seen before stands.
    assert peak.look(now=100, files=95, peak=101) == 100
    assert Peak().look(now=7, files=3) == 4


# --- the kernel's part -------------------------------------------------------------------------------------

FILES = {
    "cgroup.procs": "", "tasks": "", "cgroup.subtree_control": "", "cgroup.controllers": "cpu memory pids",
    "memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "0", "pids.max": "max",
    "memory.limit_in_bytes": "", "memory.memsw.limit_in_bytes": "",
}  # fmt: skip


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose folders have a kernel's files as soon as they are made."""
    make = Path.mkdir

    def mkdir(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        make(self, mode, parents, exist_ok)
        for name, text in FILES.items():
            (self / name).write_text(text)

    root = tmp_path / "cgroup"
    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", lambda self: shutil.rmtree(self))
    root.mkdir()
    return root


def test_version_2_limits_and_measures(kernel: Path) -> None:
    groups = open_v2([Mount(kernel, "/", 2, frozenset())], {"": "/"})
    assert groups.enforces == {"memory", "processes", "cpu"}
    group = groups.make(memory_bytes=4096, processes=7)
    (box,) = group.directories
    assert (box / "memory.max").read_text().startswith("4096")
    assert (box / "pids.max").read_text().startswith("7")
    assert (box / "memory.oom.group").read_text() == "1"
    assert len(group.doors) == 1
    (box / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\n")
    (box / "memory.current").write_text("900\n")
    (box / "memory.peak").write_text("1000\n")
    (box / "memory.stat").write_text("anon 100\nfile 400\nshmem 150\n")
    (box / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    usage = group.usage()
    assert (usage.cpu_ns, usage.memory_bytes, usage.out_of_memory) == (1_500_000, 750, True)
    assert group.remove()
    groups.close()
    assert not list(kernel.glob("windlass-*"))


def test_version_2_moves_out_of_the_way(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with processes may not have limited groups below it: its only process moves into a leaf."""
    (kernel / "cgroup.procs").write_text(f"{os.getpid()}\n")
    write = cgroup.write
    refused: list[Path] = []

    def busy(path: Path, value: str) -> None:
        if path == kernel / "cgroup.subtree_control" and not refused:
            refused.append(path)
            raise OSError(errno.EBUSY, "Device or resource busy")
        write(path, value)

    monkeypatch.setattr(cgroup_v2, "write", busy)
    groups = open_v2([Mount(kernel, "/", 2, frozenset())], {"": "/"})
    assert groups.enforces
    assert (kernel / "windlass-runner/cgroup.procs").read_text() == str(os.getpid())


def test_version_2_does_not_move_others(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")

    def busy(path: Path, _value: str) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(cgroup_v2, "write", busy)
    groups = open_v2([Mount(kernel, "/", 2, frozenset())], {"": "/"})
    assert set(groups.missing) == {"memory", "processes", "cpu"}
    assert "Delegate" in groups.missing["memory"]
    group = groups.make(memory_bytes=1, processes=1)
    assert (group.doors, group.usage().cpu_ns, group.remove()) == ([], None, True)


def test_version_1_takes_what_is_there(kernel: Path) -> None:
    (kernel / "memory").mkdir()
    (kernel / "pids").mkdir()
    groups = GroupsV1(
        [
            Mount(kernel / "memory", "/", 1, frozenset({"rw", "memory"})),
            Mount(kernel / "pids", "/", 1, frozenset({"rw", "pids"})),
        ],
        {"memory": "/", "pids": "/"},
    )
    assert groups.enforces == {"memory", "processes"}
    assert "cpuacct is not mounted" in groups.missing["cpu"]
    group = groups.make(memory_bytes=8192, processes=3)
    memory, pids = group.directories
    assert (memory / "memory.limit_in_bytes").read_text() == "8192"
    assert (pids / "pids.max").read_text().startswith("3")
    (memory / "memory.usage_in_bytes").write_text("900\n")
    (memory / "memory.max_usage_in_bytes").write_text("1000\n")
    (memory / "memory.stat").write_text("cache 1\ntotal_cache 400\ntotal_shmem 150\n")
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    usage = group.usage()
    assert (usage.cpu_ns, usage.memory_bytes, usage.out_of_memory) == (None, 750, True)
    assert group.remove()
    groups.close()


def test_sweeping_takes_only_what_nobody_has(kernel: Path) -> None:
    alive, gone = kernel / f"windlass-{os.getpid()}-0123abcd", kernel / "windlass-99999999-0123abcd"
    other = kernel / "windlass-runner"
    for directory in (alive, gone, gone / "1", other):
        directory.mkdir()
    cgroup.sweep(kernel)
    assert (alive.exists(), gone.exists(), other.exists()) == (True, False, True)
