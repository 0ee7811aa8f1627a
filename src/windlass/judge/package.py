"""A problem as a directory: problem.toml, a statement, data/TTCC.in and data/TTCC.out, and perhaps programs.

    title = "A + B"
    statement = "statement.md"      # the default
    checker = "tokens"              # by default checker.cpp where there is one, else "lines"

    [[tasks]]
    score = 40
    case_count = 2
    time_limit = 1000               # milliseconds
    memory_limit = 65536            # KiB
    scoring = "partial"             # or "all", the default: every case or nothing

What else is in the directory (solutions, generators) stays there.
"""

from __future__ import annotations

import io
import tomllib
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from windlass.errors import Invalid
from windlass.judge.checkers import checker_of
from windlass.judge.testdata import CHECKER, PROGRAMS, cases_of

MAX_STATEMENT = 1024 * 1024
"""Bytes."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can tell; the same files make the same bytes


class _Task(msgspec.Struct, forbid_unknown_fields=True):
    score: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
    case_count: Annotated[int, msgspec.Meta(ge=1, le=99)]
    time_limit: Annotated[int, msgspec.Meta(ge=1, le=600_000)]
    memory_limit: Annotated[int, msgspec.Meta(ge=1, le=64 * 1024 * 1024)]
    scoring: Literal["partial", "all"] = "all"


class _Problem(msgspec.Struct, forbid_unknown_fields=True):
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    tasks: Annotated[list[_Task], msgspec.Meta(min_length=1, max_length=99)]
    statement: str = "statement.md"
    checker: str = ""


def read_package(directory: Path) -> tuple[dict[str, Any], bytes]:
    """(meta, test data) of the problem in a directory.

    meta: `{"title", "statement" (its text), "checker", "tasks": [{"score", "case_count", "time_limit" (ms),
    "memory_limit" (KiB), "scoring"}]}`; checker is "" where the problem brings its own, or names none. Test
    data: a zip as testdata.unpack takes it; the same files make the same bytes. Raises Invalid or TooLarge,
    naming the file at fault.
    """
    problem = _problem(directory)
    programs = [name for name in PROGRAMS if _is_file(directory / name)]
    if problem.checker == CHECKER and CHECKER not in programs:
        raise _wrong(directory, f"names {CHECKER}, which is not there")
    checker = "" if problem.checker == CHECKER else problem.checker
    checker_of(checker)
    if checker:
        programs = [name for name in programs if name != CHECKER]  # there, but another one is chosen
    testdata = _packed(directory, programs)
    cases_of(io.BytesIO(testdata), [task.case_count for task in problem.tasks])
    meta = {
        "title": problem.title,
        "statement": _statement(directory, problem.statement),
        "checker": checker,
        "tasks": [msgspec.to_builtins(task) for task in problem.tasks],
    }
    return meta, testdata


def _problem(directory: Path) -> _Problem:
    try:
        text = (directory / "problem.toml").read_text("utf-8")
        return msgspec.convert(tomllib.loads(text), _Problem)
    except OSError as error:
        raise _wrong(directory, f"cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(directory, f"is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise _wrong(directory, f"is wrong: {error}") from None


def _statement(directory: Path, name: str) -> str:
    path = directory / name
    if Path(name).name != name or not _is_file(path):
        raise _wrong(directory, f"names the statement {name!r}, which is no file beside it")
    content = path.read_bytes()
    if len(content) > MAX_STATEMENT:
        raise Invalid(f"{path} is longer than {MAX_STATEMENT >> 20} MiB.", field="statement")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}.", field="statement"
        ) from None


def _packed(directory: Path, programs: list[str]) -> bytes:
    data = directory / "data"
    if not data.is_dir():
        raise Invalid(f"{data} is no directory: it holds the cases, TTCC.in and TTCC.out.", field="testdata")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in [*sorted(data.iterdir()), *(directory / name for name in programs)]:
            if not _is_file(path) or (path.parent == data and path.name in PROGRAMS):
                raise Invalid(
                    f"{path} has no place in {data}: it holds files TTCC.in and TTCC.out.", field="testdata"
                )
            member = zipfile.ZipInfo(path.name, _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.file_size = path.stat().st_size  # decides whether its head has room for more than 4 GiB
            with path.open("rb") as content, archive.open(member, "w") as packed:
                while chunk := content.read(1024 * 1024):
                    packed.write(chunk)
    return file.getvalue()


def _is_file(path: Path) -> bool:
    """A plain file; a link is none: a problem from somebody else must not name what is outside of it."""
    return path.is_file() and not path.is_symlink()


def _wrong(directory: Path, what: str) -> Invalid:
    return Invalid(f"{directory / 'problem.toml'} {what}.", field="problem")
