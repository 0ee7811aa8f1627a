"""A directory that can lose power: what powercut.c recorded, replayed into what a disk would hold.

Durable is what was there at the start and what was synced since. Of the rest, at a cut:

- each 512-byte sector of a file holds what it held at some moment between its last sync and the cut
  (the page cache is written back when it likes, so a later write never survives below an earlier one of
  the same sector, and a write of many sectors can tear);
- a file's length is its length at one such moment; where the disk is `ordered`, it is never ahead of the
  bytes (ext4, XFS and btrfs as Debian makes them write so what is appended; SQLite needs no such kindness);
- each entry made, renamed or removed in a directory since the directory's last sync happened or did not,
  one by one; syncing a file does not sync its entry.

`-shm` files, sockets and the like are gone: they are no durable state.
"""

from __future__ import annotations

import mmap
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SECTOR = 512
RECORD = struct.Struct("<IIQQQ")


class Kind(IntEnum):
    """The kinds of record in the log; the same numbers as in powercut.c."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    SYNC_FAILED = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    UNSEEN = 10


@cache
def library() -> Path:
    """powercut.c, built once for this test run."""
    built = Path(mkdtemp(prefix="powercut-")) / "powercut.so"
    source = Path(__file__).with_name("powercut.c")
    subprocess.run(
        [
            "gcc",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
            built,
            source,
            "-ldl",
            "-lpthread",
        ],
        check=True,
    )
    return built


class Control:
    """The page shared with the process under the library: each attribute is read and written at once."""

    FIELDS = ("operations", "cut_at", "room", "clock_shift",
              "sync_delay", "sync_errno", "write_errno", "read_only", "sequence")  # fmt: skip

    def __init__(self, path: Path) -> None:
        path.write_bytes(struct.pack("<9q", 0, 0, -1, 0, 0, 0, 0, 0, 0))
        self.path = path
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 72)

    def __getattr__(self, name: str) -> int:
        if name not in self.FIELDS:
            raise AttributeError(name)
        value: int = struct.unpack_from("<q", self._page, 8 * self.FIELDS.index(name))[0]
        return value

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.FIELDS:
            struct.pack_into("<q", self._page, 8 * self.FIELDS.index(name), value)
        else:
            super().__setattr__(name, value)


@dataclass(frozen=True)
class Change:
    """One unsynced change of a file: data at an offset, or a new length where data is None."""

    sequence: int
    position: int
    data: bytes | None = None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.position :]
            content.extend(bytes(self.position - len(content)))
        else:
            content.extend(bytes(max(0, self.position - len(content))))
            content[self.position : self.position + len(self.data)] = self.data


@dataclass
class File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def sync(self, began: int) -> None:
        """Everything written before `began` is on disk."""
        for change in self.pending:
            if change.sequence <= began:
                change.apply(self.durable)
        self.pending = [change for change in self.pending if change.sequence > began]

    def lose(self, began: int) -> None:
        """A sync failed: the kernel marked the pages clean, and no later sync will write them."""
        self.pending = [change for change in self.pending if change.sequence > began]

    def after_cut(self, rng: random.Random, *, ordered: bool = False) -> bytes:
        """What the disk may hold, by the seed: nothing unsynced, all of it, or any mixture of moments."""
        fate = rng.choice(("none", "all", "some", "some"))
        if fate == "none" or not self.pending:
            return bytes(self.durable)
        if fate == "all":
            content = bytearray(self.durable)
            for change in self.pending:
                change.apply(content)
            return bytes(content)
        return self._torn(rng, ordered)

    def _torn(self, rng: random.Random, ordered: bool) -> bytes:
        moments: dict[int, int] = {}  # sector -> how many of the pending changes it has seen
        sizes = [len(self.durable)]
        content = bytearray(self.durable)
        hole = sys.maxsize  # where the first appended bytes are that did not arrive

        def reached(sector: int, index: int) -> bool:
            return index < moments.setdefault(sector, rng.randint(0, len(self.pending)))

        for index, change in enumerate(self.pending):
            size = sizes[-1]
            if change.data is None:
                # A shorter file is zeroes beyond its end, if the sector saw the change.
                for start, end in _sectors(change.position, max(0, size - change.position)):
                    if reached(start // SECTOR, index):
                        content[start:end] = bytes(end - start)
                size = change.position
            else:
                size = max(size, change.position + len(change.data))
            content.extend(bytes(max(0, size - len(content))))
            if change.data is not None:
                for start, end in _sectors(change.position, len(change.data)):
                    if reached(start // SECTOR, index):
                        content[start:end] = change.data[start - change.position : end - change.position]
                    elif end > len(self.durable):
                        hole = min(hole, max(start, len(self.durable)))
            sizes.append(size)
        length = rng.choice(sizes)
        if ordered:
            length = min(length, hole)
        return bytes(content[:length]) + bytes(max(0, length - len(content)))


def _sectors(position: int, length: int) -> Iterator[tuple[int, int]]:
    """The pieces of a range, cut at the borders of sectors."""
    end = position + length
    while position < end:
        border = min(end, (position // SECTOR + 1) * SECTOR)
        yield position, border
        position = border


@dataclass(frozen=True)
class Entry:
    """One unsynced change of a directory: a name that went, a name that came with its inode, or both."""

    sequence: int
    gone: str | None
    name: str | None
    inode: int

    def apply(self, entries: dict[str, int]) -> None:
        if self.gone is not None:
            entries.pop(self.gone, None)
        if self.name is not None:
            entries[self.name] = self.inode


@dataclass
class Directory:
    durable: dict[str, int] = field(default_factory=dict)
    pending: list[Entry] = field(default_factory=list)

    def sync(self, began: int) -> None:
        for entry in self.pending:
            if entry.sequence <= began:
                entry.apply(self.durable)
        self.pending = [entry for entry in self.pending if entry.sequence > began]

    def lose(self, began: int) -> None:
        self.pending = [entry for entry in self.pending if entry.sequence > began]

    def renumber(self, old: int, new: int) -> None:
        self.durable = {name: new if inode == old else inode for name, inode in self.durable.items()}
        self.pending = [replace(each, inode=new) if each.inode == old else each for each in self.pending]

    def after_cut(self, rng: random.Random) -> dict[str, int]:
        fate = rng.choice(("none", "all", "some", "some"))
        entries = dict(self.durable)
        for entry in self.pending:
            if fate == "all" or (fate == "some" and rng.random() < 0.5):
                entry.apply(entries)
        return entries


class Disk:
    """A directory whose changes are recorded, so that the power can be cut.

    A process started with `environment()` has its changes under `root` recorded, and obeys `control`.
    Once it is dead, `cut(rng)` turns `root` into what the power cut left; then the next may be started.
    """

    def __init__(self, root: Path, *, ordered: bool = False) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._ordered = ordered
        self.root = root.resolve()
        self.log = self.root.parent / f"{self.root.name}.powercut-log"
        self.control = Control(self.root.parent / f"{self.root.name}.powercut-control")
        self.log.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library()),
            "POWERCUT_ROOT": str(self.root),
            "POWERCUT_LOG": str(self.log),
            "POWERCUT_CONTROL": str(self.control.path),
        }

    def snapshot(self) -> None:
        """Take what `root` holds now as durable; call it before a process is started."""
        self._nodes: dict[int, File | Directory] = {}
        for path in (self.root, *self.root.rglob("*")):
            inode = path.stat().st_ino
            if path.is_dir():
                self._nodes[inode] = Directory({item.name: item.stat().st_ino for item in path.iterdir()})
            elif path.is_file():
                self._nodes[inode] = File(bytearray(path.read_bytes()))
        self._folders = {
            str(path): path.stat().st_ino for path in (self.root, *self.root.rglob("*")) if path.is_dir()
        }
        self.log.unlink(missing_ok=True)

    def cut(self, rng: random.Random) -> None:
        """Put `root` into a state that a power cut could have left; the process must be dead."""
        self.replay()
        self.leave(rng)
        self.control.cut_at = 0

    def replay(self) -> None:
        """Learn from the log what is durable and what is not."""
        for record in self.records():
            self._take(*record)

    def leave(self, rng: random.Random) -> None:
        """Write what one cut leaves; may be called again with another seed for another fate."""
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self._write(self._folders[str(self.root)], self.root, rng)

    def records(self) -> Iterator[tuple[Kind, int, int, int, bytes]]:
        """(kind, sequence, inode, position, data) of each whole record in the log."""
        log = self.log.read_bytes() if self.log.exists() else b""
        at = 0
        while at + RECORD.size <= len(log):
            kind, size, sequence, inode, position = RECORD.unpack_from(log, at)
            at += RECORD.size
            if at + size > len(log):
                return  # the process died while it wrote this one
            yield Kind(kind), sequence, inode, position, log[at : at + size]
            at += size

    def _take(self, kind: Kind, sequence: int, inode: int, position: int, data: bytes) -> None:
        match kind:
            case Kind.WRITE | Kind.TRUNCATE:
                file = self._nodes[inode]
                assert isinstance(file, File)
                file.pending.append(Change(sequence, position, data if kind is Kind.WRITE else None))
            case Kind.SYNC:
                self._nodes[inode].sync(position)
            case Kind.SYNC_FAILED:
                self._nodes[inode].lose(position)
            case Kind.CREATE:
                self._bury(inode)
                self._nodes[inode] = File()
                self._enter(sequence, None, data.decode(), inode)
            case Kind.MKDIR:
                self._bury(inode)
                self._nodes[inode] = Directory()
                self._folders[data.decode()] = inode
                self._enter(sequence, None, data.decode(), inode)
            case Kind.UNLINK | Kind.RMDIR:
                self._enter(sequence, data.decode(), None, 0)
            case Kind.RENAME:
                old, new = data.decode().split("\0")
                if Path(old).parent == Path(new).parent:
                    self._enter(sequence, old, new, inode)
                else:
                    self._enter(sequence, old, None, 0)
                    self._enter(sequence, None, new, inode)
            case Kind.UNSEEN:
                raise AssertionError(f"the process used what the power cut cannot record: {data.decode()}")

    def _bury(self, inode: int) -> None:
        """A new file has the number of one that was removed, whose name may still be on disk: rename that."""
        if inode not in self._nodes:
            return
        grave = min(self._nodes) - 1 if min(self._nodes) < 0 else -1
        self._nodes[grave] = self._nodes.pop(inode)
        for node in self._nodes.values():
            if isinstance(node, Directory):
                node.renumber(inode, grave)

    def _enter(self, sequence: int, gone: str | None, came: str | None, inode: int) -> None:
        parent = Path(gone or came or "").parent
        folder = self._nodes[self._folders[str(parent)]]
        assert isinstance(folder, Directory)
        entry = Entry(sequence, Path(gone).name if gone else None, Path(came).name if came else None, inode)
        folder.pending.append(entry)

    def _write(self, inode: int, path: Path, rng: random.Random) -> None:
        node = self._nodes.get(inode)
        if isinstance(node, Directory):
            path.mkdir(exist_ok=True)
            for name, child in sorted(node.after_cut(rng).items()):
                self._write(child, path / name, rng)
        elif node is not None and not path.name.endswith("-shm"):
            path.write_bytes(node.after_cut(rng, ordered=self._ordered))
