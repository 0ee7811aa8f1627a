"""The database's opening: making it, checking it, and what is refused with a clear word."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path

import apsw
import msgspec
import structlog

from windlass.directory import sync_directory
from windlass.errors import StartError, StoreDamaged, StoreTooNew

log = structlog.get_logger("windlass.store")

DATABASE = "windlass.db"
COPY = f"{DATABASE}.copy"
"""What `windlass store copy` writes until it is whole."""
PAGE = 8_192
"""Bytes of a page. Twice SQLite's usual: a batch writes a fifth faster, single messages as fast as before."""
_CACHE_KIB = 64 * 1024
BUSY_TIMEOUT = 5_000
"""How long a connection waits for another's lock, ms."""
_LOG_KEPT = 64 * 1024 * 1024
"""Bytes of the log's file that are kept when it begins anew: a long read may have let it grow."""


def connect(data_dir: Path, synchronous: str, *, read_only: bool = False) -> apsw.Connection:
    """A connection with our settings."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
    db = apsw.Connection(str(data_dir / DATABASE), flags=flags, statementcachesize=512)
    # Without this SQLite prepares a statement anew for each new value of some parameters.
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    db.set_busy_timeout(BUSY_TIMEOUT)
    if not read_only:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT}").fetchall()
    return db


def open_database(data_dir: Path, synchronous: str, *, killed: bool) -> apsw.Connection:
    """Open or create the database and bring its tables up to date. Raises what StartError covers.

    `killed`: the last process that used it had no clean end.
    """
    path = data_dir / DATABASE
    wal = path.with_name(path.name + "-wal")
    with refusing(path):
        if (data_dir / COPY).exists():
            raise unfinished(data_dir)
        if not path.exists():
            if wal.exists() and wal.stat().st_size:
                raise damaged(path, f"it is not there, but its log {wal.name} is")
            _create(path)
        _check_size(path)
        header = b""
        if wal.exists():
            with wal.open("rb") as file:
                header = file.read(32)
        db = connect(data_dir, synchronous)
        if header:
            _check_log(wal, header, db)
        if killed and not _sound(header):
            log.warning(
                "log_missing",
                message=f"The last process was killed and its log {wal} is missing or has no beginning: what"
                " it held is lost, unless it was killed before its first commit.",
            )
        migrate(db, path)
        # A first commit: from here on the log has a beginning, and a disk that takes no writes is found now.
        db.execute(
            "INSERT OR REPLACE INTO meta (name, value) SELECT name, value FROM meta WHERE name = 'secret'"
        )
        sync_directory(data_dir)
    return db


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn what the engine says of a database that cannot be used into a StartError that says what to do."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.SchemaChangeError, msgspec.DecodeError) as error:
        raise damaged(path, str(error)) from error
    except (apsw.Error, OSError) as error:
        raise StartError(
            f"The database {path} cannot be opened: {error}. Check that the disk has room, is mounted for"
            " writing, and that this user may write there."
        ) from error


def _create(path: Path) -> None:
    """Make a database under another name and move it into place whole: one of no bytes is always damage."""
    part = path.with_name(path.name + ".new")
    part.unlink(missing_ok=True)
    part.with_name(part.name + "-journal").unlink(missing_ok=True)
    with contextlib.closing(apsw.Connection(str(part))) as db:
        db.execute(f"PRAGMA page_size = {PAGE}")
        migrate(db, path)
        db.execute("INSERT INTO meta (name, value) VALUES ('secret', ?)", (os.urandom(32),))
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    sync_directory(path.parent)


def _sound(header: bytes) -> bool:
    """True for a log's header whose checksum holds (SQLite's database file format, "The Write-Ahead Log")."""
    if len(header) < 32 or header[:3] != b"\x37\x7f\x06" or header[3] not in (0x82, 0x83):
        return False
    words = struct.unpack(("<" if header[3] == 0x82 else ">") + "6I", header[:24])
    return _checksum(words, bytes(8)) == header[24:32]


def _checksum(words: Sequence[int], start: bytes) -> bytes:
    """The log's checksum of `words`, carried on from `start`."""
    low, high = struct.unpack(">2I", start)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        low = (low + even + high) & 0xFFFFFFFF
        high = (high + odd + low) & 0xFFFFFFFF
    return struct.pack(">2I", low, high)


def damaged(path: Path, reason: str) -> StoreDamaged:
    return StoreDamaged(
        f"The database {path} is damaged: {reason}. Nothing was changed. Put back a back-up, or move the"
        " directory away and start with an empty one; `sqlite3 windlass.db .recover` may save some of it."
    )


def unfinished(data_dir: Path) -> StartError:
    """What is said of a directory in which a copy was begun and not finished."""
    return StartError(
        f"In {data_dir} there is the beginning of a copy (`windlass store copy`) that was not finished:"
        f" nothing can be served from it. Take it away (rm {data_dir / COPY}*), and copy again: what it was"
        " copied from is as it was."
    )


def _check_size(path: Path) -> None:
    """Refuse a database that lost its end or its beginning: SQLite would find out only much later."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or header[:16] != b"SQLite format 3\0":
        raise damaged(path, "it does not begin like an SQLite database")
    page = int.from_bytes(header[16:18]) or 65_536
    page = 65_536 if page == 1 else page
    pages = int.from_bytes(header[28:32])
    if size < page * pages and not path.with_name(path.name + "-wal").exists():
        raise damaged(path, f"it has {size:,} bytes and should have {page * pages:,}")


def _check_log(wal: Path, header: bytes, db: apsw.Connection) -> None:
    """Refuse a write-ahead log that is damaged before its end, and a database that is shorter than it says.

    SQLite reads the log up to the first frame whose checksum fails and takes the rest for the torn end of
    the last commit. Each commit is synced before the next is written, so behind that frame there can be the
    end of one commit at most: an unbroken run with two or more is proof that what was acknowledged is being
    dropped. Commits that are not of one run are no proof: a commit that failed leaves its end behind.
    """
    valid = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)[1]
    page = int(db.pragma("page_size"))
    size = page * int(db.pragma("page_count"))
    found = (wal.parent / DATABASE).stat().st_size
    if found < size:
        raise damaged(wal.parent / DATABASE, f"it has {found:,} bytes and should have {size:,}")
    if len(header) < 32 or not wal.exists():
        return
    with wal.open("rb") as file:
        file.seek(32 + max(valid, 0) * (24 + page))
        tail = file.read()
    frames = [tail[at : at + 24 + page] for at in range(0, len(tail) - 23 - page, 24 + page)]
    frames = [frame for frame in frames if frame[8:16] == header[16:24]]  # of this log, not an earlier one
    commits = _commits_in_a_run(frames, "<" if header[3] == 0x82 else ">")
    if commits >= 2:
        raise damaged(wal, f"{commits} commits in it lie behind a broken one")


def _commits_in_a_run(frames: Sequence[bytes], order: str) -> int:
    """The most commits in a run of frames that each continue the checksum of the one before."""
    most = commits = 0
    if sum(frame[4:8] != b"\0\0\0\0" for frame in frames) < 2:
        return 0
    for before, frame in pairwise(frames):
        words = struct.unpack(f"{order}{(len(frame) - 16) // 4}I", frame[:8] + frame[24:])
        if _checksum(words, before[16:24]) != frame[16:24]:
            commits = 0
        elif frame[4:8] != b"\0\0\0\0":
            commits += 1
            most = max(most, commits)
    return most


def migrate(db: apsw.Connection, path: Path) -> None:
    """Run the migrations that this database has not had, each in one transaction. Raises StoreTooNew."""
    scripts = sorted(
        (
            entry
            for entry in resources.files("windlass.store.sqlite.migrations").iterdir()
            if entry.name.endswith(".sql")
        ),
        key=lambda entry: entry.name,
    )
    newest = int(scripts[-1].name[:4])
    db.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, at TEXT NOT NULL) STRICT"
    )
    version = next(db.execute("SELECT coalesce(max(version), 0) FROM schema_version"))[0]
    if version > newest:
        raise StoreTooNew(
            f"The database {path} has tables of version {version}; this Windlass knows up to {newest}."
            " Install the newer Windlass again. Nothing was changed."
        )
    for script in scripts:
        number = int(script.name[:4])
        if number > version:
            with db:
                db.execute(script.read_text())
                db.execute("INSERT INTO schema_version VALUES (?, datetime('now'))", (number,))
