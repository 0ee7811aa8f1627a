"""The tables as they were before there were scripts; those that are there already are left as they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table("judge_schema", sa.Column("version", sa.Integer, nullable=False), if_not_exists=True)
    op.create_table(
        "problems",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "problem_versions",
        sa.Column("problem_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("meta", sa.LargeBinary, nullable=False),
        sa.Column("statement", sa.LargeBinary, nullable=False),
        sa.Column("testdata", sa.String(64), nullable=False),
        sa.Column("testdata_size", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "submissions",
        sa.Column("number", _Number, primary_key=True),
        sa.Column("problem_id", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("language", sa.Integer, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("labels", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Column("verdict", sa.String(3)),
        sa.Column("score", sa.Float),
        sa.Column("reason", sa.LargeBinary),
        sa.Column("attempts", sa.LargeBinary),
        sa.Column("submitted_at", sa.BigInteger, nullable=False),
        sa.Column("judged_at", sa.BigInteger),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_table(
        "cases",
        sa.Column("submission", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.String(3), nullable=False),
        sa.Column("time_ms", sa.Float, nullable=False),
        sa.Column("memory_kib", sa.BigInteger, nullable=False),
        sa.Column("exit_code", sa.BigInteger),
        sa.Column("stdout", sa.LargeBinary, nullable=False),
        sa.Column("stderr", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "outbox",
        sa.Column("id", _Number, primary_key=True),
        sa.Column("submission", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Column("superseded", sa.Boolean, nullable=False),
        sa.UniqueConstraint("submission", "generation", name="outbox_generation"),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_table(
        "answers",
        sa.Column("key", sa.LargeBinary(24), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(24), nullable=False),
        sa.Column("submission", sa.BigInteger, nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Column("until", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    for name, table, columns in (
        ("problem_versions_testdata", "problem_versions", ["testdata"]),
        ("submissions_problem", "submissions", ["problem_id", "number"]),
        ("submissions_state", "submissions", ["state", "problem_id"]),
        ("submissions_source", "submissions", ["source"]),
        ("answers_until", "answers", ["until"]),
        ("answers_submission", "answers", ["submission"]),
    ):
        op.create_index(name, table, columns, if_not_exists=True)
