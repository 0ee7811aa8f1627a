"""windlass products export: all products, page by page, into a file or a pipe."""

from __future__ import annotations

import contextlib
import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from windlass.cli.bar import bar
from windlass.cli.connect import connect, fail, termination_as_interrupt
from windlass.cli.output import note, print_json
from windlass.client import Product, Retry
from windlass.client.product_calls import to_json


def run(file: Path | None, is_csv: bool, server: str, key: str | None, json: bool) -> None:
    """The command. A file is complete, or not there."""
    part = file.with_name(file.name + ".part") if file is not None else None
    try:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(connect(server, key))
            stack.enter_context(termination_as_interrupt())
            about = client.products.stats()
            client.retry = Retry(wait_for_server=False)
            target = sys.stdout
            if part is not None:
                stack.callback(part.unlink, missing_ok=True)
                target = stack.enter_context(part.open("w", encoding="utf-8", newline=""))
            show = stack.enter_context(
                bar(about.items, "{task.completed:,.0f} products", quiet=target.isatty())
            )
            write = _writer(target, is_csv)
            count = 0
            for count, product in enumerate(client.products, 1):
                write(product)
                if count % 1000 == 0:
                    show(count)
            target.flush()
            if part is not None and file is not None:
                part.replace(file)
    except OSError as error:
        fail(f"{error.filename or file} cannot be written: {error.strerror}")
    if json and file is not None:
        print_json({"products": count})
    else:
        note(f"{count:,} products written")


def _writer(target: TextIO, is_csv: bool) -> Callable[[Product], object]:
    if not is_csv:
        return lambda product: print(to_json(product), file=target)
    rows = csv.writer(target, lineterminator="\n")
    rows.writerow(("product_id", "name", "price"))
    return lambda product: rows.writerow((product.product_id, product.name, f"{product.price:f}"))
