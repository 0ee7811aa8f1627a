"""windlass products trigger: the SQL of the trigger that tells of writes, for a table's owner to run."""

from __future__ import annotations

from dataclasses import replace

from windlass import settings
from windlass.catalogue.existing import Existing
from windlass.catalogue.trigger import script


def run(table: str | None, key: str | None, dialect: str | None) -> str:
    """The script; what is not given is as the settings say. Raises StartError."""
    wanted = settings.read(products_table=table, products_key=key)
    own = wanted.products_table is None
    watched = Existing(
        wanted.products_table or "products", "product_id" if own else wanted.products_key
    ).watched()
    if dialect is None:
        dialect = (wanted.database or "sqlite").partition(":")[0].partition("+")[0]
    if dialect in ("postgres", "postgresql"):
        dialect, watched = "postgresql", replace(watched, schema=watched.schema or "public")
    return script(dialect, watched)
