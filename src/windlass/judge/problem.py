"""A problem: what is asked and how it is measured. Values, and how a version is read from its rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import Connection, Row, Select, select

from windlass.judge.results import Points
from windlass.judge.tables import problems, versions
from windlass.judge.testdata import PROGRAMS

MAX_ID = 2**31 - 1
MAX_STATEMENT = 1024 * 1024
"""Characters."""


class ProblemTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task of a problem: some cases that score together."""

    score: Annotated[float, msgspec.Meta(ge=0, le=1_000_000, description="Points for the whole task.")]
    case_count: Annotated[int, msgspec.Meta(ge=1, le=99, description="How many cases it has.")]
    time_limit: Annotated[int, msgspec.Meta(ge=1, le=600_000, description="Processor time of a run, ms.")]
    memory_limit: Annotated[int, msgspec.Meta(ge=1, le=2**26, description="Memory of a run, KiB.")]
    scoring: Annotated[
        Literal["all", "partial"],
        msgspec.Meta(description="all: every case or no points. partial: a share for each accepted case."),
    ] = "all"


class ProblemMeta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a problem is, apart from its test data."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    statement: Annotated[str, msgspec.Meta(max_length=MAX_STATEMENT, description="For people; any text.")] = (
        ""
    )
    checker: Annotated[
        str,
        msgspec.Meta(
            max_length=100,
            description="lines (or empty), exact, tokens, floats:TOLERANCE; checker.cpp: one of its own.",
        ),
    ] = ""
    interactor: Annotated[
        Literal["", "interactor.cpp"],
        msgspec.Meta(description="interactor.cpp: one of its own talks with the program."),
    ] = ""
    tasks: Annotated[list[ProblemTask], msgspec.Meta(min_length=1, max_length=99)]

    @property
    def programs(self) -> list[str]:
        """The programs that its test data has to bring."""
        return [name for name in (self.checker, self.interactor) if name in PROGRAMS]

    @property
    def counts(self) -> list[int]:
        """How many cases each task has."""
        return [task.case_count for task in self.tasks]

    def points(self) -> list[Points]:
        """How each task scores."""
        return [Points(task.score, task.scoring == "partial", task.case_count) for task in self.tasks]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a problem. Times in ms since the epoch."""

    id: int
    version: int
    meta: ProblemMeta
    testdata: str
    """SHA-256 of the archive in hexadecimal: its checksum."""
    testdata_size: int
    created_at: int
    updated_at: int

    @property
    def measure(self) -> tuple[Any, ...]:
        """What a submission's cases depend on; the points are counted when they are there."""
        limits = [(task.case_count, task.time_limit, task.memory_limit) for task in self.meta.tasks]
        return self.testdata, self.meta.checker, self.meta.interactor, limits


def current(
    connection: Connection, problem_id: int, *, lock: Literal["read", "write"] | None = None
) -> Problem | None:
    """A problem as it is now; with a `lock` nobody else changes it until the transaction's end.

    Several may have it to "read".
    """
    if lock is not None:
        # By itself: one that waits for the row in a join gets the row as it became, and the rest as it was.
        only = select(problems.c.id).where(problems.c.id == problem_id)
        connection.execute(only.with_for_update(read=lock == "read"))
    row = connection.execute(_current(versions.c.statement).where(problems.c.id == problem_id)).first()
    if row is None:
        return None
    problem = _problem(row)
    meta = msgspec.structs.replace(problem.meta, statement=row.statement.decode())
    return msgspec.structs.replace(problem, meta=meta)


def page(connection: Connection, after: int, limit: int) -> list[Problem]:
    """Problems by id, those above `after`, without their statements."""
    wanted = _current().where(problems.c.id > after).order_by(problems.c.id).limit(limit)
    return [_problem(row) for row in connection.execute(wanted)]


def meta_of(connection: Connection, problem_id: int, version: int) -> ProblemMeta:
    """The meta of a version that there is, or was, without its statement."""
    wanted = select(versions.c.meta).where(versions.c.problem_id == problem_id, versions.c.version == version)
    return _decode(connection.execute(wanted).scalar_one())


def encode_meta(meta: ProblemMeta) -> bytes:
    """Meta as its row keeps it: without the statement."""
    return msgspec.json.encode(msgspec.structs.replace(meta, statement=""))


_decode = msgspec.json.Decoder(ProblemMeta).decode


def _current(*more: Any) -> Select[Any]:
    """Current versions, with `more` columns."""
    return (
        select(problems, versions.c.meta, versions.c.testdata, versions.c.testdata_size, *more)
        .add_columns(versions.c.created_at.label("updated_at"))
        .join_from(
            problems,
            versions,
            (versions.c.problem_id == problems.c.id) & (versions.c.version == problems.c.version),
        )
    )


def _problem(row: Row[Any]) -> Problem:
    return Problem(
        id=row.id,
        version=row.version,
        meta=_decode(row.meta),
        testdata=row.testdata,
        testdata_size=row.testdata_size,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
