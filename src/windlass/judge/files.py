"""Files by what is in them: test data and sources, each under its SHA-256, written once and never changed.

A file is there as a whole or not at all, and nothing is removed while somebody may be about to refer to it.
Where they are is the database's business: `DiskFiles` for one server, `StoredFiles` for several.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Self

from sqlalchemy import Connection

from windlass.directory import sync_directory
from windlass.errors import StoreFull, StoreUnavailable

_INCOMING = "incoming"


class Incoming:
    """A file that is being written on this machine; use as a context manager: what is not kept at its end is
    gone."""

    def __init__(self, file: BinaryIO, path: Path | None = None) -> None:
        """`file` can be written and read; without a `path` it has no name, and goes when it is closed."""
        self.path = path
        self.size = 0
        self._hash = sha256()
        self._file = file

    def write(self, data: bytes) -> None:
        """Append. Blocks; raises StoreFull, StoreUnavailable."""
        with refusing():
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self) -> str:
        """All is there; its SHA-256 in hexadecimal. One with a path is on the disk then. Blocks."""
        with refusing():
            self._file.flush()
            if self.path is not None:
                os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def content(self) -> BinaryIO:
        """What was written until `finish`, to be read from its beginning. Whoever reads leaves it open."""
        self._file.seek(0)
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what a full disk still had to take
            self._file.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Files(ABC):
    """What the judge asks of a place for files. Methods block, and may raise StoreFull, StoreUnavailable."""

    @abstractmethod
    def incoming(self) -> Incoming:
        """A file to write to."""

    @abstractmethod
    def keep(self, incoming: Incoming) -> AbstractContextManager[str]:
        """Keep what was written; gives its SHA-256 and holds it to the end of the block."""

    @abstractmethod
    def keep_bytes(self, data: bytes) -> AbstractContextManager[str]:
        """The same for what is in memory."""

    @abstractmethod
    def open(self, digest: str) -> BinaryIO:
        """A file to read from; it stays whole for its reader, whatever is collected. FileNotFoundError."""

    @abstractmethod
    def holding(self, digest: str) -> AbstractContextManager[None]:
        """Have a file that there is stay to the end of the block. Does not block."""

    def refer(self, connection: Connection, digest: str) -> None:  # noqa: B027 - most have nothing to do
        """Part of the transaction that refers to a file: from now on it stays. Raises StoreUnavailable where
        it was collected in spite of being held: whoever held it stood still for too long."""

    @abstractmethod
    def all(self) -> list[str]:
        """The SHA-256 of every file, and the beginning of a collection."""

    @abstractmethod
    def remove(self, digests: Sequence[str]) -> int:
        """Remove those of `digests` that nobody has held since the collection began; how many.

        The caller has made sure, after it began, that nothing refers to them.
        """

    def tidy(self) -> None:  # noqa: B027 - most have nothing to do
        """Remove what others have left unfinished, the end of a collection."""


class DiskFiles(Files):
    """The files below one directory, which only this process writes to.

    Each is written under another name, synced, and renamed.
    """

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
        sync_directory(root.parent)

    def incoming(self) -> Incoming:
        path = self._root / _INCOMING / secrets.token_hex(16)
        with refusing():
            return Incoming(path.open("x+b"), path)

    @contextlib.contextmanager
    def keep(self, incoming: Incoming) -> Iterator[str]:
        assert incoming.path is not None
        digest = incoming.finish()
        with self.holding(digest):
            path = self._path(digest)
            with refusing():
                if not path.exists():
                    if not path.parent.exists():
                        path.parent.mkdir(exist_ok=True, mode=0o700)
                        sync_directory(self._root)
                    incoming.path.replace(path)
                # Also where it was there: another's rename may not be on disk yet.
                sync_directory(path.parent)
            yield digest

    @contextlib.contextmanager
    def keep_bytes(self, data: bytes) -> Iterator[str]:
        with self.incoming() as incoming:
            incoming.write(data)
            with self.keep(incoming) as digest:
                yield digest

    def open(self, digest: str) -> BinaryIO:
        return self._path(digest).open("rb")

    def all(self) -> list[str]:
        with self._lock:
            self._touched = set(self._held)
        return [
            file.name
            for folder in self._root.iterdir()
            if folder.name != _INCOMING
            for file in folder.iterdir()
        ]

    def remove(self, digests: Sequence[str]) -> int:
        removed = 0
        for digest in digests:
            with self._lock:
                if digest not in self._touched:
                    self._path(digest).unlink(missing_ok=True)
                    removed += 1
        return removed

    @contextlib.contextmanager
    def holding(self, digest: str) -> Iterator[None]:
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
def refusing() -> Iterator[None]:
    """Tell of what a disk refuses as we do. Raises StoreFull, StoreUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("The disk is full: the file was not kept.", retry_after=10) from error
        raise StoreUnavailable(f"The file cannot be kept: {error.strerror}.", retry_after=1) from error
