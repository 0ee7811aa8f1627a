"""Initial products: ids from a file, one a line, that are there before the first request is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import structlog

from windlass.catalogue.product import may_be_an_id
from windlass.catalogue.service import Catalogue
from windlass.errors import StartError

FILE = "products.txt"
"""In the data directory."""
_BATCH = 20_000
_TOLD = 100_000

log = structlog.get_logger("windlass.catalogue")


async def load(catalogue: Catalogue, file: Path) -> int:
    """Add the products of a file that are not there; how many. Raises StartError, StoreUnavailable.

    A file that was loaded to its end is not loaded again, so what has been deleted since stays so; one that
    has changed is. Until somebody says more of it, such a product has its id for a name, and costs nothing.
    """
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if await catalogue.products.has_loaded(digest):
            return 0
        lines = _ids(file)
        seen = added = 0
        while batch := list(islice(lines, _BATCH)):
            added += await catalogue.add(batch)
            seen += len(batch)
            if seen % _TOLD == 0:
                log.info("products_loading", file=str(file), ids=seen)
    except OSError as error:
        raise StartError(f"The products' file {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise StartError(f"The products' file {file} is not UTF-8: {error.reason}.") from error
    await catalogue.products.loaded(digest)
    log.info("products_loaded", file=str(file), ids=seen, new=added)
    return added


def _ids(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            product_id = line.strip()
            if may_be_an_id(product_id):
                yield product_id
            elif product_id:
                raise StartError(f"Line {number} of the products' file {file} is no id of a product.")
