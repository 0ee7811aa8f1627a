"""The runner's directory: who it is, a directory for each job, the cache, and what is kept as evidence.

DIR/lock            held while a runner uses DIR
DIR/identity.json   registration.py
DIR/jobs/ID.N/      one delivery of job ID, the Nth here; removed after the hand-over
DIR/cache/          cache.py
DIR/evidence/       results that the server would not take, the newest few
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

import structlog

from windlass.errors import RunnerDirLocked, StartError
from windlass.runner.threads import in_thread

log = structlog.get_logger("windlass.runner")

LEAST_FREE = 128 * 1024 * 1024
"""Bytes that have to be free before another job is taken."""
KEPT = 20
KEPT_BYTES = 1024 * 1024 * 1024
"""So many refused results are kept, and so many bytes of them; of the newest, whatever it is."""

GATHER = 0.1
"""Seconds until a directory is removed: a thread for each job's own would cost more than a short job."""
_FEW = 4
_SMALL = 1024 * 1024

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class JobDirectory:
    """The directory of one delivery: empty when it is first asked for, and not made before.

    A short job may do without; to make one can take longer than that job.
    """

    def __init__(self, jobs: Path, name: str) -> None:
        self._first = jobs / name
        self.made: Path | None = None

    @property
    def path(self) -> Path:
        """OSError: it cannot be made."""
        number = 1
        while self.made is None:
            directory = self._first.with_name(f"{self._first.name}.{number}")
            try:
                directory.mkdir(mode=0o711)
            except FileExistsError:
                number += 1
            else:
                self.made = directory
        return self.made


class Workspace:
    """One runner's directory, its own as long as it is open."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.identity = directory / "identity.json"
        self.cache = directory / "cache"
        self._jobs = directory / "jobs"
        self._evidence = directory / "evidence"
        self._lock: int | None = None
        self._leaving: list[Path] = []
        self._removing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Take the directory, and sweep out what an earlier runner left. Raises StartError."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._take()
            # A box of another user has to get through to its job, and must not look around.
            for folder, mode in ((self._jobs, 0o711), (self.cache, 0o700), (self._evidence, 0o700)):
                folder.mkdir(exist_ok=True)
                folder.chmod(mode)
            for left in self._jobs.iterdir():
                remove_tree(left)
        except OSError as error:
            self.close()
            raise StartError(f"The directory {self.directory} cannot be used: {error}.") from error

    def close(self) -> None:
        """Let others have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def spacious(self) -> bool:
        """Whether the disk has room for another job; True where that cannot be found out."""
        try:
            return shutil.disk_usage(self.directory).free >= LEAST_FREE
        except OSError:
            return True

    def directory_of(self, job_id: str) -> JobDirectory:
        """A new one, for one delivery of a job."""
        name = job_id if _PLAIN.match(job_id) else hashlib.sha256(job_id.encode()).hexdigest()
        return JobDirectory(self._jobs, name)

    def remove(self, directory: JobDirectory) -> None:
        """Remove a job's directory soon; what cannot be removed then is swept at the next start."""
        if directory.made is None:
            return
        self._leaving.append(directory.made)
        if self._removing is None:
            self._removing = asyncio.create_task(self._remove())

    async def _remove(self) -> None:
        try:
            while self._leaving:
                await asyncio.sleep(GATHER)
                await self._remove_now()
        finally:
            self._removing = None

    async def _remove_now(self) -> None:
        leaving, self._leaving = self._leaving, []
        await in_thread(_remove_all, leaving)

    async def settle(self) -> None:
        """Remove what is to be removed, now."""
        removing = self._removing
        if removing is not None:
            removing.cancel()
            await asyncio.wait({removing})
        await self._remove_now()

    async def keep(self, directory: JobDirectory, result: bytes | Path, why: str) -> Path | None:
        """Keep a refused result, and the reason, when its job's directory goes; returns where, if it went."""
        return await in_thread(self._keep, directory, result, why)

    def _keep(self, directory: JobDirectory, result: bytes | Path, why: str) -> Path | None:
        name = "it"
        try:
            name = directory.path.name
            target = self._evidence / name
            if target.exists():
                remove_tree(target)
            target.mkdir()
            if isinstance(result, Path):
                result.replace(target / "result.json")
            else:
                (target / "result.json").write_bytes(result)
            (target / "why.txt").write_text(why + "\n", errors="replace")
            self._thin_out()
        except OSError as error:
            log.warning("evidence_lost", message=f"The refused result of {name} cannot be kept: {error}")
            return None
        return target

    def _thin_out(self) -> None:
        newest_first = sorted(
            self._evidence.iterdir(), key=lambda kept: kept.stat().st_mtime_ns, reverse=True
        )
        size = 0
        for number, kept in enumerate(newest_first):
            size += sum(file.stat().st_size for file in kept.iterdir())
            if number and (number >= KEPT or size > KEPT_BYTES):
                remove_tree(kept)

    def _take(self) -> None:
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise RunnerDirLocked(
                f"Another runner uses {self.directory}. Give this one a directory of its own with --dir."
            ) from None


def _remove_all(directories: Iterable[Path]) -> None:
    for directory in directories:
        if not _removed_in_passing(directory):
            remove_tree(directory)


def _removed_in_passing(directory: Path) -> bool:
    """Remove a directory with a few small files, the usual one, in few steps; False: it is no such."""
    try:
        with os.scandir(directory) as entries:
            files = list(islice(entries, _FEW + 1))
        if len(files) > _FEW or sum(file.stat(follow_symlinks=False).st_size for file in files) > _SMALL:
            return False
        for file in files:
            Path(file.path).unlink()
        directory.rmdir()
    except OSError:  # a directory in it, perhaps
        return False
    return True


def remove_tree(directory: Path) -> None:
    """Remove a directory or a file and all that is in it, following no link; tells what stays."""
    if directory.is_symlink() or not directory.is_dir():
        directory.unlink(missing_ok=True)
        return
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():  # somebody took the permissions away, his own too
        _unlock(directory)
        shutil.rmtree(directory, onerror=_stays)


def _unlock(directory: Path) -> None:
    """Let the owner into every directory of a tree."""
    locked = [directory]
    while locked:
        folder = locked.pop()
        with suppress(OSError):
            folder.chmod(0o700)
            with os.scandir(folder) as entries:
                locked += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _stays(_function: object, name: str, error: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        log.warning("not_removed", message=f"{name} cannot be removed: {error[1]}")
