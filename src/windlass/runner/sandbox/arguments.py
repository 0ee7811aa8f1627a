"""What bubblewrap is told: what a box sees of the host, and what it does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from windlass.runner.sandbox.base import PLACE

TEMPORARY = ".tmp"
"""Below PLACE; /tmp leads there, so that one limit holds for both."""
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": PLACE,
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
}
_PAGE = 4096
_USER = "1000"
"""Inside; what it is outside nobody there can tell."""
_TOP = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_OF_ETC = ("/etc/alternatives", "/etc/ld.so.cache")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}


class Layout(msgspec.Struct, frozen=True):
    """What of it this host allows."""

    nesting_disabled: bool = True
    """By the kernel's own limit, besides the filter of system calls."""
    proc: bool = True
    expose: tuple[Path, ...] = ()
    """Further directories of the host that every box may read."""


class Copy(msgspec.Struct, frozen=True):
    """A file that is copied into the box."""

    name: str
    descriptor: int
    size: int


def host_arguments(layout: Layout, root: Path = Path("/")) -> list[str]:
    """The part that is the same for all boxes on this host: namespaces, and what is seen of the host."""
    found = [
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        "--unshare-cgroup-try",
        *("--uid", _USER, "--gid", _USER, "--hostname", "box"),
        # No --die-with-parent: see shim.c, which ends with the runner once bubblewrap has made the box.
        "--as-pid-1",
        *("--ro-bind", "/usr", "/usr"),
    ]
    if layout.nesting_disabled:
        found.append("--disable-userns")
    for name in _TOP:
        path = root / name
        if path.is_symlink():
            found += ("--symlink", str(path.readlink()).removeprefix("/"), f"/{name}")
        elif path.is_dir():
            found += ("--ro-bind", f"/{name}", f"/{name}")
    for seen in (*_OF_ETC, *map(str, layout.expose)):
        found += ("--ro-bind-try", seen, seen)
    if layout.proc:
        found += ("--proc", "/proc")
    # Not --dev: that has a /dev/shm of half the memory, and terminals.
    for device in _DEVICES:
        found += ("--dev-bind", f"/dev/{device}", f"/dev/{device}")
    for name, end in _LINKS.items():
        found += ("--symlink", f"/proc/self/fd{end}", f"/dev/{name}")
    return found


def box_arguments(files: Iterable[Copy], writable_bytes: int, seccomp: int | None) -> list[str]:
    """The part that is this box's own: its files, the size of its tmpfs, the filter's descriptor."""
    copies = list(files)
    held = sum(-(-copy.size // _PAGE) * _PAGE for copy in copies)
    size = max(held + writable_bytes, _PAGE)  # 0 would be no limit
    found = ["--size", str(size), "--tmpfs", PLACE, "--perms", "0755", "--dir", f"{PLACE}/{TEMPORARY}"]
    for copy in copies:
        found += ("--perms", "0555", "--file", str(copy.descriptor), f"{PLACE}/{copy.name}")
    found += ("--symlink", f"{PLACE.removeprefix('/')}/{TEMPORARY}", "/tmp")
    found += ("--remount-ro", "/", "--chdir", PLACE)
    if seccomp is not None:
        found += ("--seccomp", str(seccomp))
    return found


def joined(words: Sequence[str | bytes]) -> bytes:
    """Words as bubblewrap and the shim read them from a descriptor: each ends with a NUL."""
    return b"".join((word if isinstance(word, bytes) else word.encode(errors="surrogateescape")) + b"\0"
                    for word in words)  # fmt: skip
