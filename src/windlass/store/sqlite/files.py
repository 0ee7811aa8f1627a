"""The data directory: its lock, the database's opening, and what is refused with a clear word."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import apsw

from windlass.errors import StartError, StoreDamaged, StoreLocked, StoreTooNew

DATABASE = "windlass.db"
LOCK = "windlass.lock"
_CHECKPOINT_PAGES = 8_000
"""The log is moved into the database when it has this many pages (32 MB)."""
_CACHE_KIB = 64 * 1024


def lock(data_dir: Path) -> TextIO:
    """Take the data directory for this process until the file is closed. Raises StoreLocked, StartError."""
    try:
        if not data_dir.exists():
            data_dir.mkdir(parents=True, mode=0o700)
            sync_directory(data_dir.parent)
        file = (data_dir / LOCK).open("a+")
    except OSError as error:
        raise StartError(
            f"The data directory {data_dir} cannot be used: {error.strerror}. Name another with --data-dir."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise StoreLocked(
            f"Another Windlass (process {owner}) uses the data directory {data_dir}."
            " Stop it first, or name another directory with --data-dir."
        ) from error
    try:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except OSError:  # a full disk: the lock holds all the same, it only cannot tell whose it is
        pass
    return file


def connect(data_dir: Path, synchronous: str, *, read_only: bool = False) -> apsw.Connection:
    """A connection with our settings."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(str(data_dir / DATABASE), flags=flags, statementcachesize=512)
    db.set_busy_timeout(5_000)
    if not read_only:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}").fetchall()
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return db


def open_database(data_dir: Path, synchronous: str) -> apsw.Connection:
    """Open or create the database and bring its tables up to date. Raises what StartError covers."""
    path = data_dir / DATABASE
    try:
        _check_size(path)
        wal = path.with_name(path.name + "-wal")
        log = wal.read_bytes()[:32] if wal.exists() else b""
        db = connect(data_dir, synchronous)
        if log:
            _check_log(wal, log, db)
        migrate(db, path)
        db.execute("SELECT count(*) FROM queues").fetchall()
        sync_directory(data_dir)
    except (apsw.CorruptError, apsw.NotADBError, apsw.SchemaChangeError) as error:
        raise damaged(path, str(error)) from error
    except (apsw.Error, OSError) as error:
        raise StartError(
            f"The database {path} cannot be opened: {error}. Check that the disk has room, is mounted for"
            " writing, and that this user may write there."
        ) from error
    return db


def damaged(path: Path, reason: str) -> StoreDamaged:
    return StoreDamaged(
        f"The database {path} is damaged: {reason}. Nothing was changed. Put back a back-up, or move the"
        " directory away and start with an empty one; `sqlite3 windlass.db .recover` may save some of it."
    )


def _check_size(path: Path) -> None:
    """Refuse a database that lost its end or its beginning: SQLite would find out only much later."""
    if not path.exists():
        return
    size = path.stat().st_size
    if size == 0:
        return  # killed right after the first commits: all of it is in the log, or there is nothing yet
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
        low, high = struct.unpack(">2I", before[16:24])
        for even, odd in zip(words[::2], words[1::2], strict=True):
            low = (low + even + high) & 0xFFFFFFFF
            high = (high + odd + low) & 0xFFFFFFFF
        if struct.pack(">2I", low, high) != frame[16:24]:
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


def sync_directory(path: Path) -> None:
    """Make a directory's entries survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
