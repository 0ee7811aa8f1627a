"""The outbox: what the dispatch has still to be told of the judge's decisions.

Two stores never share a transaction. A generation and its row here are written in one; then the dispatch is
asked, as often as it takes, and the row goes. A crash at any point leaves a row that the next sweep finds.

Where several servers sweep, each claims the rows that it sends, and the others pass over them. Only to do no
work twice: sending a row twice is one job all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import structlog
from sqlalchemy import ColumnElement, Connection, Row, delete, select, update

from windlass.database import Database
from windlass.errors import WindlassError
from windlass.judge.jobs import Dispatch, JobSpec
from windlass.judge.submission import locked
from windlass.judge.tables import answers, now, outbox, submissions

log = structlog.get_logger("windlass.judge")

_AT_ONCE = 32
"""Rows that are sent at the same time: they share the commits of both stores."""
CLAIMED = 30_000
"""Milliseconds after which others send what was claimed: whoever claimed it is gone, or stands still."""
_PAGE = 1_000

_decode = msgspec.json.Decoder(JobSpec).decode


class Outbox:
    """Sends what is in the table."""

    def __init__(self, database: Database, dispatch: Dispatch, *, shared: bool) -> None:
        """`shared`: other servers sweep the same table."""
        self._database = database
        self._dispatch = dispatch
        self._shared = shared
        self._busy: set[int] = set()
        """Rows under way in this process."""

    async def send(self, submission: int, generation: int) -> str | None:
        """Send what there is of one generation; its job, None where there was nothing.

        Raises what the dispatch raises: a WindlassError says that nothing came of it.
        """
        mine = (outbox.c.submission == submission) & (outbox.c.generation == generation)
        row = await self._database.read(partial(_first, mine))
        return await self._send(row.id) if row is not None else None

    async def sweep(self) -> bool:
        """Send all that there is; False where something has to be tried again. Raises StoreUnavailable."""
        whole, after = True, 0
        while True:
            rows = await self._database.read(partial(_page, after))
            if not rows:
                return whole
            after = rows[-1]
            for at in range(0, len(rows), _AT_ONCE):
                wanted = [row for row in rows[at : at + _AT_ONCE] if row not in self._busy]
                if self._shared and wanted:
                    wanted = await self._claim(wanted)
                whole &= await self._send_all(wanted)

    async def _claim(self, rows: Sequence[int]) -> list[int]:
        claiming = asyncio.ensure_future(self._database.write(partial(_claim, rows)))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await self._release(await claiming)
            raise

    async def _release(self, rows: Sequence[int]) -> None:
        """Leave these to others: also where this server stops, or they would wait for it."""
        if self._shared and rows:
            await self._database.write(partial(_release, rows))

    async def _send_all(self, rows: Sequence[int]) -> bool:
        left = rows
        try:
            sent = await asyncio.gather(*map(self._send, rows), return_exceptions=True)
            left = [row for row, each in zip(rows, sent, strict=True) if isinstance(each, BaseException)]
        finally:
            await self._release(left)
        for error in sent:
            if isinstance(error, BaseException):
                _complain(error)
        return not left

    async def _send(self, row_id: int) -> str | None:
        self._busy.add(row_id)
        try:
            row = await self._database.read(partial(_first, outbox.c.id == row_id))
            if row is None:  # somebody else was faster
                return None
            job_id: str | None = row.job_id
            superseded = row.superseded
            if job_id is None:
                try:
                    spec = _decode(row.spec)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    log.exception("wish_unreadable", submission=row.submission, generation=row.generation)
                    await self._database.write(partial(_forget, row_id))  # and Stranded finds who waits
                    return None
                job_id = await self._dispatch.submit(spec)
                superseded = await self._database.write(partial(_sent, row, job_id))
            if superseded:
                await self._dispatch.supersede(job_id)
                await self._database.write(partial(_forget, row_id))
            return job_id
        finally:
            self._busy.discard(row_id)


def _first(which: ColumnElement[bool], connection: Connection) -> Row[Any] | None:
    return connection.execute(select(outbox).where(which)).first()


def _page(after: int, connection: Connection) -> list[int]:
    wanted = select(outbox.c.id).where(outbox.c.id > after).order_by(outbox.c.id).limit(_PAGE)
    return list(connection.execute(wanted).scalars())


def _claim(rows: Sequence[int], connection: Connection) -> list[int]:
    """Claim those of these rows that nobody else has claimed; they are in order."""
    moment = now(connection)
    free = outbox.c.claimed_until.is_(None) | (outbox.c.claimed_until <= moment)
    wanted = select(outbox.c.id).where(outbox.c.id.in_(rows), free).order_by(outbox.c.id)
    claimed = list(connection.execute(wanted.with_for_update(skip_locked=True)).scalars())
    connection.execute(update(outbox).where(outbox.c.id.in_(claimed)).values(claimed_until=moment + CLAIMED))
    return claimed


def _release(rows: Sequence[int], connection: Connection) -> None:
    connection.execute(update(outbox).where(outbox.c.id.in_(rows)).values(claimed_until=None))


def _sent(row: Row[Any], job_id: str, connection: Connection) -> bool:
    """Note whose job it is. True where it is nobody's any more, and has to be superseded."""
    submission = locked(connection, row.submission)
    left = connection.execute(
        select(outbox.c.superseded).where(outbox.c.id == row.id).with_for_update()
    ).first()
    connection.execute(
        update(answers)
        .where(answers.c.submission == row.submission, answers.c.job_id.is_(None))
        .values(job_id=job_id)
    )
    if left is not None and left.superseded:
        connection.execute(update(outbox).where(outbox.c.id == row.id).values(job_id=job_id))
        return True
    if left is None:  # somebody else has sent it, or it was judged already, or it was withdrawn
        return submission is None or submission.generation != row.generation
    mine = (submissions.c.number == row.submission) & (submissions.c.generation == row.generation)
    connection.execute(update(submissions).where(mine).values(job_id=job_id))
    connection.execute(delete(outbox).where(outbox.c.id == row.id))
    return False


def _forget(row: int, connection: Connection) -> None:
    connection.execute(delete(outbox).where(outbox.c.id == row))


def _complain(error: BaseException) -> None:
    if isinstance(error, WindlassError):
        log.warning("not_sent", error=error.detail)
    elif not isinstance(error, asyncio.CancelledError):
        log.error("not_sent", exc_info=error)
