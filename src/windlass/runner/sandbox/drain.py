"""Pipes that are always read to their end, however much comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

_CHUNK = 2**16


class Drain:
    """The reading end of a pipe: keeps `most` bytes, drops the rest.

    `write` is the other end, for one process to inherit; close it here with `give()` once it has. `more` is
    called once, when there is a byte too many; `failed` when `sink`, a file that gets the bytes instead of
    memory, cannot be written to.
    """

    def __init__(
        self,
        most: int,
        *,
        more: Callable[[], None] | None = None,
        sink: int | None = None,
        failed: Callable[[OSError], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = most
        self._more = more
        self._sink = sink
        self._failed = failed
        self._kept: list[bytes] = []
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when nobody can write any more."""
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._loop.add_reader(self._read, self._ready)

    @property
    def kept(self) -> bytes:
        return b"".join(self._kept)

    def give(self) -> None:
        if self.write >= 0:
            os.close(self.write)
            self.write = -1

    def close(self) -> None:
        """Stop reading; whoever still writes finds a broken pipe."""
        self.give()
        if self._read >= 0:
            self._loop.remove_reader(self._read)
            os.close(self._read)
            self._read = -1
        if not self.ended.done():
            self.ended.set_result(None)

    def take(self, chunk: bytes) -> None:
        """What to do with what came; at most as much as may be kept."""
        if self._sink is None:
            self._kept.append(chunk)
            return
        while chunk:
            chunk = chunk[os.write(self._sink, chunk) :]

    def _ready(self) -> None:
        try:
            chunk = os.read(self._read, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self.close()
            return
        if len(chunk) > self._left and self._more is not None:
            self._more()
            self._more = None
        chunk = chunk[: self._left]
        self._left -= len(chunk)
        if chunk:
            try:
                self.take(chunk)
            except OSError as error:
                self._left = 0
                if self._failed is not None:
                    self._failed(error)


class Lines(Drain):
    """A pipe of short lines, each handed to `line` as it comes."""

    def __init__(self, most: int, line: Callable[[str], None]) -> None:
        super().__init__(most)
        self._line = line
        self._rest = b""

    def take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._line(line.decode(errors="replace"))


class Descriptors:
    """Descriptors of one undertaking, closed together."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def add(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def memory(self, name: str, content: bytes) -> int:
        """A file in memory that holds `content`, to be read from its beginning."""
        descriptor = self.add(os.memfd_create(name))
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def close(self) -> None:
        while self._open:
            with contextlib.suppress(OSError):
                os.close(self._open.pop())
