"""From a source to the one file that is run: in a box, since compilers do what sources tell them."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path

import msgspec

from windlass.judge.languages import LANGUAGES, Compiling, Language
from windlass.judge.verdict import Limits, Status, of_run
from windlass.runner.executors.base import CannotJudge
from windlass.runner.executors.results import exit_code, text
from windlass.runner.sandbox import Command, Fetch, Sandbox

MAX_TEXT = 16 * 1024
"""Bytes of what a compiler says that are kept."""
_KEPT = 64
"""Compiled checkers and interactors that are remembered."""
_KEPT_BYTES = 8 * 1024 * 1024
"""The largest of them that is."""
_CPP = LANGUAGES[1]


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a source."""

    program: Path | None = None
    """What is run; None where there is none, and then `status` says why."""
    status: Status | None = None
    """CE, or JE where it was not the source's fault."""
    said: str = ""
    """By the compiler, or about it."""
    exit_code: int = -1


async def build(sandbox: Sandbox, language: Language, source: bytes, to: Path) -> Built:
    """Compile `source` in a fresh box and put the program at `to`, which must not exist."""
    compiling = language.compiling
    if compiling is None:
        return Built(program=await asyncio.to_thread(_write, to, source))
    made = language.program != language.source
    limits = Limits(time_ms=compiling.time_ms, memory_kib=compiling.memory_kib, wall_ms=compiling.wall_ms)
    ran = await sandbox.run(
        Command(
            argv=compiling.argv,
            limits=limits,
            files={language.source: source},
            output_bytes=MAX_TEXT,
            stderr_bytes=MAX_TEXT,
            writable_bytes=compiling.output_bytes,
            processes=compiling.processes,
            fetch=Fetch(name=language.program, to=to, max_bytes=compiling.output_bytes) if made else None,
        )
    )
    run = ran.run
    status = of_run(run, limits)
    if status is Status.JUDGE_ERROR:
        return Built(status=status, said=f"the compiler could not be run: {run.fault}")
    if status is not None:
        said = [text(stream, MAX_TEXT) for stream in (ran.stderr, ran.stdout) if stream]
        said += _limit(status, compiling)
        return Built(status=Status.COMPILE_ERROR, said="\n".join(said), exit_code=exit_code(run))
    if not made:
        return Built(program=await asyncio.to_thread(_write, to, source))
    if ran.fetched is None:
        # The compiler was content: whatever became of the program, it is not the source that was wrong.
        return Built(
            status=Status.JUDGE_ERROR, said=f"the compiled program is not there: {ran.unfetched or 'unknown'}"
        )
    return Built(program=ran.fetched)


class Helpers:
    """Compiles the programs that problems bring (checkers, interactors), and remembers the last ones."""

    def __init__(self, sandbox: Sandbox, turn: AbstractAsyncContextManager[object]) -> None:
        """`turn` is entered for each compilation: heavy work takes turns."""
        self._sandbox = sandbox
        self._turn = turn
        self._one_at_a_time = asyncio.Lock()
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

    async def program(self, source: Path, directory: Path) -> Path:
        """The program of a C++ source, in the job's `directory`. Raises CannotJudge where it is none."""
        to = directory / source.stem
        content = await asyncio.to_thread(source.read_bytes)
        key = sha256(content).digest()
        async with self._one_at_a_time:  # whoever waited here for the same source finds it compiled
            if kept := self._kept.get(key):
                self._kept.move_to_end(key)
                return await asyncio.to_thread(_write, to, kept)
            async with self._turn:
                built = await build(self._sandbox, _CPP, content, to)
            if built.program is None:
                raise CannotJudge(f"{source.name} of this problem does not compile: {built.said}")
            await self._keep(key, built.program)
        return built.program

    async def _keep(self, key: bytes, program: Path) -> None:
        content = await asyncio.to_thread(program.read_bytes)
        if len(content) <= _KEPT_BYTES:
            self._kept[key] = content
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)


def _limit(status: Status, compiling: Compiling) -> list[str]:
    """What there is to say of a compiler that was ended."""
    match status:
        case Status.TIME_LIMIT:
            return [f"The compiler took longer than {compiling.time_ms / 1000:g} s."]
        case Status.MEMORY_LIMIT:
            return [f"The compiler needed more than {compiling.memory_kib // 1024} MiB of memory."]
        case Status.OUTPUT_LIMIT:
            return [f"The compiler printed more than {MAX_TEXT // 1024} KiB."]
        case _:
            return []


def _write(to: Path, content: bytes) -> Path:
    """A new file that everybody may read and execute, and nobody write."""
    with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o555), "wb") as file:
        os.fchmod(file.fileno(), 0o555)  # whatever the umask says
        file.write(content)
    return to
