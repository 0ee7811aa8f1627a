"""Boxes that are containers, for hosts with Docker where this process has no rights for boxes of its own.

It measures by looking: processor time and memory are samples, so a short peak is missed, and what came after
the last look counts as one processor's time. An exit code from 128 on is taken for a signal. A program may
write to /tmp alone (a compiler also where it starts), and learns nothing of it when whoever reads its output
has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import httpx
import msgspec

from windlass.errors import Invalid, SandboxUnavailable
from windlass.judge.verdict import Run
from windlass.runner.sandbox import files
from windlass.runner.sandbox.base import CHECKS, Command, Pair, Ran, Sandbox
from windlass.runner.sandbox.docker.container import Container, Sink
from windlass.runner.sandbox.docker.engine import Engine

SOCKET = Path("/var/run/docker.sock")
_CHUNK = 64 * 1024


class DockerSandbox(Sandbox):
    """Boxes of `image`, which has to have the compilers; `DockerSandbox.open()` makes one."""

    def __init__(self, engine: Engine, image: str, missing: Mapping[str, str]) -> None:
        self._engine = engine
        self._image = image
        self._missing = dict(missing)
        self._under_way: set[asyncio.Future[Any]] = set()
        self._closed = False

    @classmethod
    async def open(cls, image: str, socket: Path = SOCKET) -> DockerSandbox:
        """Ask the engine what it can do. Raises SandboxUnavailable where there is none, or not the image."""
        engine = Engine(socket)
        try:
            info = await engine.call("GET", "/info")
            await engine.call("GET", f"/images/{quote(image, safe='/:@')}/json")
            return cls(engine, image, _missing(info))
        except (OSError, httpx.HTTPError, TypeError, AttributeError) as error:
            await engine.close()
            raise SandboxUnavailable(f"Docker at {socket} makes no boxes of {image}: {error}.") from None

    @property
    def enforces(self) -> Mapping[str, bool]:
        return {check: check not in self._missing for check in CHECKS}

    @property
    def missing(self) -> Mapping[str, str]:
        return self._missing

    async def run(self, command: Command) -> Ran:
        files.check(command)
        if isinstance(command.stdin, int):
            raise Invalid("A container reads from a file, not from a descriptor.", field="stdin")
        with Output(command) as output:
            ran = await self._in_container(command, _content(command.stdin), output.take)
            return msgspec.structs.replace(ran, stdout=bytes(output.kept))

    async def run_pair(self, one: Command, other: Command) -> Pair:
        for command in (one, other):
            files.check(command)
            if command.stdin is not None or command.stdout is not None:
                raise Invalid("Two commands that talk to each other have no other stdin or stdout.")
        to_one, to_other = Conduit(), Conduit()

        async def side(command: Command, source: Conduit, sink: Conduit) -> Ran:
            try:
                return await self._in_container(command, source.chunks(), sink.take)
            finally:
                source.leave()
                await sink.end()

        async with asyncio.TaskGroup() as both:
            first = both.create_task(side(one, to_one, to_other))
            second = both.create_task(side(other, to_other, to_one))
        return Pair(first.result(), second.result())

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            await self._engine.close()

    async def _in_container(self, command: Command, source: AsyncIterator[bytes], sink: Sink) -> Ran:
        """Whatever the engine cannot do is a fault."""
        if self._closed:
            return _fault("the sandbox is closed")
        task = asyncio.ensure_future(Container(self._engine, self._image, command).run(source, sink))
        self._under_way.add(task)
        try:
            await asyncio.wait((task,))
        finally:
            if not task.done():  # who asked for it is cancelled
                task.cancel()
                await asyncio.wait((task,))
            self._under_way.discard(task)
        if task.cancelled():
            return _fault("the sandbox is closed")
        try:
            return task.result()
        except (OSError, httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            return _fault(f"Docker: {str(error) or type(error).__name__}")


class Output:
    """Where a command wants its stdout. Use as a context manager."""

    def __init__(self, command: Command) -> None:
        self._to = command.stdout
        self._file: IO[bytes] | None = None
        self.kept = bytearray()
        """What is there where the command names no other place."""

    async def take(self, chunk: bytes) -> None:
        if self._file is None:
            self.kept += chunk
        else:
            await asyncio.to_thread(self._file.write, chunk)

    def __enter__(self) -> Output:
        if isinstance(self._to, int):
            self._file = open(self._to, "wb", buffering=0, closefd=False)
        elif self._to is not None:
            self._file = self._to.open("xb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class Conduit:
    """A pipe between two containers: what one prints, the other reads, a few chunks ahead."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(4)
        self._left = False

    async def take(self, chunk: bytes) -> None:
        """Waits while the reader is behind; what comes after it has left is dropped."""
        if not self._left:
            await self._queue.put(chunk)

    async def end(self) -> None:
        await self.take(b"")

    async def chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self._queue.get():
            yield chunk

    def leave(self) -> None:
        """Nobody reads any more: whoever waits to write goes on."""
        self._left = True
        while not self._queue.empty():
            self._queue.get_nowait()


async def _content(path: Path | int | None) -> AsyncIterator[bytes]:
    if isinstance(path, Path):
        file = await asyncio.to_thread(path.open, "rb")
        with file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk


def _missing(info: dict[str, Any]) -> dict[str, str]:
    """What an engine does not enforce, by the names of CHECKS, from its /info."""
    found = {"cpu": "Docker's figures are samples"}
    if not info.get("MemoryLimit"):
        found["memory"] = "this engine cannot limit memory"
    if not info.get("PidsLimit"):
        found["processes"] = "this engine cannot limit the number of processes"
    if not any(str(option).startswith("name=seccomp") for option in info.get("SecurityOptions") or ()):
        found["syscalls"] = found["nesting"] = "this engine filters no system calls"
    return found


def _fault(why: str) -> Ran:
    return Ran(run=Run(fault=why))
