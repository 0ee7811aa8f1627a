"""The tables as they were before there were scripts; those that are there already are left as they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    # SQLite has no exact numbers: see windlass.catalogue.prices.
    price = sa.Numeric(18, 6).with_variant(sa.Text(), "sqlite")
    op.create_table(
        "products",
        sa.Column(
            "product_id", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), primary_key=True
        ),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("price", price, nullable=False),
        if_not_exists=True,
    )
    op.create_table("windlass_loaded", sa.Column("sha256", sa.Text, primary_key=True), if_not_exists=True)
