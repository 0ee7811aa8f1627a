"""What several servers of one database need: files in it, whose turn it is, and whose judge it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("outbox", sa.Column("claimed_until", sa.BigInteger))
    op.create_table(
        "judge_installation",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("mark", sa.String(32), nullable=False),
        sa.Column("collected_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "files",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("held_until", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "chunks",
        sa.Column("content", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "leftovers",
        sa.Column("content", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
    # Windlass as it was before there were scripts looks here, and refuses what is above 1.
    schema = sa.table("judge_schema", sa.column("version", sa.Integer))
    op.execute(schema.delete())
    op.execute(schema.insert().values(version=2))
