"""windlass products import: a file or a pipe, in batches that can be repeated."""

from __future__ import annotations

import csv
import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import BinaryIO

from windlass.cli.connect import connect, fail, termination_as_interrupt
from windlass.cli.output import note, print_json
from windlass.client import Client, Product, Retry
from windlass.client.errors import NotSent, Problem, WindlassError
from windlass.client.product_calls import MAX_BATCH, put_batch, to_json

_COLUMNS = ("product_id", "name", "price")
_LONGEST = 1 << 20
"""Bytes of a line that are worth sending, to be refused."""

Line = tuple[int, str, int]
"""Its number, its product as JSON, the bytes that have been read with it."""


def run(file: str, is_csv: bool, server: str, key: str | None, json: bool) -> None:
    """The command."""
    try:
        source = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")
    tally = _Tally()
    try:
        with (
            source,
            connect(server, key) as client,
            termination_as_interrupt(),
            _progress(source, tally) as show,
        ):
            client.retry = Retry(wait_for_server=False)
            lines = _csv_lines(source) if is_csv else _json_lines(source)
            for batch in _batches(lines, tally):
                _send(client, batch, tally)
                show()
            tally.finished = True
    finally:
        tally.report(json)


@dataclass
class _Tally:
    """How far it has come."""

    written: int = 0
    created: int = 0
    input_bytes: int = 0
    bad_line: int | None = None
    finished: bool = False
    began: float = field(default_factory=time.monotonic)

    def report(self, json: bool) -> None:
        """Say what was achieved, however it ended."""
        took = time.monotonic() - self.began
        if json:
            summary: dict[str, object] = {"written": self.written, "seconds": round(took, 3)}
            more = {"created": self.created} if self.finished else {"bad_line": self.bad_line}
            print_json(summary | more)
            return
        count = "1 product" if self.written == 1 else f"{self.written:,} products"
        new = f", {self.created:,} of them new" if self.finished else ""
        note(f"{count} written in {took:.1f} s{new}")
        if not self.finished:
            note("When that is mended, import the whole again: it does no harm.")


def _send(client: Client, batch: list[Line], tally: _Tally) -> None:
    try:
        done = client.run(put_batch([text for _, text, _ in batch]))
    except WindlassError as error:
        tally.written += error.written
        if isinstance(error, Problem) and error.line is not None and error.line <= len(batch):
            tally.bad_line = batch[error.line - 1][0]
            detail = error.detail.partition(": ")[2] or error.detail
            raise NotSent(f"line {tally.bad_line}: {detail}") from error
        raise
    tally.written += done.written
    tally.created += done.created
    tally.input_bytes = batch[-1][2]


def _batches(lines: Iterator[Line], tally: _Tally) -> Iterator[list[Line]]:
    """Lines in batches; what is before a bad line is handed out first."""
    batch: list[Line] = []
    try:
        for line in lines:
            batch.append(line)
            if len(batch) == MAX_BATCH:
                yield batch
                batch = []
    except _BadLine as bad:
        if batch:
            yield batch
        tally.bad_line = bad.number
        raise NotSent(f"line {bad.number}: {bad}") from None
    if batch:
        yield batch


class _BadLine(Exception):  # noqa: N818 - it is told as a NotSent
    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def _json_lines(source: BinaryIO) -> Iterator[Line]:
    number = read = 0
    while line := source.readline(_LONGEST):
        number += 1
        read += len(line)
        if not line.strip():
            continue
        try:
            yield number, line.decode().strip(), read
        except UnicodeDecodeError as error:
            raise _BadLine(number, f"this is not UTF-8: {error.reason} at byte {error.start + 1}") from None


def _csv_lines(source: BinaryIO) -> Iterator[Line]:
    text = io.TextIOWrapper(source, encoding="utf-8-sig", newline="")
    records = csv.reader(text, strict=True)
    number = 1
    columns: list[int] | None = None
    try:
        for record in records:
            if columns is None and record:
                names = [name.strip() for name in record]
                if sorted(names) != sorted(_COLUMNS):
                    raise _BadLine(number, f"a header of {', '.join(_COLUMNS)} is wanted")
                columns = [names.index(name) for name in _COLUMNS]
            elif columns is not None and record:
                yield number, _product(number, record, columns), source.tell() if source.seekable() else 0
            number = records.line_num + 1
    except csv.Error as error:
        raise _BadLine(number, f"this is no CSV: {error}") from None
    except UnicodeDecodeError as error:
        raise _BadLine(number, f"this, or a line after it, is not UTF-8: {error.reason}") from None
    finally:
        text.detach()  # or it closes what is not its own


def _product(number: int, record: list[str], columns: list[int]) -> str:
    """A record as JSON."""
    if len(record) != len(columns):
        raise _BadLine(number, f"it has {len(record)} columns, not {len(columns)}")
    product_id, name, price = (record[column] for column in columns)
    try:
        return to_json(Product(product_id, name, Decimal(price)))
    except (InvalidOperation, NotSent):
        raise _BadLine(number, f"the price {price[:50]!r} is no number") from None


@contextmanager
def _progress(source: BinaryIO, tally: _Tally) -> Iterator[Callable[[], None]]:
    """A bar on stderr while it is a terminal; of the whole when the input is a file, else a count."""
    if not sys.stderr.isatty() or source.isatty():
        yield lambda: None
        return
    # Here, as only a terminal needs them and they take long to import.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    about = os.fstat(source.fileno())
    total = about.st_size if stat.S_ISREG(about.st_mode) else None
    bar = (BarColumn(), TaskProgressColumn()) if total else ()
    columns = (SpinnerColumn(), *bar, TextColumn("{task.fields[written]:,} products"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, written=0)
        yield lambda: progress.update(task, completed=tally.input_bytes, written=tally.written)
