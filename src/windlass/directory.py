"""One process a data directory: a lock that the kernel lets go of when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from windlass.errors import StartError, StoreLocked

LOCK = "windlass.lock"


class DirectoryLock:
    """The data directory, taken for this process. The file names its holder; a clean end empties it."""

    def __init__(self, data_dir: Path) -> None:
        """Take `data_dir`, made if it is not there. Raises StoreLocked, StartError."""
        try:
            if not data_dir.exists():
                data_dir.mkdir(parents=True, mode=0o700)
                sync_directory(data_dir.parent)
            self._file = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"The data directory {data_dir} cannot be used: {error.strerror}."
                " Name another with --data-dir."
            ) from error
        owner = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise StoreLocked(
                f"Another Windlass (process {owner or 'unknown'}) uses the data directory {data_dir}."
                " Stop it first, or name another directory with --data-dir."
            ) from error
        self.killed = bool(owner)
        """True if the last holder did not come to a clean end."""
        with contextlib.suppress(
            OSError
        ):  # a full disk: it is locked all the same, it only cannot tell by whom
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def close(self, *, clean: bool = True) -> None:
        """Let the directory go; `clean`: all that was written is where it belongs."""
        if clean:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
        os.close(self._file)


def sync_directory(path: Path) -> None:
    """Make a directory's entries survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
