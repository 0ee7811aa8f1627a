"""Files by what is in them: test data and sources, each under its SHA-256, written once and never changed.

A file is there as a whole or not at all: it is written under another name, synced, and renamed. Nothing is
removed while it is held, or while somebody may be about to refer to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Self

from windlass.errors import StoreFull, StoreUnavailable

_INCOMING = "incoming"


class Incoming:
    """A file that is being written; use as a context manager: what is not kept at its end is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = sha256()
        with _refusing():
            self._file = path.open("xb")

    def write(self, data: bytes) -> None:
        """Append. Blocks; raises StoreFull, StoreUnavailable."""
        with _refusing():
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self) -> str:
        """Bring it to the disk; its SHA-256 in hexadecimal. Blocks."""
        with _refusing():
            if not self._file.closed:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what a full disk still had to take
            self._file.close()
        self.path.unlink(missing_ok=True)


class Files:
    """The files below one directory, which only this process writes to. Methods block."""

    def __init__(self, root: Path) -> None:
        """Open, make where it is not there, and sweep out what an earlier process did not finish."""
        self._root = root
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._touched: set[str] = set()
        """Held at some time since the last collection began."""
        incoming = root / _INCOMING
        incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in incoming.iterdir():
            left.unlink()
        _sync(root.parent)

    def incoming(self) -> Incoming:
        """A file to write to."""
        return Incoming(self._root / _INCOMING / secrets.token_hex(16))

    @contextlib.contextmanager
    def keep(self, incoming: Incoming) -> Iterator[str]:
        """Keep what was written; gives its SHA-256 and holds it to the end of the block."""
        digest = incoming.finish()
        with self.holding(digest):
            path = self._path(digest)
            with _refusing():
                if not path.exists():
                    if not path.parent.exists():
                        path.parent.mkdir(exist_ok=True, mode=0o700)
                        _sync(self._root)
                    incoming.path.replace(path)
                _sync(path.parent)  # also where it was there: another's rename may not be on disk yet
            yield digest

    @contextlib.contextmanager
    def keep_bytes(self, data: bytes) -> Iterator[str]:
        """The same for what is in memory."""
        with self.incoming() as incoming:
            incoming.write(data)
            with self.keep(incoming) as digest:
                yield digest

    def open(self, digest: str) -> BinaryIO:
        """A file to read from; it stays whole for its reader, whatever is collected. FileNotFoundError."""
        return self._path(digest).open("rb")

    def all(self) -> list[str]:
        """The SHA-256 of every file, and the beginning of a collection."""
        with self._lock:
            self._touched = set(self._held)
        return [
            file.name
            for folder in self._root.iterdir()
            if folder.name != _INCOMING
            for file in folder.iterdir()
        ]

    def remove(self, digests: Sequence[str]) -> int:
        """Remove those of `digests` that nobody has held since the collection began; how many.

        The caller has made sure, after it began, that nothing refers to them.
        """
        removed = 0
        for digest in digests:
            with self._lock:
                if digest not in self._touched:
                    self._path(digest).unlink(missing_ok=True)
                    removed += 1
        return removed

    @contextlib.contextmanager
    def holding(self, digest: str) -> Iterator[None]:
        """Have a file that there is stay to the end of the block. Does not block."""
        with self._lock:
            self._held[digest] += 1
            self._touched.add(digest)
        try:
            yield
        finally:
            with self._lock:
                self._touched.add(digest)  # the reference may be younger than the collector's look
                self._held[digest] -= 1
                if not self._held[digest]:
                    del self._held[digest]

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("The disk is full: the file was not kept.", retry_after=10) from error
        raise StoreUnavailable(f"The file cannot be kept: {error.strerror}.", retry_after=1) from error


def _sync(directory: Path) -> None:
    """Make a directory's entries survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
