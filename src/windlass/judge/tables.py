"""The judge's tables. Times are milliseconds since the epoch; what may hold any character is bytes.

A submission is written with the version of its problem that it is judged by and a generation, which a rejudge
counts up: whatever comes of an older generation's job is not written any more. `outbox` holds what the
dispatch has still to be told, and nothing else, so it is as short as the work that is left.

In SQLite they are in a file of this server's own. In PostgreSQL, where several servers may write them, they
are in a schema of their own, beside whatever else is in that database, and have the files as well.
Transactions lock in one order: problem, submissions by number, then all else. Two that do it otherwise would
each wait for the other.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

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
    cast,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from windlass import migrations
from windlass.errors import JudgeElsewhere

metadata = MetaData()
SCHEMA = "windlass_judge"
"""PostgreSQL's."""
TABLES = migrations.Tables("judge", metadata, Path(__file__).parent / "migrations", "0002", SCHEMA)
_MENDS = {
    "25006": "It is read-only: name the server that may be written to, not a replica.",
    "42501": f"Have its owner run: CREATE SCHEMA {SCHEMA} AUTHORIZATION the_user_that_windlass_is;",
}
"""What helps who may not make a schema or a table, by the SQLSTATE."""

_Number = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only what is called INTEGER

_schema = Table("judge_schema", metadata, Column("version", Integer, nullable=False))


@event.listens_for(_schema, "after_create")
def _made(table: Table, connection: Connection, **_: Any) -> None:
    # Windlass as it was before there were migrations looks here, and refuses what is above 1.
    connection.execute(insert(table).values(version=2))


installation = Table(
    "judge_installation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1: there is one row
    Column("mark", String(32), nullable=False),
    Column("collected_at", BigInteger, nullable=False),
)
"""Which judge this is. Where several servers may have it: whose, by a MAC under the secret that its ids are
signed with; else by chance. And when files were collected last, by several servers: see `now`."""

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
    Column("claimed_until", BigInteger),
    UniqueConstraint("submission", "generation", name="outbox_generation"),
    sqlite_autoincrement=True,
)
"""Jobs to submit (those without a job_id) and jobs to supersede, in order. What a server has claimed, others
leave to it for a while."""

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


files = Table(
    "files",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("held_until", BigInteger, nullable=False),
)
"""Files that are whole, by the SHA-256 of their content, and until when none of them is collected."""

chunks = Table(
    "chunks",
    metadata,
    Column("content", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
"""Contents in pieces, from 0. Each upload has a content of its own, so that nobody's is in another's way."""

leftovers = Table(
    "leftovers",
    metadata,
    Column("content", BigInteger, primary_key=True, autoincrement=False),
    Column("until", BigInteger, nullable=False),
)
"""Contents of no file yet, or of none any more: somebody may still be writing or reading them until then."""


def migrate(connection: Connection, mark: str = "") -> None:
    """Make the tables, or bring them up to date, in the caller's transaction. Raises StoreTooNew.

    Of a database that several servers may have, whoever comes first is the owner, by the `mark` of its
    installation. Raises JudgeElsewhere for any other, and where no tables may be made.
    """
    migrations.lock(connection)
    if connection.dialect.name != "postgresql":
        migrations.migrate(connection, TABLES)
        if mark_of(connection) is None:
            connection.execute(insert(installation).values(id=1, mark=secrets.token_hex(16), collected_at=0))
        return
    try:
        if not inspect(connection).has_schema(SCHEMA):  # to ask for one that is there takes the same right
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        migrations.migrate(connection, TABLES)
    except DBAPIError as error:
        mends = _MENDS.get(getattr(error.orig, "sqlstate", None) or "")
        if mends is None:
            raise
        raise JudgeElsewhere(
            f"The judge cannot have its tables in this database: {str(error.orig).splitlines()[0]}. {mends}"
        ) from error
    owner = mark_of(connection)
    if owner is None:
        connection.execute(insert(installation).values(id=1, mark=mark, collected_at=0))
    elif owner != mark:
        raise JudgeElsewhere(
            "The judge in this database is another installation's: its ids are signed under another secret."
            " Servers that share a judge share their queues, too. If those are lost for good, stop all"
            f" servers and run DELETE FROM {SCHEMA}.{installation.name}; the server that comes first then"
            " has the judge, and ids that were given out before are not known any more."
        )


def mark_of(connection: Connection) -> str | None:
    """Which judge this is, None for one that nobody has opened."""
    return connection.execute(select(installation.c.mark)).scalar()


def now(connection: Connection) -> int:
    """PostgreSQL's time: the same for all of its servers, whatever their clocks say."""
    seconds = func.extract("epoch", func.clock_timestamp())
    return int(connection.execute(select(cast(seconds * 1000, BigInteger))).scalar_one())
