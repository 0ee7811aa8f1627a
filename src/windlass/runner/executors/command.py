"""The executor of jobs that are a command: its output comes back while it runs, and any exit code will do."""

from __future__ import annotations

import asyncio
import codecs
import os
from typing import Annotated

import msgspec

from windlass.errors import Invalid
from windlass.judge.verdict import Limits, Run, Status, of_run
from windlass.runner.executors.base import Assignment, CannotJudge, Executed, Executor, Progress
from windlass.runner.executors.results import CaseResult, ResultWriter, text, with_remark
from windlass.runner.sandbox import Command, Sandbox
from windlass.runner.workspace import JobDirectory

MAX_TOLD = 16 * 1024 * 1024
"""Bytes of output that are told while the command runs; what comes after is read and dropped."""
MAX_KEPT = 64 * 1024
"""Bytes of output in the result: the last ones."""

_CHUNK = 64 * 1024
_TOGETHER = ("sh", "-c", 'exec "$@" 2>&1', "sh")
"""One pipe for both: in the order in which a terminal would show it."""


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    argv: Annotated[list[str], msgspec.Meta(min_length=1)]
    env: dict[str, str] = {}
    files: dict[str, str] = {}
    """Text by path, below the directory where the command starts."""
    stdin: str = ""
    time_limit: Annotated[int, msgspec.Meta(ge=1, le=3_600_000)] = 3_600_000
    """Milliseconds, of processor time and on the clock."""
    memory_limit: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1024 * 1024
    """KiB."""
    processes: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256


class _Job(msgspec.Struct, frozen=True):
    command: _Asked


class CommandExecutor(Executor):
    """Runs the job's `command` in a box of `sandbox`, which stays the caller's.

    `{"command": {"argv": [...], "env": {}, "files": {path: text}, "stdin": "", "time_limit": ms,
    "memory_limit": KiB, "processes": n}}`; all but argv may be left out.

    Events: `{"event": "output", "text"}`, stdout and stderr as they come; `{"event": "output", "text": "",
    "truncated": true}` once where there was more than is told.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def execute(self, assignment: Assignment, directory: JobDirectory, progress: Progress) -> Executed:
        """Run a command. The result is the judge's, with one case: AC where the exit code is 0, and as its
        stdout the end of all that was printed."""
        try:
            asked = msgspec.convert(assignment.payload, _Job).command
        except msgspec.ValidationError as error:
            raise CannotJudge(f"The job is malformed: {error}.") from None
        limits = Limits(time_ms=asked.time_limit, memory_kib=asked.memory_limit, wall_ms=asked.time_limit)
        try:
            run, output = await self._run(asked, limits, directory, progress)
        except (Invalid, UnicodeEncodeError) as error:
            raise CannotJudge(f"The command cannot be run: {error}") from None
        status = of_run(run, limits) or Status.ACCEPTED
        with ResultWriter(directory) as writer:
            writer.begin_task()
            writer.add(
                CaseResult.of(
                    run,
                    status,
                    stdout=text(output, MAX_KEPT),
                    stderr=with_remark("", "sandbox", run.fault or ""),
                )
            )
            writer.end()
        return Executed(result=writer.result)

    async def _run(
        self, asked: _Asked, limits: Limits, directory: JobDirectory, progress: Progress
    ) -> tuple[Run, bytes]:
        stdin = directory.path / "stdin"
        await asyncio.to_thread(stdin.write_bytes, asked.stdin.encode())
        read, write = os.pipe()
        output = asyncio.create_task(_tell(read, progress))
        try:
            ran = await self._sandbox.run(
                Command(
                    argv=(*_TOGETHER, *asked.argv),
                    limits=limits,
                    files={path: content.encode() for path, content in asked.files.items()},
                    environment=asked.env,
                    stdin=stdin,
                    stdout=write,
                    processes=asked.processes,
                )
            )
        finally:
            os.close(write)  # the last one: nothing is left of the box
            last = await output
        return ran.run, last + ran.stderr


async def _tell(read: int, progress: Progress) -> bytes:
    """Tell what comes through the pipe until nobody holds its other end; returns the last of it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    told, kept = 0, bytearray()
    reader = asyncio.StreamReader(limit=_CHUNK)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    try:
        while chunk := await reader.read(_CHUNK):
            kept += chunk
            del kept[:-MAX_KEPT]
            if told <= MAX_TOLD:
                told += len(chunk)
                if told > MAX_TOLD:
                    progress({"event": "output", "text": "", "truncated": True})
                elif shown := decoder.decode(chunk):
                    progress({"event": "output", "text": shown})
        if told <= MAX_TOLD and (shown := decoder.decode(b"", final=True)):
            progress({"event": "output", "text": shown})
    finally:
        transport.close()
    return bytes(kept)
