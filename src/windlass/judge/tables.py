"""The judge's tables. Times are milliseconds since the epoch; what may hold any character is bytes.

A submission is written with the version of its problem that it is judged by and a generation, which a rejudge
counts up: whatever comes of an older generation's job is not written any more. `outbox` holds what the
dispatch has still to be told, and nothing else, so it is as short as the work that is left.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
    select,
    update,
)

from windlass.errors import StoreTooNew

VERSION = 1
"""Of these tables. A newer one gets a step in `migrate`."""

metadata = MetaData()
_Number = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only what is called INTEGER

_schema = Table("judge_schema", metadata, Column("version", Integer, nullable=False))

problems = Table(
    "problems",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
"""The problems that there are, and which of their versions is current."""

versions = Table(
    "problem_versions",
    metadata,
    Column("problem_id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("meta", LargeBinary, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("testdata", String(64), nullable=False),
    Column("testdata_size", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("problem_versions_testdata", "testdata"),
)
"""Every version that a problem ever had: its meta as JSON but for the statement, which may be long and is
seldom read, and the SHA-256 of its test data."""

submissions = Table(
    "submissions",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("problem_id", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("language", Integer, nullable=False),
    Column("source", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("labels", LargeBinary, nullable=False),
    Column("state", String(8), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("job_id", Text),
    Column("verdict", String(3)),
    Column("score", Float),
    Column("reason", LargeBinary),
    Column("attempts", LargeBinary),
    Column("submitted_at", BigInteger, nullable=False),
    Column("judged_at", BigInteger),
    Index("submissions_problem", "problem_id", "number"),
    Index("submissions_state", "state", "problem_id"),
    Index("submissions_source", "source"),
    sqlite_autoincrement=True,
)

cases = Table(
    "cases",
    metadata,
    Column("submission", BigInteger, primary_key=True, autoincrement=False),
    Column("task", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("status", String(3), nullable=False),
    Column("time_ms", Float, nullable=False),
    Column("memory_kib", BigInteger, nullable=False),
    Column("exit_code", BigInteger),
    Column("stdout", LargeBinary, nullable=False),
    Column("stderr", LargeBinary, nullable=False),
)
"""What came of each case, of the newest generation that ended."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("submission", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("job_id", Text),
    Column("superseded", Boolean, nullable=False),
    UniqueConstraint("submission", "generation", name="outbox_generation"),
    sqlite_autoincrement=True,
)
"""Jobs to submit (those without a job_id) and jobs to supersede, in order."""

answers = Table(
    "answers",
    metadata,
    Column("key", LargeBinary(24), primary_key=True),
    Column("fingerprint", LargeBinary(24), nullable=False),
    Column("submission", BigInteger, nullable=False),
    Column("job_id", Text),
    Column("until", BigInteger, nullable=False),
    Index("answers_until", "until"),
    Index("answers_submission", "submission"),
)
"""The answers that an Idempotency-Key gets again."""


def migrate(connection: Connection) -> None:
    """Make the tables, or bring them up to date, in the caller's transaction. Raises StoreTooNew."""
    if not inspect(connection).has_table(_schema.name):
        metadata.create_all(connection)
        connection.execute(insert(_schema).values(version=VERSION))
        return
    version = connection.execute(select(_schema.c.version)).scalar_one()
    if version > VERSION:
        raise StoreTooNew(
            f"The judge's database has tables of version {version}; this Windlass knows up to {VERSION}."
            " Install the newer Windlass again. Nothing was changed."
        )
    if version < VERSION:
        connection.execute(update(_schema).values(version=VERSION))
