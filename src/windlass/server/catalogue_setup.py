"""The catalogue as the settings want it."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from windlass.catalogue import initial
from windlass.catalogue.existing import Existing
from windlass.catalogue.service import Catalogue
from windlass.errors import StartError
from windlass.guard.guard import Limits
from windlass.settings import Settings


def open_catalogue(settings: Settings, secret: bytes) -> Catalogue:
    """The products behind their guard, with those of the file of initial ids. Raises StartError; blocks."""

    table = None
    if settings.products_table is not None:
        if settings.products_file is not None:
            raise StartError("A file of initial ids is for Windlass's own table, not for products_table.")
        table = Existing(
            settings.products_table,
            key=settings.products_key,
            name=settings.products_name or None,
            price=settings.products_price or None,
            trigger=settings.products_trigger,
        )
    progress = None
    if sys.stderr.isatty():
        from windlass.server.bar import Bar  # here, as a service's start does without

        progress = Bar("Reading the products' ids")
    catalogue = Catalogue.open(
        settings.data_dir,
        secret,
        url=settings.database or None,
        table=table,
        read_only=settings.products_read_only,
        max_lag_seconds=settings.max_lag_seconds if settings.products_writes == "elsewhere" else None,
        synchronous=settings.synchronous,
        redis_url=settings.redis or None,
        state_key=settings.bloom_state_key,
        expected_items=settings.bloom_expected_items,
        false_positive_rate=settings.bloom_false_positive_rate,
        limits=Limits(settings.cache_bytes, settings.negative_cache_bytes, settings.negative_cache_seconds),
        progress=progress,
    )
    if table is not None or settings.products_read_only:
        return catalogue
    file = settings.products_file or settings.data_dir / initial.FILE
    try:
        if settings.products_file or file.exists():
            # On a loop of its own: whoever opens us may have one that runs already.
            with ThreadPoolExecutor(1, "windlass-initial-products") as thread:
                thread.submit(asyncio.run, initial.load(catalogue, file)).result()
    except BaseException:
        catalogue.close()
        raise
    return catalogue
