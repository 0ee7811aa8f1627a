"""Files in PostgreSQL, where every server of the judge reaches them: pieces of 256 KiB, streamed in and out.

Each upload writes a content of its own, of which nobody knows until it is whole; then one statement makes it
the file of its SHA-256, unless there is one by then. So two servers that bring the same file are not in each
other's way, and one that dies leaves a content of no file, which goes an hour later. A file that is collected
becomes such a content, too: whoever reads it has an hour for the rest.

Who brings a file holds it for an hour, in which it is not collected, and refers to it in a later transaction.
That one locks the file's row. The collector takes those rows alone that nobody has locked, and looks only
then whether anything refers to them: so a file goes or is referred to, also where somebody stood still for
more than the hour.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection, Select, delete, insert, select, update

from windlass.database import Database
from windlass.errors import StoreUnavailable
from windlass.judge.files import Files, Incoming, refusing
from windlass.judge.tables import chunks, files, leftovers, now

CHUNK = 256 * 1024
"""Bytes of a piece."""
_SHARED = 16
"""Pieces that share a commit."""
_CLEARED = 256
"""Pieces that are removed in one commit: a statement has seconds."""
_HOUR = 3_600_000
_PAGE = 10_000

Needed = Callable[[Sequence[str], Connection], set[str]]
"""(SHA-256 of some files) -> those of them that something refers to."""


class StoredFiles(Files):
    """The files in a database that other servers have, too."""

    def __init__(self, database: Database, needed: Needed, scratch: Path) -> None:
        """`scratch` is a directory of this machine, where a file is that is still on its way in."""
        self._database = database
        self._needed = needed
        self._scratch = scratch

    def incoming(self) -> Incoming:
        with refusing():
            self._scratch.mkdir(parents=True, exist_ok=True)
            return Incoming(tempfile.TemporaryFile(dir=self._scratch))

    @contextlib.contextmanager
    def keep(self, incoming: Incoming) -> Iterator[str]:
        digest = incoming.finish()
        if not self._database.change(partial(_hold, digest)):
            with refusing():
                self._upload(digest, incoming.size, _pieces(incoming.content()))
        yield digest

    @contextlib.contextmanager
    def keep_bytes(self, data: bytes) -> Iterator[str]:
        digest = sha256(data).hexdigest()
        if len(data) <= CHUNK:
            self._database.change(partial(_keep_small, digest, data))
        elif not self._database.change(partial(_hold, digest)):
            self._upload(digest, len(data), _pieces(io.BytesIO(data)))
        yield digest

    def _upload(self, digest: str, size: int, pieces: Iterator[bytes]) -> None:
        content = _new_content()
        self._database.beside(partial(_begin, content))
        number = 0
        while some := list(islice(pieces, _SHARED)):
            self._database.beside(partial(_add, content, number, some))
            number += len(some)
        self._database.change(partial(_finish, digest, content, size))

    def open(self, digest: str) -> BinaryIO:
        wanted = select(files.c.content, files.c.size).where(files.c.digest == digest)
        row = self._database.look(lambda connection: connection.execute(wanted).first())
        if row is None:
            raise FileNotFoundError(digest)
        return io.BufferedReader(_Content(self._database, row.content, row.size), CHUNK)

    def holding(self, digest: str) -> AbstractContextManager[None]:  # noqa: ARG002 - who kept it holds it
        return contextlib.nullcontext()

    def refer(self, connection: Connection, digest: str) -> None:
        wanted = select(files.c.digest).where(files.c.digest == digest)
        if connection.execute(wanted.with_for_update(read=True, key_share=True)).first() is None:
            raise StoreUnavailable("The file is not there any more: send it again.", retry_after=1)

    def all(self) -> list[str]:
        wanted = select(files.c.digest).order_by(files.c.digest).limit(_PAGE)
        found = page = self._database.look(partial(_digests, wanted))
        while page:
            page = self._database.look(partial(_digests, wanted.where(files.c.digest > page[-1])))
            found = [*found, *page]
        return found

    def remove(self, digests: Sequence[str]) -> int:
        """As any: also those alone that nobody holds on any server, and that nothing refers to."""
        return self._database.beside(partial(self._remove, digests))

    def _remove(self, digests: Sequence[str], connection: Connection) -> int:
        moment = now(connection)
        free = files.c.digest.in_(digests), files.c.held_until <= moment
        wanted = select(files.c.digest, files.c.content).where(*free).with_for_update(skip_locked=True)
        rows = connection.execute(wanted).all()
        needed = self._needed([row.digest for row in rows], connection)  # once nobody can refer to more
        doomed = [row for row in rows if row.digest not in needed]
        if doomed:
            connection.execute(delete(files).where(files.c.digest.in_([row.digest for row in doomed])))
            left = [{"content": row.content, "until": moment + _HOUR} for row in doomed]
            connection.execute(insert(leftovers), left)
        return len(doomed)

    def tidy(self) -> None:
        while self._database.beside(_clear):
            pass


class _Content(io.RawIOBase):
    """A content, piece by piece, each when it is asked for. Raises StoreUnavailable where one is gone."""

    def __init__(self, database: Database, content: int, size: int) -> None:
        self._database = database
        self._content = content
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._at >= self._size:
            return 0
        number, skip = divmod(self._at, CHUNK)
        wanted = select(chunks.c.data).where(chunks.c.content == self._content, chunks.c.number == number)
        piece = self._database.look(lambda connection: connection.execute(wanted).scalar())
        if piece is None:
            raise StoreUnavailable("The file was replaced, and reading it took too long.", retry_after=1)
        data = piece[skip : skip + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece


def _new_content() -> int:
    return secrets.randbits(62)


def _hold(digest: str, connection: Connection) -> bool:
    """Hold a file for an hour; False where there is none."""
    held = update(files).where(files.c.digest == digest).values(held_until=now(connection) + _HOUR)
    return connection.execute(held).rowcount == 1


def _keep_small(digest: str, data: bytes, connection: Connection) -> None:
    """All in one. Of two who bring the same at once, the second runs into the first, and is run again."""
    if not _hold(digest, connection):
        content = _new_content()
        values = {"digest": digest, "content": content, "size": len(data)}
        connection.execute(insert(files).values(held_until=now(connection) + _HOUR, **values))
        connection.execute(insert(chunks).values(content=content, number=0, data=data))


def _begin(content: int, connection: Connection) -> None:
    connection.execute(insert(leftovers).values(content=content, until=now(connection) + _HOUR))


def _add(content: int, number: int, pieces: Sequence[bytes], connection: Connection) -> None:
    """Add pieces from `number` on, for whose sake it stays for another hour."""
    longer = update(leftovers).where(leftovers.c.content == content)
    if connection.execute(longer.values(until=now(connection) + _HOUR)).rowcount != 1:
        raise _too_late()
    rows = [{"content": content, "number": n, "data": piece} for n, piece in enumerate(pieces, number)]
    connection.execute(insert(chunks), rows)


def _finish(digest: str, content: int, size: int, connection: Connection) -> None:
    """Make a content that is whole a file; where there is one by now, it stays a leftover."""
    if _hold(digest, connection):
        return
    if connection.execute(delete(leftovers).where(leftovers.c.content == content)).rowcount != 1:
        raise _too_late()
    until = now(connection) + _HOUR
    connection.execute(insert(files).values(digest=digest, content=content, size=size, held_until=until))


def _too_late() -> StoreUnavailable:
    return StoreUnavailable("Keeping the file took too long: send it again.", retry_after=1)


def _digests(wanted: Select[str], connection: Connection) -> list[str]:
    return list(connection.execute(wanted).scalars())


def _clear(connection: Connection) -> bool:
    """Remove some of a content that is of no file and of no use; False where there is none."""
    due = select(leftovers.c.content).where(leftovers.c.until <= now(connection)).limit(1)
    content = connection.execute(due.with_for_update(skip_locked=True)).scalar()
    if content is None:
        return False
    mine = chunks.c.content == content
    some = select(chunks.c.number).where(mine).limit(_CLEARED)
    if connection.execute(delete(chunks).where(mine, chunks.c.number.in_(some))).rowcount < _CLEARED:
        connection.execute(delete(leftovers).where(leftovers.c.content == content))
    return True
