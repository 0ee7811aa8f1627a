"""Problems: making, changing, reading and deleting them. Every change is a new version."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from windlass.clock import Clock
from windlass.database import Database
from windlass.errors import Conflict, Invalid, ProblemNotFound
from windlass.judge.checkers import checker_of
from windlass.judge.files import Files, Incoming
from windlass.judge.generations import DONE, Generations
from windlass.judge.presence import Presence
from windlass.judge.problem import MAX_ID, Problem, ProblemMeta, current, encode_meta, page
from windlass.judge.sweeper import Sweeper
from windlass.judge.tables import problems, submissions, versions
from windlass.judge.testdata import CHECKER, MAX_ALL, MAX_FILE, cases_of, programs_of
from windlass.queues.watching import Watches

MAX_TESTDATA = MAX_ALL
"""Bytes of the archive; unpacked it may have as many."""

_CHUNK = 1024 * 1024
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)
"""What zipfile raises for a damaged file."""


class Problems:
    """The problems of one installation."""

    def __init__(
        self,
        database: Database,
        files: Files,
        clock: Clock,
        generations: Generations,
        presence: Presence,
        sweeper: Sweeper,
        watches: Watches,
    ) -> None:
        self._database = database
        self._files = files
        self._clock = clock
        self._generations = generations
        self._presence = presence
        self._sweeper = sweeper
        self._watches = watches

    async def put(
        self, problem_id: int, meta: ProblemMeta, data: Incoming | None = None
    ) -> tuple[Problem, bool]:
        """Create a problem, or give it a new version; without `data` it keeps its test data. True where new.

        Submissions without a verdict begin anew where what they are measured by has changed. Raises Invalid,
        TooLarge.
        """
        _check(problem_id, meta)
        if data is None:
            if not await self._presence.has(problem_id):
                raise _without_data()
            return await self._write(problem_id, meta, None)
        await asyncio.to_thread(_check_testdata, data, meta)
        async with self._kept(data) as digest:
            return await self._write(problem_id, meta, (digest, data.size))

    async def create(self, meta: ProblemMeta, data: Incoming) -> Problem:
        """A new problem, under the number behind the highest that there ever was. Raises as `put`."""
        _check_meta(meta)
        await asyncio.to_thread(_check_testdata, data, meta)
        async with self._kept(data) as digest:
            while True:
                number = await self._database.read(_next)
                try:
                    problem, _ = await self._write(number, meta, (digest, data.size), new=True)
                except Conflict:
                    continue
                return problem

    async def _write(
        self, problem_id: int, meta: ProblemMeta, data: tuple[str, int] | None, *, new: bool = False
    ) -> tuple[Problem, bool]:
        """Make a version; `new`: of the next problem. Raises Conflict where that has another number now."""

        def step(connection: Connection) -> tuple[Problem, bool, Sequence[int]]:
            if new and _next(connection) != problem_id:
                raise Conflict
            put = self._put(connection, problem_id, meta, data)
            if new and put[0].version != 1:  # another server's was committed since then
                raise Conflict
            return put

        async def write() -> tuple[Problem, bool]:
            # It runs to its end, also where whoever asked is gone and holds the file no longer.
            with self._files.holding(data[0]) if data is not None else contextlib.nullcontext():
                problem, created, renewed = await self._database.write(step)
            self._changed(renewed)
            return problem, created

        return await self._presence.write(problem_id, write, adding=True)

    def _changed(self, numbers: Sequence[int]) -> None:
        if numbers:
            self._watches.tell(numbers)
            self._sweeper.wake()

    @contextlib.asynccontextmanager
    async def _kept(self, data: Incoming) -> AsyncIterator[str]:
        keeping = self._files.keep(data)
        digest = await asyncio.to_thread(keeping.__enter__)
        try:
            yield digest
        finally:
            keeping.__exit__(None, None, None)

    def _put(
        self,
        connection: Connection,
        problem_id: int,
        meta: ProblemMeta,
        data: tuple[str, int] | None,
    ) -> tuple[Problem, bool, Sequence[int]]:
        now = self._clock.now()
        before = current(connection, problem_id, lock="write")
        if data is None:
            if before is None:
                raise _without_data()
            if before.meta.counts != meta.counts:
                raise Invalid(
                    f"The test data has {before.meta.counts} cases in its tasks: send other data along.",
                    field="tasks",
                )
            if unknown := set(meta.programs) - set(before.meta.programs):
                raise Invalid(f"Send test data along that has {min(unknown)}.", field="testdata")
            data = (before.testdata, before.testdata_size)
        self._files.refer(connection, data[0])
        last = select(func.max(versions.c.version)).where(versions.c.problem_id == problem_id)
        problem = Problem(
            id=problem_id,
            version=(connection.execute(last).scalar() or 0) + 1,  # one that was deleted left its versions
            meta=meta,
            testdata=data[0],
            testdata_size=data[1],
            created_at=now if before is None else before.created_at,
            updated_at=now,
        )
        connection.execute(
            insert(versions).values(
                problem_id=problem_id,
                version=problem.version,
                meta=encode_meta(meta),
                statement=meta.statement.encode(),
                testdata=problem.testdata,
                testdata_size=problem.testdata_size,
                created_at=now,
            )
        )
        if before is None:
            connection.execute(
                insert(problems).values(id=problem_id, version=problem.version, created_at=now)
            )
            return problem, True, ()
        connection.execute(
            update(problems).where(problems.c.id == problem_id).values(version=problem.version)
        )
        renewed: list[int] = []
        if before.measure != problem.measure:
            renewed = self._generations.renew(connection, _unfinished(problem_id), problem)
        return problem, False, renewed

    async def get(self, problem_id: int) -> Problem:
        """A problem as it is now. Raises ProblemNotFound, seldom after a look into the database."""
        await self._presence.expect(problem_id)
        found = await self._database.read(lambda connection: current(connection, problem_id))
        if found is None:
            raise ProblemNotFound
        return found

    async def list(self, after: int, limit: int) -> builtins.list[Problem]:
        """Problems by id, those above `after`, without their statements."""
        return await self._database.read(lambda connection: page(connection, after, limit))

    async def delete(self, problem_id: int) -> None:
        """Delete a problem. Its submissions stay; those without a verdict end. Raises ProblemNotFound."""
        await self._presence.expect(problem_id)

        def step(connection: Connection) -> builtins.list[int]:
            if current(connection, problem_id, lock="write") is None:
                raise ProblemNotFound
            connection.execute(delete(problems).where(problems.c.id == problem_id))
            reason = "The problem was deleted."
            return self._generations.end(connection, _unfinished(problem_id), reason, self._clock.now())

        async def write() -> None:
            self._changed(await self._database.write(step))

        await self._presence.write(problem_id, write, adding=False)

    async def open_testdata(self, problem_id: int) -> tuple[Problem, BinaryIO]:
        """A problem and its archive, opened: whole for its reader even when it is replaced meanwhile.

        Raises ProblemNotFound.
        """
        while True:
            problem = await self.get(problem_id)
            try:
                return problem, await asyncio.to_thread(self._files.open, problem.testdata)
            except FileNotFoundError:
                if (await self.get(problem_id)).testdata == problem.testdata:
                    raise
                # else it was replaced, and the old one collected, between two looks


def _unfinished(problem_id: int) -> ColumnElement[bool]:
    return (submissions.c.problem_id == problem_id) & (submissions.c.state != DONE)


def _next(connection: Connection) -> int:
    """The next problem's number: those of deleted ones stay theirs. Raises Invalid where there is none."""
    number = (connection.execute(select(func.max(versions.c.problem_id))).scalar() or 0) + 1
    if number > MAX_ID:
        raise Invalid("The highest number is taken: name a free one.", field="problem_id")
    return number


def _without_data() -> Invalid:
    return Invalid("A new problem needs its test data: send it along.", field="testdata")


def _check(problem_id: int, meta: ProblemMeta) -> None:
    if not 1 <= problem_id <= MAX_ID:
        raise Invalid(f"A problem's id is a whole number from 1 to {MAX_ID:,}.", field="problem_id")
    _check_meta(meta)


def _check_meta(meta: ProblemMeta) -> None:
    if meta.checker != CHECKER:
        checker_of(meta.checker)


def _check_testdata(data: Incoming, meta: ProblemMeta) -> None:
    """Refuse what a runner could not unpack, or would unpack to something else. Reads all of it."""
    data.finish()
    cases_of(data.content(), meta.counts)
    _check_programs(data.content(), meta)
    _read_through(data.content())


def _check_programs(archive: BinaryIO, meta: ProblemMeta) -> None:
    there = programs_of(archive)
    for name in meta.programs:
        if name not in there:
            raise Invalid(f"The problem names {name}, which its test data does not have.", field="testdata")


def _read_through(archive: BinaryIO) -> None:
    """Unpack everything to nowhere: what the directory of an archive says may be a lie."""
    room = MAX_ALL
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            size = 0
            try:
                with opened.open(member) as file:
                    while chunk := file.read(_CHUNK):
                        size += len(chunk)
                        if size > MAX_FILE or size > room:
                            raise Invalid(f"{member.filename} is larger than it says.", field="testdata")
            except _BROKEN as error:
                raise Invalid(f"{member.filename} cannot be unpacked: {error}.", field="testdata") from None
            room -= size
