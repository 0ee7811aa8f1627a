"""Test data: a zip of `TTCC.in` and `TTCC.out` (digits of task, digits of case), read without trusting it.

Besides, it may have `checker.cpp`, which judges outputs, and `interactor.cpp`, which talks with the program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from windlass.errors import Invalid
from windlass.judge.archive import Archive

MAX_FILE = 256 * 1024 * 1024
"""Bytes of one file, unpacked."""
MAX_ALL = 1024 * 1024 * 1024
"""Bytes of all files together, unpacked."""
MAX_PROGRAM = 1024 * 1024
"""Bytes of a checker's or an interactor's source."""

CHECKER = "checker.cpp"
INTERACTOR = "interactor.cpp"
PROGRAMS = (CHECKER, INTERACTOR)
"""The names of the programs that test data may bring, exactly."""

_NAME = re.compile(r"(\d\d)(\d\d)\.(in|out)\Z", re.ASCII)
_FIELD = "testdata"


class Case(msgspec.Struct, frozen=True, order=True):
    """One case: its numbers, from 1, and the names of its files."""

    task: int
    number: int

    @property
    def input(self) -> str:
        return f"{self.task:02}{self.number:02}.in"

    @property
    def expected(self) -> str:
        return f"{self.task:02}{self.number:02}.out"


def cases_of(archive: IO[bytes] | Path, counts: Sequence[int] | None = None) -> list[Case]:
    """The cases of an archive, in order. With `counts` (cases of each task) it has to have just those.

    Looks at the directory of the archive alone. Raises Invalid or TooLarge with what is wrong and where.
    """
    with _opened(archive) as opened:
        return _cases(opened.names(), counts)


def programs_of(archive: IO[bytes] | Path) -> list[str]:
    """Which of PROGRAMS an archive has. Raises as cases_of."""
    with _opened(archive) as opened:
        return sorted(set(PROGRAMS) & set(opened.names()))


def unpack(archive: IO[bytes] | Path, directory: Path, counts: Sequence[int] | None = None) -> list[Case]:
    """Write the files of an archive into an empty directory; raises as cases_of, and leaves what it wrote.

    Nothing that the archive says is believed: sizes are counted while they are read.
    """
    with _opened(archive) as opened:
        cases = _cases(opened.names(), counts)
        for name in opened.names():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(directory / name, flags, 0o644), "wb") as file:
                for chunk in opened.chunks(name):
                    file.write(chunk)
    return cases


def _opened(archive: IO[bytes] | Path) -> Archive:
    return Archive(
        archive,
        field=_FIELD,
        room=_room,
        room_for_all=MAX_ALL,
        what="test data",
        use=f"files TTCC.in and TTCC.out, and {' and '.join(PROGRAMS)} where the problem has them",
    )


def _room(name: str) -> int:
    if name in PROGRAMS:
        return MAX_PROGRAM
    return MAX_FILE if _NAME.match(name) else 0


def _cases(names: Sequence[str], counts: Sequence[int] | None) -> list[Case]:
    files = {name for name in names if name not in PROGRAMS}
    cases = sorted({Case(int(name[:2]), int(name[2:4])) for name in files})
    if not cases:
        raise Invalid("The test data has no case: nothing could be judged by it.", field=_FIELD)
    for case in cases:
        for name in (case.input, case.expected):
            if name not in files:
                raise Invalid(f"{name} is missing.", field=_FIELD)
    found = [0] * cases[-1].task
    for case in cases:
        if case.task < 1 or case.number != found[case.task - 1] + 1:
            raise Invalid(f"{case.input} does not follow on: tasks and cases count from 01.", field=_FIELD)
        found[case.task - 1] += 1
    if 0 in found:
        raise Invalid(f"Task {found.index(0) + 1:02} has no case.", field=_FIELD)
    if counts is not None and found != list(counts):
        raise Invalid(
            f"The test data has {found} cases in its tasks, the problem says {list(counts)}.", field=_FIELD
        )
    return cases
