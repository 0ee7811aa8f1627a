"""The judge of one installation, wired: its database, its files, its submissions and the sweeper."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from windlass.clock import Clock
from windlass.database import PATIENCE, Database, sqlite_url
from windlass.ids import Ids
from windlass.judge.files import DiskFiles, Files
from windlass.judge.generations import Generations
from windlass.judge.jobs import Dispatch
from windlass.judge.outbox import Outbox
from windlass.judge.presence import Presence
from windlass.judge.problems import Problems
from windlass.judge.projection import Projection
from windlass.judge.stored_files import StoredFiles
from windlass.judge.stranded import Stranded
from windlass.judge.submissions import Submissions
from windlass.judge.sweeper import COLLECTION, Sweeper
from windlass.judge.tables import (
    SCHEMA,
    installation,
    mark_of,
    migrate,
    now,
    problems,
    submissions,
    versions,
)
from windlass.queues.watching import Watches

DATABASE = "judge.db"
FILES = "files"
_STEP = 500
_TURN = 0.9
"""The part of the time between two collections that has to be over: each server counts from its own start."""


class Judge:
    """Everything of the judge that lives as long as the server."""

    def __init__(
        self, database: Database, files: Files, ids: Ids, clock: Clock, dispatch: Dispatch, *, shared: bool
    ) -> None:
        """`shared`: other servers may have the same judge open."""
        self.files = files
        self.elsewhere: str | None = None
        """Why it is off, where the installation has another judge: it does nothing then."""
        self.watches = Watches()
        self._database = database
        self._shared = shared
        generations = Generations(ids)
        presence = Presence(database, shared=shared)
        self.outbox = Outbox(database, dispatch, shared=shared)
        self.stranded = Stranded(database, dispatch, generations, self.watches.tell)
        self.sweeper = Sweeper(self.outbox.sweep, self.stranded.look, self._collect_in_turn)
        self.problems = Problems(database, files, clock, generations, presence, self.sweeper, self.watches)
        self.submissions = Submissions(
            database,
            files,
            ids,
            clock,
            generations,
            presence,
            self.outbox,
            self.sweeper,
            self.watches,
            shared=shared,
        )
        self._projection = Projection(database, ids, clock, self.watches)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        ids: Ids,
        clock: Clock,
        dispatch: Dispatch,
        *,
        url: str | None = None,
        synchronous: str = "full",
        patience: float = PATIENCE,
    ) -> Judge:
        """The judge of a data directory, which this process holds the lock of; or that in the PostgreSQL at
        `url`, for which it is a place for what is on its way. Raises StartError; blocks."""
        if url is None:
            files: Files = DiskFiles(data_dir / FILES)
            database = Database(
                sqlite_url(data_dir / DATABASE), migrate, owner="judge", synchronous=synchronous
            )
        else:
            own = partial(migrate, mark=ids.sign("judge"))
            database = Database(url, own, owner="judge", patience=patience, schema=SCHEMA)
            files = StoredFiles(database, _needed, data_dir)
        try:
            return cls(database, files, ids, clock, dispatch, shared=url is not None)
        except BaseException:
            database.close()
            raise

    def start(self) -> None:
        """Run the sweeper on this loop, unless it is off."""
        if self.elsewhere is None:
            self.sweeper.start()

    def mark(self) -> str:
        """Which judge this is, wherever its database is moved to. Raises StoreUnavailable; blocks."""
        mark = self._database.look(mark_of)
        assert mark is not None, "it was written when the database was opened"
        return mark

    async def stop(self) -> None:
        """Let everybody who waits go, and end the sweeper."""
        self.release_waiters()
        await self.sweeper.stop()

    def close(self) -> None:
        """Finish what is under way in the database, then refuse everything. Blocks."""
        self._database.close()

    def release_waiters(self) -> None:
        """Answer everybody who waits, now: the server stops."""
        self.watches.stop()

    async def started(self, submission_id: str, generation: int) -> None:
        """A runner has begun with a job of ours. Only for people: nothing depends on it."""
        await self._projection.started(submission_id, generation)

    async def project(
        self, job_id: str, submission_id: str, generation: int, outcome: Mapping[str, Any]
    ) -> None:
        """Write down what came of a job: `{"tasks": [[case, ...], ...]}`, a case as on the wire, or
        `{"failed": reason, "attempts": [...]}`.

        The dispatch calls it for every job of ours that ended, as often as it takes: only its return
        confirms. Of an older generation, or a second time, it changes nothing. Without a `submission_id` (the
        job's record is damaged) it is for whoever has this job now. Raises StoreUnavailable.
        """
        await self._projection.project(job_id, submission_id, generation, outcome)

    async def collect(self) -> int:
        """Remove files that nothing refers to and nobody holds; how many."""
        digests = await asyncio.to_thread(self.files.all)
        removed = 0
        for at in range(0, len(digests), _STEP):
            some = digests[at : at + _STEP]
            needed = await self._database.read(partial(_needed, some))
            unneeded = [digest for digest in some if digest not in needed]
            removed += await asyncio.to_thread(self.files.remove, unneeded)
        await asyncio.to_thread(self.files.tidy)
        return removed

    async def _collect_in_turn(self) -> None:
        """The same, unless another server has done it within the hour."""
        if not self._shared or await self._database.write(_take_turn):
            await self.collect()


def has_problems(data_dir: Path) -> bool:
    """Whether the judge in a data directory has, or had, any. Raises StartError; blocks."""
    if not (data_dir / DATABASE).exists():
        return False
    database = Database(sqlite_url(data_dir / DATABASE), migrate, owner="judge")
    try:
        return database.look(lambda c: c.execute(select(versions.c.problem_id).limit(1)).first()) is not None
    finally:
        database.close()


def _take_turn(connection: Connection) -> bool:
    """Whether it is time for a collection, which nobody else begins then."""
    moment = now(connection)
    last = moment - round(_TURN * COLLECTION * 1000)
    mine = update(installation).where(installation.c.collected_at <= last).values(collected_at=moment)
    return connection.execute(mine).rowcount == 1


def _needed(digests: Sequence[str], connection: Connection) -> set[str]:
    """Those of the files that a problem or a submission refers to."""
    data = (
        select(versions.c.testdata)
        .join(
            problems,
            (versions.c.problem_id == problems.c.id) & (versions.c.version == problems.c.version),
        )
        .where(versions.c.testdata.in_(digests))
    )
    programs = select(submissions.c.source).where(submissions.c.source.in_(digests))
    return {*connection.execute(data).scalars(), *connection.execute(programs).scalars()}
