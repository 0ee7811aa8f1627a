"""Where a filter's stored form is kept: a file, or a value in Redis.

Either is written whole in one step, or sector by sector over what is there. A crash between the two halves of
that leaves bits that nobody asked for yet, or a sector whose checksum fails: a filter that is refused, and
never one that misses what it says it has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from windlass.errors import FilterStateRefused, StoreFull, StoreUnavailable
from windlass.guard.stored import SECTOR

if TYPE_CHECKING:
    import redis

T = TypeVar("T")

Changes = Sequence[tuple[int, bytes]]
"""(offset, sector) as `BloomFilter.changes` gives them: the header is the last."""

KEY = "bloom:filter"
MAX_STATE = 512 << 20
"""Bytes of the largest stored form that is kept, 400 million items: what a value of Redis can hold."""

_TOO_LARGE = "It has {} bytes, and no more than {} are read."


class Storage(Protocol):
    """Where one stored form is kept. Each method blocks, and may raise StoreUnavailable."""

    key: str
    """What it is kept under: in Redis that is its key."""

    def load(self) -> bytes | None:
        """What is there, if anything is. Raises FilterStateRefused for what cannot be a stored form."""

    def replace(self, whole: bytes) -> None:
        """Put a whole one in the place of what is there, in one step."""

    def patch(self, changes: Changes) -> None:
        """Write these over what is there. Raises FilterStateRefused where that is not what we left there.

        After any error nobody knows what is there, and only a whole one will do.
        """

    def taken(self) -> bool:
        """Whether another process has written it since it was last looked at: then it is kept already."""

    def describe(self) -> str:
        """Where that is, for people."""


class OnDisk:
    """A file, for its owner alone. One process writes it."""

    def __init__(self, path: Path, key: str = KEY) -> None:
        self.key = key
        self._path = path
        self._new = path.with_name(path.name + ".new")

    def load(self) -> bytes | None:
        try:
            # A pipe without a writer would never open.
            handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from error
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise FilterStateRefused("It is no file.")
            if found.st_size > MAX_STATE:
                raise FilterStateRefused(_TOO_LARGE.format(found.st_size, MAX_STATE))
            with self._told(), os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(MAX_STATE)
        finally:
            os.close(handle)

    def replace(self, whole: bytes) -> None:
        _bounded(whole)
        with self._told():
            # Not over one that is there: it could be a link to elsewhere, or somebody else's.
            self._new.unlink(missing_ok=True)
            try:
                handle = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(whole)
                    file.flush()
                    os.fsync(handle)
                self._new.replace(self._path)
            except OSError:
                with contextlib.suppress(OSError):
                    self._new.unlink(missing_ok=True)
                raise
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def patch(self, changes: Changes) -> None:
        *bits, header = changes
        with self._told():
            handle = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                # The header says what the bits hold, so it is not to be on disk before them.
                for step in (bits, [header]):
                    for offset, sector in step:
                        if os.pwrite(handle, sector, offset) != len(sector):
                            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fdatasync(handle)
            finally:
                os.close(handle)

    def taken(self) -> bool:
        return False

    def describe(self) -> str:
        return str(self._path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StoreUnavailable:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFull(f"The disk of {self._path} is full.", retry_after=10)
        return StoreUnavailable(f"{self._path}: {error.strerror or error}.", retry_after=1)


class InRedis:
    """A value in Redis, which several processes may write: what one finds changed, it leaves alone."""

    def __init__(self, client: redis.Redis, key: str = KEY) -> None:
        self.key = key
        self._client = client
        self._header = b""
        """The first sector as it was last seen. It is another with every change, whoever makes it."""

    def load(self) -> bytes | None:
        def found() -> bytes | None:
            # Its size before itself: a value of another type is refused here, too.
            size = self._client.strlen(self.key)
            if size > MAX_STATE:
                raise FilterStateRefused(_TOO_LARGE.format(size, MAX_STATE))
            return cast(bytes | None, self._client.get(self.key))

        state = self._ask(found)
        self._header = (state or b"")[:SECTOR]
        return state

    def replace(self, whole: bytes) -> None:
        _bounded(whole)

        def put() -> None:
            # SET goes over values of any type, so it heals what somebody else put there.
            self._client.set(self.key, whole)

        self._ask(put)
        self._header = whole[:SECTOR]

    def patch(self, changes: Changes) -> None:
        _, header = changes[-1]

        def written() -> None:
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.watch(self.key)  # type: ignore[no-untyped-call]
                found = cast(bytes, pipeline.getrange(self.key, 0, SECTOR - 1))
                if found != self._header:
                    # SETRANGE would make one of zeros where there is none, and mix ours with another's.
                    self._header = found
                    raise FilterStateRefused("It is gone, or another process has written it.")
                pipeline.multi()
                for offset, sector in changes:
                    pipeline.setrange(self.key, offset, sector)
                pipeline.execute()

        self._ask(written)
        self._header = header

    def taken(self) -> bool:
        before = self._header
        try:
            found = self._ask(lambda: self._client.getrange(self.key, 0, SECTOR - 1))
        except FilterStateRefused:  # of another type
            found = b""
        self._header = cast(bytes, found)
        return bool(self._header) and self._header != before

    def describe(self) -> str:
        return f"Redis, under {self.key}"

    def _ask(self, step: Callable[[], T]) -> T:
        import redis  # here, as a start without a Redis does without

        try:
            return step()
        except redis.WatchError:
            raise FilterStateRefused("Another process writes it at this moment.") from None
        except redis.ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise FilterStateRefused("It is no string.") from error
            raise StoreUnavailable(f"Redis cannot do this: {error}.", retry_after=1) from error
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis is away: {error}.", retry_after=1) from error


def _bounded(whole: bytes) -> None:
    if len(whole) > MAX_STATE:
        raise StoreFull(f"The filter has {len(whole)} bytes, and no more than {MAX_STATE} are kept.")
