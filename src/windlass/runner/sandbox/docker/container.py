"""One command in one container: what it is made of, what goes in, what comes out, what it used."""

from __future__ import annotations

import asyncio
import io
import math
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from windlass.judge.languages import PATH
from windlass.judge.verdict import NEAR, Run
from windlass.runner.sandbox.base import PLACE, Command, Fetch, Ran
from windlass.runner.sandbox.docker.engine import Attached, Engine, Refused

LABEL = "windlass.box"
"""On every container, so that those of a runner that was killed can be found."""

_NOBODY = 65534
_LOOK_SECONDS = 0.05
_PATIENCE = 60.0
"""Seconds for a container that was killed to be gone."""
_CONFLICT = 409
_STDOUT = 1

Sink = Callable[[bytes], Awaitable[None]]


class Container:
    """A container from its making to its removal; `run` may be called once."""

    def __init__(self, engine: Engine, image: str, command: Command) -> None:
        self._engine = engine
        self._image = image
        self._command = command
        self._id = ""
        self._cpu_ns = 0
        self._looked: float | None = None
        self._memory = 0
        self._exceeded = False
        self._too_long = False

    async def run(self, source: AsyncIterator[bytes], sink: Sink) -> Ran:
        """Raises OSError or httpx.HTTPError where the engine could not; always removes the container."""
        try:
            made = await self._engine.call("POST", "/containers/create", content=self._config())
            self._id = made["Id"]
            await self._put()
            return await self._live(source, sink)
        finally:
            if self._id:
                remove = self._engine.call(
                    "DELETE", f"/containers/{self._id}", query={"force": "1", "v": "1"}
                )
                await asyncio.shield(asyncio.ensure_future(remove))

    def _config(self) -> dict[str, Any]:
        command = self._command
        limits = command.limits
        memory = limits.memory_kib * 1024
        seconds = math.ceil(limits.time_ms * (1 + NEAR) / 1000) + 1
        environment = {"PATH": PATH, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
        room = f"rw,exec,nosuid,nodev,size={max(1, command.writable_bytes)}"  # 0 would be no limit
        return {
            "Image": self._image,
            "Entrypoint": [""],
            "Cmd": list(command.argv),
            "Env": [f"{name}={value}" for name, value in (environment | dict(command.environment)).items()],
            "WorkingDir": PLACE,
            "User": f"{_NOBODY}:{_NOBODY}",
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "NetworkDisabled": True,
            "Labels": {LABEL: str(os.getpid())},
            "HostConfig": {
                "NetworkMode": "none",
                "IpcMode": "none",
                "Init": True,  # or the program were process 1, which most signals do not end
                "Memory": memory,
                "MemorySwap": memory,
                "PidsLimit": command.processes + 1,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"],
                "Tmpfs": dict.fromkeys(("/tmp", "/var/tmp", "/run"), room),
                "LogConfig": {"Type": "none"},
                "Ulimits": [
                    {"Name": name, "Soft": value, "Hard": value}
                    for name, value in (("core", 0), ("cpu", seconds), ("fsize", command.writable_bytes))
                ],
            },
        }

    async def _put(self) -> None:
        with tempfile.TemporaryFile() as file:
            size = await asyncio.to_thread(_pack, file, self._command)
            await self._engine.put_archive(self._id, file, size)

    async def _live(self, source: AsyncIterator[bytes], sink: Sink) -> Ran:
        stderr = bytearray()
        async with (
            await self._engine.attach(self._id, "stdin") as stdin,
            await self._engine.attach(self._id, "stdout", "stderr") as attached,
        ):
            await self._engine.call("POST", f"/containers/{self._id}/start")
            feeding = asyncio.ensure_future(stdin.feed(source))
            watching = asyncio.ensure_future(self._watch())
            taking = asyncio.ensure_future(self._take(attached, sink, stderr))
            try:
                await asyncio.wait((taking, watching), return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    watching.result()  # who cannot look cannot keep limits: that is a fault
                    await asyncio.wait_for(taking, _PATIENCE)
                taking.result()
                ended_ns = time.monotonic_ns()
                await self._engine.call("POST", f"/containers/{self._id}/wait")
            finally:
                beside = (feeding, watching, taking)
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
        state = (await self._engine.call("GET", f"/containers/{self._id}/json"))["State"]
        run = self._run(state)
        fetched, why = None, ""
        if self._command.fetch is not None and run.exit_code == 0:
            fetched, why = await self._fetch(self._command.fetch)
        return Ran(run=run, stderr=bytes(stderr), fetched=fetched, unfetched=why, ended_ns=ended_ns)

    async def _take(self, attached: Attached, sink: Sink, stderr: bytearray) -> None:
        """Take what the program prints until it has ended; all of it is read, whatever is kept."""
        room = self._command.output_bytes
        capped = not isinstance(self._command.stdout, int)
        async for stream, piece in attached.pieces():
            if stream != _STDOUT:
                stderr += piece[: max(0, self._command.stderr_bytes - len(stderr))]
                continue
            if capped and len(piece) > room:
                self._exceeded = True
                await sink(piece[:room])
                room = 0
                await self._kill()
            elif not self._exceeded:
                room -= len(piece)
                await sink(piece)

    async def _watch(self) -> None:
        """Look at what it uses, and end it when that is too much; returns when it has ended it."""
        limits = self._command.limits
        loop = asyncio.get_running_loop()
        end = loop.time() + limits.wall_ms / 1000
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, end - loop.time())))
            if loop.time() >= end:
                self._too_long = True  # if this is cancelled, it was on its way
                self._too_long = await self._kill()
                return
            query = {"stream": "false", "one-shot": "true"}
            self._look(await self._engine.call("GET", f"/containers/{self._id}/stats", query=query))
            if self._cpu_ns > limits.time_ms * (1 + NEAR) * 1e6:
                await self._kill()
                return

    def _look(self, stats: dict[str, Any]) -> None:
        spent = stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage") or 0
        memory = stats.get("memory_stats", {})
        cached = memory.get("stats", {})
        used = memory.get("usage", 0) - cached.get("total_inactive_file", cached.get("inactive_file", 0))
        self._memory = max(self._memory, used)
        if spent >= self._cpu_ns and spent:  # of a container that has ended all figures are 0
            self._cpu_ns, self._looked = spent, _moment(stats["read"])

    async def _kill(self) -> bool:
        """Whether that ended it: False where it had ended before."""
        try:
            await self._engine.call("POST", f"/containers/{self._id}/kill")
        except Refused as error:
            if error.status != _CONFLICT:
                raise
            return False
        return True

    def _run(self, state: dict[str, Any]) -> Run:
        started, ended = _moment(state["StartedAt"]), _moment(state["FinishedAt"])
        # What it used after the last look is not known: taken for one processor's time until the end.
        unseen = max(0.0, ended - (started if self._looked is None else self._looked))
        wall_ms = max(0, math.ceil((ended - started) * 1000))
        limits = self._command.limits
        if self._too_long:
            wall_ms = max(wall_ms, limits.wall_ms + 1)
        code = state["ExitCode"]
        return Run(
            exit_code=code if code < 128 else None,
            signal=code - 128 if code >= 128 else None,
            time_ms=min(int(self._cpu_ns / 1e6 + unseen * 1000), max(wall_ms, int(self._cpu_ns / 1e6))),
            wall_ms=wall_ms,
            memory_kib=self._memory // 1024,
            out_of_memory=bool(state["OOMKilled"]),
            output_exceeded=self._exceeded,
        )

    async def _fetch(self, fetch: Fetch) -> tuple[Path | None, str]:
        with tempfile.TemporaryFile() as file:
            try:
                whole = await self._engine.get_archive(
                    self._id, f"{PLACE}/{fetch.name}", file, fetch.max_bytes + 16 * 1024
                )
            except Refused as error:
                return None, str(error)
            if not whole:
                return None, f"it is larger than {fetch.max_bytes} bytes"
            return await asyncio.to_thread(_unpack, file, fetch)


def _pack(file: IO[bytes], command: Command) -> int:
    """Write a tar of what the command finds in PLACE; returns its size."""
    writable = command.fetch is not None  # a compiler's: it writes where it is started
    with tarfile.open(fileobj=file, mode="w") as archive:
        place = tarfile.TarInfo(PLACE.lstrip("/"))
        place.type, place.mode = tarfile.DIRTYPE, 0o755
        place.uid = place.gid = _NOBODY if writable else 0
        archive.addfile(place)
        for name, content in command.files.items():
            member = tarfile.TarInfo(f"{PLACE.lstrip('/')}/{name}")
            member.mode = 0o555
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                with content.open("rb") as original:
                    member.size = os.fstat(original.fileno()).st_size
                    archive.addfile(member, original)
    size = file.tell()
    file.seek(0)
    return size


def _unpack(file: IO[bytes], fetch: Fetch) -> tuple[Path | None, str]:
    """The one regular file of a tar, made anew at `fetch.to`."""
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            member = archive.next()
            content = archive.extractfile(member) if member is not None and member.isreg() else None
            if content is None:
                return None, "it is no regular file"
            if member is not None and member.size > fetch.max_bytes:
                return None, f"it is larger than {fetch.max_bytes} bytes"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(fetch.to, flags, 0o555), "wb") as target:
                os.fchmod(target.fileno(), 0o555)
                shutil.copyfileobj(content, target)
    except tarfile.TarError as error:
        return None, f"the engine's archive of it is damaged: {error}"
    return fetch.to, ""


def _moment(text: str) -> float:
    """Seconds since 1970 of a time as the engine writes it: RFC 3339 with up to nine decimals."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{rest or 0}")
