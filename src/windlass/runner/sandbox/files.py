"""What goes into a box from the host, and the one file that comes out."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from windlass.errors import Invalid
from windlass.runner.sandbox.arguments import TEMPORARY, Copy
from windlass.runner.sandbox.base import Command, Fetch
from windlass.runner.sandbox.drain import Descriptors

_SHOWN = 40
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def check(command: Command) -> None:
    """Raises Invalid for what no box could do."""
    if not command.argv or not command.argv[0]:
        raise Invalid("There is no command.", field="argv")
    _check_text("argv", command.argv)
    _check_text("environment", (*command.environment, *command.environment.values()))
    if any(not name or "=" in name for name in command.environment):
        raise Invalid("The name of a variable is empty, or has a = in it.", field="environment")
    limits = command.limits
    if min(limits.time_ms, limits.memory_kib, limits.wall_ms, command.processes) < 1:
        raise Invalid("Limits begin at 1.", field="limits")
    if min(command.output_bytes, command.stderr_bytes, command.writable_bytes) < 0:
        raise Invalid("A number of bytes cannot be below 0.", field="output_bytes")
    for name in (*command.files, *((command.fetch.name,) if command.fetch else ())):
        _check_name(name)


def _check_text(field: str, words: Iterable[str]) -> None:
    for word in words:
        try:
            whole = "\0" not in word and word.encode(errors="surrogateescape") is not None
        except UnicodeEncodeError:
            whole = False
        if not whole:
            raise Invalid(f"{word[:_SHOWN]!r} cannot be given to a program.", field=field)


def _check_name(name: str) -> None:
    _check_text("files", (name,))
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or name == TEMPORARY:
        raise Invalid(f"{name!r} is no path of a file in the box.", field="files")


def copies(files: Mapping[str, bytes | Path], held: Descriptors) -> list[Copy]:
    """Each file as a descriptor to copy from. Raises OSError."""
    found = []
    for name, content in files.items():
        if isinstance(content, bytes):
            found.append(Copy(name, held.memory("file", content), len(content)))
        else:
            descriptor, size = _open(content, held)
            found.append(Copy(name, descriptor, size))
    return found


def read_only(path: Path, held: Descriptors) -> int:
    """A descriptor with the content of `path`, which nobody can change, and which does not tell its path.

    A descriptor of the file itself would do both: /proc/self/fd/0 shows the path, and opens the file anew,
    for writing too where the box has the runner's own user. Raises OSError.
    """
    source, size = _open(path, held)
    copy = held.add(os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    while os.sendfile(copy, source, None, max(size, 1)):
        continue
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    return held.add(os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC))


def _open(path: Path, held: Descriptors) -> tuple[int, int]:
    descriptor = held.add(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "not a regular file", str(path))
    return descriptor, found.st_size


class Fetching:
    """A new file on the host that the box's shim writes to; it stays only if the shim says it is whole."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.descriptor = new_file(fetch.to)

    def end(self, whole: bool) -> Path | None:
        """Close it; its path, or None after it was removed."""
        if self.descriptor >= 0:
            if whole:
                os.fchmod(self.descriptor, 0o755)
            os.close(self.descriptor)
            self.descriptor = -1
            if not whole:
                self._fetch.to.unlink(missing_ok=True)
        return self._fetch.to if whole else None


def new_file(path: Path) -> int:
    """A descriptor to write to a file that was not there; a link is not followed. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
