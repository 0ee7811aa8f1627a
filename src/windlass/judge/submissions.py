"""Submissions: taking them in, following them, judging them again."""

from __future__ import annotations

import asyncio
import builtins
import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from windlass.clock import Clock
from windlass.database import Database
from windlass.errors import (
    IdempotencyFull,
    IdempotencyKeyReused,
    Invalid,
    ProblemNotFound,
    SubmissionNotFound,
    WindlassError,
)
from windlass.ids import SUBMISSION, Ids
from windlass.judge.files import Files
from windlass.judge.generations import PENDING, Generations, encode
from windlass.judge.languages import language_of
from windlass.judge.outbox import Outbox
from windlass.judge.presence import Presence
from windlass.judge.problem import current
from windlass.judge.source import is_archive, pack_source, read_source
from windlass.judge.submission import Submission, SubmissionSummary, find, locked, summaries
from windlass.judge.sweeper import Sweeper
from windlass.judge.tables import answers, cases, outbox, submissions
from windlass.message import Once
from windlass.queues.watching import Watches

MAX_ANSWERS = 100_000
"""Idempotency-Keys that are remembered."""
ANSWER_KEPT = 24 * 3600 * 1000
"""Milliseconds."""
_EVERY = 1.0
"""Seconds after which whoever waits looks again at what another server may have written."""
_EXPIRED = 1_000
"""Idempotency-Keys that are forgotten in one commit."""
_STEP = 500
"""Submissions of a problem that are judged anew in one commit."""


class Accepted(msgspec.Struct, frozen=True):
    """What whoever submits is told."""

    submission_id: str
    job_id: str
    status: str = PENDING


class Submissions:
    """The submissions of one installation."""

    def __init__(
        self,
        database: Database,
        files: Files,
        ids: Ids,
        clock: Clock,
        generations: Generations,
        presence: Presence,
        outbox: Outbox,
        sweeper: Sweeper,
        watches: Watches,
        *,
        shared: bool,
    ) -> None:
        """`shared`: other servers write the same database, and tell nobody here."""
        self._database = database
        self._files = files
        self._ids = ids
        self._clock = clock
        self._generations = generations
        self._presence = presence
        self._outbox = outbox
        self._sweeper = sweeper
        self._watches = watches
        self._every = _EVERY if shared else None

    # --- in -------------------------------------------------------------------------------------------

    async def submit(
        self,
        problem_id: int,
        language: int,
        source: bytes,
        *,
        priority: int = 0,
        labels: Sequence[str] = (),
        once: Once | None = None,
    ) -> Accepted:
        """Take a program in: written as queued, then its job sent. `source` is its text, or a zip of it.

        Raises ProblemNotFound, Invalid, TooLarge, IdempotencyKeyReused, IdempotencyFull, and what the
        dispatch raises; then nothing was done.
        """
        if once is None:  # else there may be an answer to give again, whatever this one asks
            await self._presence.expect(problem_id)
        archive = await asyncio.to_thread(_archive, source, language)
        with ExitStack() as held:
            digest = await asyncio.to_thread(held.enter_context, self._files.keep_bytes(archive))

            def step(connection: Connection) -> tuple[int, bool]:
                known = _known(connection, once, self._clock.now()) if once is not None else None
                if known is not None:
                    return known, False
                problem = current(connection, problem_id, lock="read")  # a new version has to see this one
                if problem is None:
                    raise ProblemNotFound
                self._files.refer(connection, digest)
                number = self._insert(
                    connection,
                    problem_id=problem_id,
                    version=problem.version,
                    language=language,
                    source=digest,
                    priority=priority,
                    labels=encode(labels),
                )
                row = connection.execute(select(submissions).where(submissions.c.number == number)).one()
                self._generations.ask(connection, problem, [row])
                if once is not None:
                    until = self._clock.now() + ANSWER_KEPT
                    connection.execute(
                        insert(answers).values(
                            key=once.key, fingerprint=once.fingerprint, submission=number, until=until
                        )
                    )
                return number, True

            number, new = await self._database.write(step)
        job_id = await self._sent(number, new=new)
        return Accepted(self._ids.numbered(SUBMISSION, number), job_id)

    def _insert(self, connection: Connection, **values: Any) -> int:
        inserted = connection.execute(
            insert(submissions).values(state=PENDING, generation=1, submitted_at=self._clock.now(), **values)
        )
        key = inserted.inserted_primary_key
        assert key is not None
        return int(key[0])

    async def _sent(self, number: int, *, new: bool) -> str:
        """Send the first job of a submission and name it; where it is refused, take a new one back."""
        try:
            job_id = await self._outbox.send(number, 1)
        except WindlassError:
            if not new or await self._database.write(lambda connection: _withdraw(connection, number)):
                raise
            job_id = None
        if job_id is not None:
            return job_id
        job_id = await self._database.read(lambda connection: _first_job(connection, number))
        if job_id is None:
            raise SubmissionNotFound("It was withdrawn: its job was refused.")
        return job_id

    # --- looking --------------------------------------------------------------------------------------

    def number_of(self, submission_id: str) -> int:
        """The number behind an id. Raises SubmissionNotFound for one that was never issued."""
        number = self._ids.parse_numbered(SUBMISSION, submission_id)
        if number is None:
            raise SubmissionNotFound
        return number

    async def get(self, submission_id: str) -> Submission:
        """A submission as it is now. Raises SubmissionNotFound."""
        return await self._find(self.number_of(submission_id))

    async def _find(self, number: int) -> Submission:
        found = await self._database.read(lambda connection: find(connection, self._ids, number))
        if found is None:
            raise SubmissionNotFound
        return found

    async def until(
        self,
        submission_id: str,
        enough: Callable[[Submission], bool],
        seconds: float,
        gone: asyncio.Future[None] | None = None,
    ) -> Submission:
        """A submission once it is `enough`; or as it is when the seconds are over, or its client is `gone`.

        Raises SubmissionNotFound.
        """
        number = self.number_of(submission_id)
        return await self._watches.until(
            number, lambda: self._find(number), enough, seconds, gone, every=self._every
        )

    async def list(
        self, problem_id: int | None, after: str | None, limit: int
    ) -> builtins.list[SubmissionSummary]:
        """Submissions, the newest first: those before `after`, of a problem where it is named."""
        before = self.number_of(after) if after is not None else None
        if problem_id is not None and self._presence.never(problem_id):
            return []
        return await self._database.read(
            lambda connection: summaries(connection, self._ids, problem_id, before, limit)
        )

    async def open_source(self, submission_id: str) -> tuple[str, BinaryIO]:
        """SHA-256 and the opened archive of a submission's source. Raises SubmissionNotFound."""
        number = self.number_of(submission_id)
        digest = await self._database.read(
            lambda connection: connection.execute(
                select(submissions.c.source).where(submissions.c.number == number)
            ).scalar()
        )
        if digest is None:
            raise SubmissionNotFound
        return digest, await asyncio.to_thread(self._files.open, digest)

    # --- again ----------------------------------------------------------------------------------------

    async def rejudge(self, submission_id: str) -> Submission:
        """Judge a submission again, by its problem as it is now.

        Raises SubmissionNotFound, ProblemNotFound.
        """
        number = self.number_of(submission_id)

        def step(connection: Connection) -> int:
            wanted = select(submissions.c.problem_id).where(submissions.c.number == number)
            problem_id = connection.execute(wanted).scalar()
            if problem_id is None:
                raise SubmissionNotFound
            self._renew(connection, problem_id, [number])
            wanted = select(submissions.c.generation).where(submissions.c.number == number)
            generation = connection.execute(wanted).scalar()
            if generation is None:
                raise SubmissionNotFound
            return int(generation) - 1

        before = await self._database.write(step)
        self._watches.tell([number])
        try:
            await self._outbox.send(number, before)
            await self._outbox.send(number, before + 1)
        except WindlassError:
            self._sweeper.wake()  # it stands; it is only not sent yet
        return await self._find(number)

    async def rejudge_all(self, problem_id: int) -> int:
        """Judge all submissions of a problem again; how many. Raises ProblemNotFound.

        In steps: where one fails, those before it are judged again all the same.
        """
        await self._presence.expect(problem_id)
        newest = select(func.max(submissions.c.number)).where(submissions.c.problem_id == problem_id)

        def begin(connection: Connection) -> int:
            if current(connection, problem_id) is None:
                raise ProblemNotFound
            return connection.execute(newest).scalar() or 0

        last = await self._database.read(begin)
        after = count = 0
        while after < last:
            numbers = await self._database.write(self._renewing(problem_id, after, last))
            if not numbers:
                break
            self._watches.tell(numbers)
            self._sweeper.wake()
            after = numbers[-1]
            count += len(numbers)
        return count

    def _renewing(self, problem_id: int, after: int, last: int) -> Callable[[Connection], builtins.list[int]]:
        wanted = (
            select(submissions.c.number)
            .where(
                submissions.c.problem_id == problem_id,
                submissions.c.number > after,
                submissions.c.number <= last,
            )
            .order_by(submissions.c.number)
            .limit(_STEP)
        )

        def step(connection: Connection) -> builtins.list[int]:
            numbers = list(connection.execute(wanted).scalars())
            if numbers:
                self._renew(connection, problem_id, numbers)
            return numbers

        return step

    def _renew(self, connection: Connection, problem_id: int, numbers: Sequence[int]) -> None:
        problem = current(connection, problem_id, lock="read")
        if problem is None:
            raise ProblemNotFound("The problem was deleted: there is nothing to judge by.")
        self._generations.renew(connection, submissions.c.number.in_(numbers), problem)
        connection.execute(delete(cases).where(cases.c.submission.in_(numbers)))


def _archive(source: bytes, number: int) -> bytes:
    """The archive that a runner gets, made anew of whatever came."""
    language = language_of(number)
    program = read_source(io.BytesIO(source), language) if is_archive(source) else source
    if not program:
        raise Invalid("The source is empty.", field="source")
    return pack_source(program, language)


def _known(connection: Connection, once: Once, now: int) -> int | None:
    """The submission of this Idempotency-Key. Raises IdempotencyKeyReused, IdempotencyFull."""
    over = select(answers.c.key).where(answers.c.until <= now).limit(_EXPIRED)
    expired = connection.execute(over.with_for_update(skip_locked=True)).scalars().all()
    if expired:
        connection.execute(delete(answers).where(answers.c.key.in_(expired)))
    row = connection.execute(select(answers).where(answers.c.key == once.key, answers.c.until > now)).first()
    if row is not None:
        if row.fingerprint != once.fingerprint:
            raise IdempotencyKeyReused(field="Idempotency-Key")
        return int(row.submission)
    if connection.execute(select(func.count()).select_from(answers)).scalar_one() >= MAX_ANSWERS:
        raise IdempotencyFull(
            f"{MAX_ANSWERS:,} Idempotency-Keys are remembered, the most there may be; each is kept 24 h.",
            retry_after=60,
        )
    return None


def _withdraw(connection: Connection, number: int) -> bool:
    """Take back a submission whose job was refused. False where somebody else has sent it meanwhile."""
    locked(connection, number)
    unsent = outbox.c.submission == number, outbox.c.generation == 1, outbox.c.superseded.is_(False)
    if connection.execute(select(outbox.c.id).where(*unsent).with_for_update()).first() is None:
        return False
    connection.execute(delete(outbox).where(*unsent))
    connection.execute(delete(answers).where(answers.c.submission == number))
    connection.execute(delete(submissions).where(submissions.c.number == number))
    return True


def _first_job(connection: Connection, number: int) -> str | None:
    """The job that a submission's first generation got."""
    for table, key in ((answers, answers.c.submission), (submissions, submissions.c.number)):
        found: str | None = connection.execute(select(table.c.job_id).where(key == number)).scalar()
        if found is not None:
            return found
    return None
