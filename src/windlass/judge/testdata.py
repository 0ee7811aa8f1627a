"""Test data: a zip of `TTCC.in` and `TTCC.out` (digits of task, digits of case), read without trusting it."""

from __future__ import annotations

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from windlass.errors import Invalid, TooLarge

MAX_FILE = 256 * 1024 * 1024
"""Bytes of one file, unpacked."""
MAX_ALL = 1024 * 1024 * 1024
"""Bytes of all files together, unpacked."""

_NAME = re.compile(r"(\d\d)(\d\d)\.(in|out)\Z", re.ASCII)
_CHUNK = 1024 * 1024
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
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
        return _cases(_members(opened), counts)


def unpack(archive: IO[bytes] | Path, directory: Path, counts: Sequence[int] | None = None) -> list[Case]:
    """Write the files of an archive into an empty directory; raises as cases_of, and leaves what it wrote.

    Nothing that the archive says is believed: sizes are counted while they are read.
    """
    with _opened(archive) as opened:
        members = _members(opened)
        cases = _cases(members, counts)
        room = MAX_ALL
        for member in members:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(directory / member.filename, flags, 0o644), "wb") as file:
                for chunk in _content(opened, member):
                    room -= len(chunk)
                    if room < 0 or file.tell() + len(chunk) > MAX_FILE:
                        raise _too_large(member.filename)
                    file.write(chunk)
    return cases


def _opened(archive: IO[bytes] | Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise Invalid(f"The test data is no zip: {error}.", field=_FIELD) from None


def _members(opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The archive's files, each of which may be there."""
    seen: set[str] = set()
    total = 0
    members = opened.infolist()
    for member in members:
        name = member.filename
        shown = repr(name[:60])
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not _NAME.match(name) or kind not in (0, stat.S_IFREG):
            raise Invalid(f"{shown} has no place in test data: use files TTCC.in and TTCC.out.", field=_FIELD)
        if name in seen:
            raise Invalid(f"{shown} is there twice.", field=_FIELD)
        if member.flag_bits & 1 or member.compress_type not in _PLAIN:
            raise Invalid(f"{shown} is encrypted or packed in an unusual way.", field=_FIELD)
        seen.add(name)
        total += member.file_size
        if member.file_size > MAX_FILE or total > MAX_ALL:
            raise _too_large(name)
    return members


def _cases(members: Sequence[zipfile.ZipInfo], counts: Sequence[int] | None) -> list[Case]:
    names = {member.filename for member in members}
    cases = sorted({Case(int(name[:2]), int(name[2:4])) for name in names})
    if not cases:
        raise Invalid("The test data has no case: nothing could be judged by it.", field=_FIELD)
    for case in cases:
        for name in (case.input, case.expected):
            if name not in names:
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


def _content(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with opened.open(member) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Invalid(f"{member.filename} cannot be unpacked: {error}.", field=_FIELD) from None


def _too_large(name: str) -> TooLarge:
    return TooLarge(
        f"With {name} the test data is too large: {MAX_FILE >> 20} MiB a file, {MAX_ALL >> 20} MiB in all.",
        field=_FIELD,
    )
