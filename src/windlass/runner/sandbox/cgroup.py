"""Control groups: how much all processes of a box may use together, and how much they did.

A box gets a group of its own, and only the program and its children join it, by a descriptor that was opened
here: what bubblewrap itself uses counts for nobody. Source: the kernel's admin-guide/cgroup-v1 and
cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

_OURS = re.compile(r"windlass-(\d+)-[0-9a-f]{8}\Z")
_CHUNK = 2**16


class Usage(msgspec.Struct, frozen=True):
    """What the processes of a group have used; None where it is not measured."""

    cpu_ns: int | None = None
    memory_bytes: int | None = None
    """The most at one time, without what the kernel keeps of files only to be faster (the page cache)."""
    out_of_memory: bool = False


class Group(ABC):
    """One box's group, in one directory for each hierarchy."""

    def __init__(self, directories: Iterable[Path], door: str) -> None:
        self.directories = list(directories)
        self.doors: list[int] = []
        """Descriptors: who writes "0" to all of them is in."""
        try:
            for directory in self.directories:
                directory.mkdir(parents=True)
            self.doors.extend(os.open(at / door, os.O_WRONLY | os.O_CLOEXEC) for at in self.directories)
        except OSError:
            self.remove()
            raise

    @abstractmethod
    def usage(self) -> Usage:
        """What was used until now. The peak is the better the more often this is called."""

    def processes(self) -> set[int]:
        found: set[int] = set()
        for directory in self.directories:
            found.update(map(int, read(directory / "cgroup.procs").split()))
        return found

    def kill(self) -> None:
        """End every process in the group, now. Not needed where its namespace's first process was ended."""
        for process in self.processes():
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)

    def shut(self) -> None:
        """Close the doors: nobody joins from now on."""
        while self.doors:
            os.close(self.doors.pop())

    def remove(self) -> bool:
        """Remove the group; False while there are processes in it."""
        self.shut()
        self.directories = [each for each in self.directories if not _removed(each)]
        return not self.directories


class Groups(ABC):
    """Makes groups below the place where this process may."""

    enforces: frozenset[str] = frozenset()
    """Of ``CHECKS``: memory, processes, cpu."""
    missing: Mapping[str, str] = {}
    """Why the others are not."""

    @abstractmethod
    def make(self, *, memory_bytes: int, processes: int) -> Group:
        """A new, empty group. Raises OSError."""

    @abstractmethod
    def close(self) -> None: ...


class NoGroups(Groups):
    """For a host without any that we may write to."""

    def __init__(self, why: str) -> None:
        self.missing = dict.fromkeys(("memory", "processes", "cpu"), why)

    def make(self, *, memory_bytes: int, processes: int) -> Group:  # noqa: ARG002 - the interface
        return _NoGroup((), "")

    def close(self) -> None:
        """There is nothing."""


class _NoGroup(Group):
    def usage(self) -> Usage:
        return Usage()


class Peak:
    """The peak of memory without page cache, from looks at what is used and the kernel's peak, which has it.

    What is left of the cache is taken off the kernel's peak; what was seen in between corrects the case of a
    cache that grew after the peak.
    """

    def __init__(self) -> None:
        self._most = 0

    def look(self, now: int, files: int, peak: int | None = None) -> int:
        """Bytes used now, bytes of them that are cache, and the kernel's own peak if it has one."""
        self._most = max(self._most, now - files)
        return self._most if peak is None else max(self._most, peak - files)


class Mount(msgspec.Struct, frozen=True):
    """One mounted hierarchy."""

    path: Path
    root: str
    """Which part of the hierarchy is seen there."""
    version: int
    controllers: frozenset[str]
    """Empty for version 2, where a file tells them."""


def mounts(mountinfo: str) -> list[Mount]:
    """The hierarchies in the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, path = (_unescape(field) for field in left.split()[3:5])
            version = 2 if kind == "cgroup2" else 1
            controllers = frozenset(options.split(",")) if version == 1 else frozenset[str]()
            found.append(Mount(Path(path), root, version, controllers))
    return found


def memberships(text: str) -> dict[str, str]:
    """/proc/self/cgroup: the path of this process by controller; "" is version 2."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def place(mount: Mount, membership: str) -> Path:
    """The directory of our own group below `mount`; its root where ours is not to be seen there."""
    root = mount.root.rstrip("/")
    if membership == root or membership.startswith(root + "/"):
        own = mount.path / membership.removeprefix(root).lstrip("/")
        if own.is_dir():
            return own
    return mount.path


def new_name() -> str:
    return f"windlass-{os.getpid()}-{secrets.token_hex(4)}"


def sweep(parent: Path) -> None:
    """Remove what processes that are gone have left; nothing is ended, and what is in use stays."""
    for directory in parent.glob("windlass-*"):
        match = _OURS.match(directory.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove_tree(directory)


def remove_tree(directory: Path) -> None:
    """Remove a group of boxes and the boxes; those in use stay."""
    with contextlib.suppress(OSError):
        for box in directory.iterdir():
            if box.is_dir():
                _removed(box)
    _removed(directory)


def read(path: Path) -> str:
    """The text of a small kernel file, "" where it is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(handle, _CHUNK).decode()
    except OSError:
        return ""
    finally:
        os.close(handle)


def read_all(path: Path) -> str:
    """The text of a kernel file of any length, "" where it is not there."""
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def write(path: Path, value: str) -> None:
    """Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def fields(text: str) -> dict[str, int]:
    """Lines of a name and a number each."""
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _unescape(field: str) -> str:
    """Spaces and the like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
