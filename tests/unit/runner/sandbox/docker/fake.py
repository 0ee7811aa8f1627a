"""A Docker Engine of a few lines on a unix socket: containers are coroutines that a test brings."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

INFO = {"MemoryLimit": True, "PidsLimit": True, "SecurityOptions": ["name=seccomp,profile=builtin"]}
START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeContainer:
    """What was asked for, and what a test's program does with it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.files: dict[str, tarfile.TarInfo] = {}
        self.contents: dict[str, bytes] = {}
        self.stdin: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.printed = asyncio.Event()
        """All that it printed has gone out; with the end, unless the program says otherwise."""
        self.lingers = False
        """Whether the engine is slow to say that this was all: only when somebody wants it killed."""
        self.killed = asyncio.Event()
        self.removed = False
        self.exit_code = 0
        self.oom = False
        self.cpu_ns = 0
        self.memory = 3 * 1024 * 1024
        self.wall_ms = 20
        self.made: tarfile.TarInfo | None = None
        self.made_content = b""

    @property
    def argv(self) -> list[str]:
        argv: list[str] = self.config["Cmd"]
        return argv

    async def print(self, content: bytes, stream: int = 1) -> None:
        assert self.writer is not None
        self.writer.write(bytes([stream, 0, 0, 0]) + len(content).to_bytes(4) + content)
        await self.writer.drain()

    async def read(self) -> bytes:
        """All of stdin."""
        assert self.stdin is not None
        return await self.stdin.read()

    async def line(self) -> bytes:
        assert self.stdin is not None
        return await self.stdin.readline()

    def make(self, name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> None:
        """What the engine gives when it is asked for a file."""
        self.made = tarfile.TarInfo(name)
        self.made.type, self.made.size, self.made_content = kind, len(content), content

    def state(self) -> dict[str, Any]:
        def told(moment: datetime) -> str:
            return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"

        end = START + timedelta(milliseconds=self.wall_ms)
        return {
            "ExitCode": self.exit_code,
            "OOMKilled": self.oom,
            "StartedAt": told(START),
            "FinishedAt": told(end),
        }


Program = Callable[[FakeContainer], Awaitable[int]]
"""Returns the exit code; a killed one is cancelled."""


class FakeEngine:
    """`program` is what every container does; `broken` maps "METHOD last-word" to a status and a message."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.info: Any = INFO
        self.images = {"windlass-judge"}
        self.broken: dict[str, tuple[int, str]] = {}
        self.containers: list[FakeContainer] = []
        self.calls: list[str] = []
        self._running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def serving(self, socket: Path) -> AsyncIterator[Path]:
        server = await asyncio.start_unix_server(self._connected, socket)
        try:
            yield socket
        finally:
            server.close()
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            self._running.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._serve(reader, writer):
                    pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()  # or the loop may end before the socket is closed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        length = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
        body = await reader.readexactly(int(length[0].split(":")[1])) if length else b""
        path = target.partition("?")[0]
        assert path.startswith("/v1.41/")
        word = path.rsplit("/", 1)[1]
        self.calls.append(f"{method} {word}")
        if broken := self.broken.get(f"{method} {word}"):
            status, message = broken
            return await self._answer(writer, status, {"message": message})
        if path == "/v1.41/info":
            return await self._answer(writer, 200, self.info)
        if path.startswith("/v1.41/images/"):
            known = path.split("/")[3] in self.images
            return await self._answer(writer, 200 if known else 404, {"message": "No such image"})
        if word == "create":
            self.containers.append(FakeContainer(json.loads(body)))
            return await self._answer(writer, 201, {"Id": str(len(self.containers) - 1)})
        container = self.containers[int(path.split("/")[3])]
        if word == "attach":
            writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            if "stdin=1" in target:
                container.stdin = reader
            if "stdout=1" in target:
                container.writer = writer
            await container.printed.wait()
            return False
        return await self._of_container(method, word, container, body, writer)

    async def _of_container(
        self, method: str, word: str, container: FakeContainer, body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        match method, word:
            case "PUT", "archive":
                with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                    for member in archive:
                        container.files[member.name] = member
                        if content := archive.extractfile(member):
                            container.contents[member.name] = content.read()
                return await self._answer(writer, 200, None)
            case "GET", "archive":
                if container.made is None:
                    return await self._answer(writer, 404, {"message": "Could not find the file"})
                file = io.BytesIO()
                with tarfile.open(fileobj=file, mode="w") as archive:
                    archive.addfile(container.made, io.BytesIO(container.made_content))
                return await self._send(writer, 200, file.getvalue())
            case "POST", "start":
                container.started.set()
                task = asyncio.create_task(self._run(container))
                self._running.add(task)
                return await self._answer(writer, 204, None)
            case "POST", "kill":
                if container.ended.is_set():
                    container.printed.set()
                    return await self._answer(writer, 409, {"message": "is not running"})
                container.killed.set()
                return await self._answer(writer, 204, None)
            case "POST", "wait":
                await container.ended.wait()
                return await self._answer(writer, 200, {"StatusCode": container.exit_code})
            case "GET", "stats":
                alive = not container.ended.is_set()
                return await self._answer(
                    writer,
                    200,
                    {
                        "read": "2026-01-01T00:00:00.010Z",
                        "cpu_stats": {"cpu_usage": {"total_usage": container.cpu_ns if alive else 0}},
                        "memory_stats": {"usage": container.memory, "stats": {"inactive_file": 1024 * 1024}}
                        if alive
                        else {},
                    },
                )
            case "GET", "json":
                return await self._answer(writer, 200, {"State": container.state()})
            case "DELETE", _:
                container.removed = True
                container.killed.set()
                return await self._answer(writer, 204, None)
        raise AssertionError((method, word))

    async def _run(self, container: FakeContainer) -> None:
        program = asyncio.ensure_future(self.program(container))
        killed = asyncio.create_task(container.killed.wait())
        await asyncio.wait((program, killed), return_when=asyncio.FIRST_COMPLETED)
        if program.done():
            container.exit_code = program.result()
        else:
            container.exit_code = 137
        for task in (program, killed):
            task.cancel()
        await asyncio.gather(program, killed, return_exceptions=True)
        container.ended.set()
        if not container.lingers:
            container.printed.set()

    async def _answer(self, writer: asyncio.StreamWriter, status: int, content: Any) -> bool:
        return await self._send(writer, status, b"" if content is None else json.dumps(content).encode())

    async def _send(self, writer: asyncio.StreamWriter, status: int, content: bytes) -> bool:
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        await writer.drain()
        return True
