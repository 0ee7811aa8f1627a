"""A submission's generations: each asks for one job, in the same transaction that begins it.

All of these are steps of a transaction. What they leave in the outbox is done after the commit, by whoever
comes first: the request that wanted it, or the sweeper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from windlass.ids import SUBMISSION, Ids
from windlass.judge.jobs import spec_of
from windlass.judge.problem import Problem
from windlass.judge.tables import outbox, submissions
from windlass.judge.verdict import Status

PENDING, JUDGING, DONE = "pending", "judging", "done"

_STEP = 500
"""Rows that one statement names: databases have limits."""

decode_labels = msgspec.json.Decoder(list[str]).decode
encode = msgspec.json.Encoder().encode


class Generations:
    """Begins and ends them."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def ask(self, connection: Connection, problem: Problem, rows: Sequence[Row[Any]]) -> None:
        """Put the jobs of these submissions' generations into the outbox."""
        connection.execute(
            insert(outbox),
            [
                {
                    "submission": row.number,
                    "generation": row.generation,
                    "spec": encode(
                        spec_of(
                            problem,
                            self._ids.numbered(SUBMISSION, row.number),
                            row.generation,
                            language=row.language,
                            source=row.source,
                            priority=row.priority,
                            labels=decode_labels(row.labels),
                        )
                    ),
                    "superseded": False,
                }
                for row in rows
            ],
        )

    def renew(self, connection: Connection, which: ColumnElement[bool], problem: Problem) -> list[int]:
        """Begin a new generation of submissions of this problem; the jobs of older ones are superseded.

        Returns their numbers. An older generation's job that is on its way to the dispatch, without an id
        yet, is superseded once it has one.
        """
        renewed: list[int] = []
        for numbers in _stop(connection, which):
            connection.execute(
                update(submissions)
                .where(submissions.c.number.in_(numbers))
                .values(
                    version=problem.version,
                    generation=submissions.c.generation + 1,
                    state=PENDING,
                    job_id=None,
                    verdict=None,
                    score=None,
                    reason=None,
                    attempts=None,
                    judged_at=None,
                )
            )
            rows = connection.execute(select(submissions).where(submissions.c.number.in_(numbers))).all()
            self.ask(connection, problem, rows)
            renewed += numbers
        return renewed

    def end(self, connection: Connection, which: ColumnElement[bool], reason: str, now: int) -> list[int]:
        """End submissions without a verdict as judge errors; their jobs are superseded.

        Returns their numbers.
        """
        ended: list[int] = []
        for numbers in _stop(connection, which & (submissions.c.state != DONE)):
            connection.execute(
                update(submissions)
                .where(submissions.c.number.in_(numbers))
                .values(
                    state=DONE,
                    verdict=Status.JUDGE_ERROR.value,
                    score=0.0,
                    reason=reason.encode(),
                    judged_at=now,
                )
            )
            ended += numbers
        return ended


def _stop(connection: Connection, which: ColumnElement[bool]) -> list[list[int]]:
    """Have the jobs of submissions superseded, those that have not ended; their numbers, in steps."""
    wanted = select(submissions.c.number, submissions.c.generation, submissions.c.state, submissions.c.job_id)
    rows = connection.execute(wanted.where(which).order_by(submissions.c.number).with_for_update()).all()
    steps = [rows[at : at + _STEP] for at in range(0, len(rows), _STEP)]
    for step in steps:
        connection.execute(
            update(outbox)
            .where(outbox.c.submission.in_([row.number for row in step]), outbox.c.superseded.is_(False))
            .values(superseded=True)
        )
        known = [
            {
                "submission": row.number,
                "generation": row.generation,
                "spec": b"",
                "job_id": row.job_id,
                "superseded": True,
            }
            for row in step
            if row.state != DONE and row.job_id is not None
        ]
        if known:
            connection.execute(insert(outbox), known)
    return [[row.number for row in step] for step in steps]
