"""Test data, kept by its checksum: what one job reads is never changed or removed under it.

    DIR/cache/KEY/manifest.json   the files and their sizes, as they were when they were whole
    DIR/cache/KEY/data/           the files, as testdata.unpack writes them
    DIR/cache/new/                what is not whole yet

New data of a problem is another checksum, so another KEY; the old one stays until nobody reads it and room is
needed. KEY is the SHA-256 of the archive where the server names that. A server that names its data in another
way is believed, for one problem at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec
import structlog

from windlass.errors import Invalid
from windlass.judge import testdata
from windlass.runner import wire
from windlass.runner.link import Answer, Link, path
from windlass.runner.registration import Registration
from windlass.runner.threads import in_thread
from windlass.runner.wire import Registered
from windlass.runner.workspace import remove_tree

log = structlog.get_logger("windlass.runner")

ROOM = 10 * 1024 * 1024 * 1024
"""Bytes of unpacked test data that are kept; more only while jobs read it."""
LARGEST_ARCHIVE = testdata.MAX_ALL + 64 * 1024 * 1024
"""Bytes of an archive; those that cannot be packed any smaller are a little larger than their content."""

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Unavailable(Exception):  # noqa: N818 - what happened, said as it is
    """The server did not give what a job needs; str() says what and why."""


class _Manifest(msgspec.Struct):
    files: dict[str, int]
    """Names and bytes."""


class _Entry:
    """One unpacked archive."""

    def __init__(self, folder: Path, manifest: _Manifest) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.size = sum(manifest.files.values())
        self.counts = _counts(manifest)
        self.readers = 0


class Cache:
    """The test data of one runner. Everything is for one event loop."""

    def __init__(self, folder: Path, link: Link, registration: Registration, room: int = ROOM) -> None:
        self._folder = folder
        self._new = folder / "new"
        self._link = link
        self._registration = registration
        self._room = room
        self._entries: dict[str, _Entry] = {}
        """The least recently used first."""
        self._filling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By key; each lives as long as somebody holds it or waits for it."""

    def open(self) -> None:
        """Look at what there is, and remove what is not whole. Blocks."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for folder in self._folder.iterdir():
            entry = None if folder == self._new else _entry(folder)
            if entry is None:
                remove_tree(folder)
            else:
                found.append((folder.stat().st_mtime_ns, folder.name, entry))
        self._new.mkdir()
        self._entries = {name: entry for _, name, entry in sorted(found, key=lambda each: each[:2])}

    @asynccontextmanager
    async def testdata(self, problem_id: int, counts: Sequence[int]) -> AsyncIterator[Path]:
        """The directory with the present test data of a problem, which stays as it is until the context ends.

        `counts`: the cases of each task, which the data has to have. Raises Unavailable, Malformed, Invalid,
        TooLarge, OSError and client.errors.WindlassError: trying again may help.
        """
        tag = await self._checksum(problem_id)
        entry = await self._ready(problem_id, tag)
        entry.readers += 1
        try:
            if entry.counts != list(counts):
                raise Invalid(
                    f"The test data has {entry.counts} cases in its tasks, the job says {list(counts)}.",
                    field="testdata",
                )
            yield entry.data
        finally:
            entry.readers -= 1

    async def _checksum(self, problem_id: int) -> str:
        identity = await self._registration.identity()
        answer = await self._link.call(
            "GET", path("problems", str(problem_id), "checksum"), token=identity.token
        )
        self._check(answer, identity, "checksum", problem_id)
        return wire.checksum(answer.body)

    async def _ready(self, problem_id: int, tag: str) -> _Entry:
        """The entry for a checksum, fetched by whoever asks first."""
        sound = _SHA256.match(tag) is not None
        key = tag if sound else f"{problem_id}-{hashlib.sha256(tag.encode('utf-8', 'replace')).hexdigest()}"
        lock = self._filling.setdefault(key, asyncio.Lock())
        async with lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                entry = await self._fetched(problem_id, key, tag if sound else None)
            self._entries[key] = entry  # the last used is the last
        _touch(entry.folder)
        entry.readers += 1  # while others are removed
        try:
            await self._make_room()
        finally:
            entry.readers -= 1
        return entry

    async def _fetched(self, problem_id: int, key: str, sha256: str | None) -> _Entry:
        new = self._new / uuid.uuid4().hex
        archive = new / "testdata.zip"
        new.mkdir()
        try:
            identity = await self._registration.identity()
            answer = await self._link.download(
                path("problems", str(problem_id), "testdata"), archive, LARGEST_ARCHIVE, token=identity.token
            )
            self._check(answer, identity, "test data", problem_id)
            entry = await in_thread(_unpacked, archive, new, self._folder / key, sha256)
        finally:
            await in_thread(remove_tree, new)
        log.info("testdata_fetched", message=f"Fetched the test data of problem {problem_id}.")
        return entry

    def _check(self, answer: Answer, identity: Registered, what: str, problem_id: int) -> None:
        self._registration.heard(identity, answer.status)
        if answer.status != 200:
            raise Unavailable(f"the {what} of problem {problem_id} cannot be had: {answer}")

    async def _make_room(self) -> None:
        """Remove what was not used for the longest time, if nobody reads it."""
        size = sum(entry.size for entry in self._entries.values())
        for key, entry in list(self._entries.items()):
            if size <= self._room:
                return
            if not entry.readers and self._entries.get(key) is entry:
                del self._entries[key]
                size -= entry.size
                away = self._new / uuid.uuid4().hex
                entry.folder.rename(away)  # at once, so that the same data may come again meanwhile
                await in_thread(remove_tree, away)


def _unpacked(archive: Path, new: Path, target: Path, sha256: str | None) -> _Entry:
    """Unpack beside the target and move it there when every byte of it is on the disk."""
    if sha256 is not None and _digest(archive) != sha256:
        raise Unavailable("the test data is not what its checksum says; it may have been replaced just now")
    whole = new / "whole"
    data = whole / "data"
    data.mkdir(parents=True)
    testdata.unpack(archive, data)
    manifest = _Manifest({file.name: file.stat().st_size for file in data.iterdir()})
    (whole / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    for file in [*data.iterdir(), whole / "manifest.json", data, whole]:
        _sync(file)
    remove_tree(target)  # a rest that no entry stands for
    whole.rename(target)
    _sync(target.parent)
    return _Entry(target, manifest)


def _entry(folder: Path) -> _Entry | None:
    """What is there from an earlier process, if it is whole."""
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=_Manifest)
        sizes = {file.name: file.lstat().st_size for file in (folder / "data").iterdir()}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return _Entry(folder, manifest) if sizes == manifest.files else None


def _counts(manifest: _Manifest) -> list[int]:
    """The cases of each task, by the files' names."""
    tasks = Counter(name[:2] for name in manifest.files if name.endswith(".in"))
    return [tasks[task] for task in sorted(tasks)]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(file: Path) -> None:
    opened = os.open(file, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _touch(folder: Path) -> None:
    """Remember for the next process when it was used last."""
    try:
        os.utime(folder)
    except OSError:
        log.debug("not_touched", folder=str(folder))
