"""The judge's answer as it goes over the wire: written case by case, so that its size does not matter."""

from __future__ import annotations

import codecs
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from windlass.judge.verdict import Run, Status
from windlass.runner.workspace import JobDirectory

TEXT = 4 * 1024
"""Bytes of a case's stdout, and of its stderr, that the answer keeps: the first ones."""
ALL_TEXT = 16 * 1024 * 1024
"""Bytes of stdout and stderr in one answer; the cases after that have none, but for their verdicts."""


SMALL = 64 * 1024
"""Bytes of an answer that is not written to the disk."""


class CaseResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the wire says of one case."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = -1
    """128 and the signal where a signal ended it, as shells have it; -1 where nothing was run."""
    exec_time: int = 0
    """Milliseconds."""
    memory_usage: int = 0
    """KiB."""
    status: Status

    @classmethod
    def of(cls, run: Run, status: Status, *, stdout: str = "", stderr: str = "") -> CaseResult:
        """With the figures of `run`; a program that waited past its time is told the time that it waited."""
        waited = status is Status.TIME_LIMIT and run.wall_ms > run.time_ms
        return cls(
            stdout=stdout,
            stderr=stderr,
            exit_code=exit_code(run),
            exec_time=run.wall_ms if waited else run.time_ms,
            memory_usage=run.memory_kib,
            status=status,
        )


class ResultWriter:
    """Writes `{"tasks": [[case, ...], ...]}`: a small one in memory, a large one into the job's directory.

    Use as a context manager; OSError: there is no room for it.
    """

    def __init__(self, directory: JobDirectory) -> None:
        self._directory = directory
        self._parts = bytearray()
        """What is not in the file."""
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._room = ALL_TEXT
        self._tasks = 0
        self._cases = 0

    @property
    def result(self) -> bytes | Path:
        """All of it, after the end: the text, or the file with it."""
        return bytes(self._parts) if self._path is None else self._path

    def _write(self, part: bytes) -> None:
        self._parts += part
        if len(self._parts) > SMALL:
            if self._file is None:
                self._path = self._directory.path / "result.json"
                self._file = self._path.open("xb")
            self._file.write(self._parts)
            self._parts.clear()

    def begin_task(self) -> None:
        self._write(b"],[" if self._tasks else b'{"tasks":[[')
        self._tasks += 1
        self._cases = 0

    def add(self, case: CaseResult) -> None:
        """The next case of the task that was begun last."""
        size = len(case.stdout) + len(case.stderr)
        if size > self._room:
            case = msgspec.structs.replace(case, stdout="", stderr="")
        else:
            self._room -= size
        if self._cases:
            self._write(b",")
        self._write(msgspec.json.encode(case))
        self._cases += 1

    def end(self) -> None:
        self._write(b"]]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with self._file:
                self._file.write(self._parts)


def text(content: bytes, most: int = TEXT) -> str:
    """The first bytes of what a program wrote, as text; what is not UTF-8 becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(
        content[:most], final=len(content) <= most
    )  # a letter that is cut in two is left out


def with_remark(stderr: str, who: str, remark: str) -> str:
    """`stderr` and a last line that tells what the judge has to say."""
    if not remark:
        return stderr
    end = "" if not stderr or stderr.endswith("\n") else "\n"
    return f"{stderr}{end}{who}: {remark}"


def exit_code(run: Run) -> int:
    """As the wire has it: see CaseResult."""
    if run.signal is not None:
        return 128 + run.signal
    return -1 if run.exit_code is None else run.exit_code
