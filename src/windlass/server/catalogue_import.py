"""Many products at once: NDJSON or CSV (RFC 4180), read as it arrives and written in batches.

What is before a bad line is written, and nothing behind it; the problem tells the line, and how many products
were written. A repeat of the whole changes nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from windlass.catalogue.product import Product, product
from windlass.catalogue.service import Catalogue
from windlass.errors import BrokenJson, Invalid, WindlassError
from windlass.server.catalogue_bodies import parse_new, parse_price

MAX_IMPORT = 64 << 30
"""Bytes of a body."""
MAX_LINE = 64 * 1024
"""Bytes of a line, or of a record of CSV, which may have several."""
_PIECE = 64 * 1024
"""Bytes that are parsed at a time: some milliseconds."""
_BATCH = 500
"""Products that a transaction writes."""
_COLUMNS = ("product_id", "name", "price")


class Parsed(NamedTuple):
    """The products of some lines, and what is wrong with the line behind them."""

    products: list[Product]
    refused: WindlassError | None = None


class Reader(Protocol):
    """Makes products of bytes."""

    def feed(self, data: bytes) -> Parsed:
        """What these bytes complete."""

    def end(self) -> Parsed:
        """What is left: the last line may have no end."""


@dataclass
class Import:
    """One import, and how far it has come."""

    catalogue: Catalogue
    reader: Reader
    written: int = 0
    created: int = 0

    async def run(self, blocks: AsyncIterator[bytes]) -> None:
        """Write all of a body. What is raised says in its `members` how much is written."""
        batch: list[Product] = []
        try:
            async for block in blocks:
                for start in range(0, len(block), _PIECE):
                    await self._take(batch, self.reader.feed(block[start : start + _PIECE]))
            await self._take(batch, self.reader.end())
            await self._write(batch, 1)
            if not self.written:
                raise Invalid("There are no products in it.", field="body")
        except WindlassError as error:
            error.members["written"] = self.written
            raise

    async def _take(self, batch: list[Product], parsed: Parsed) -> None:
        batch += parsed.products
        await self._write(batch, 1 if parsed.refused else _BATCH)
        if parsed.refused is not None:
            raise parsed.refused

    async def _write(self, batch: list[Product], least: int) -> None:
        """Write from the front while there are so many."""
        while len(batch) >= least:
            some = batch[:_BATCH]
            self.created += await self.catalogue.put(some)
            self.written += len(some)
            del batch[:_BATCH]


class Ndjson:
    """A product a line."""

    def __init__(self) -> None:
        self._tail = b""
        self._line = 0

    def feed(self, data: bytes) -> Parsed:
        *lines, self._tail = (self._tail + data).split(b"\n")
        parsed = self._parse(lines)
        if parsed.refused is None and len(self._tail) > MAX_LINE:
            return Parsed(parsed.products, _too_long(self._line + 1))
        return parsed

    def end(self) -> Parsed:
        return self._parse([self._tail])

    def _parse(self, lines: list[bytes]) -> Parsed:
        products: list[Product] = []
        for line in lines:
            self._line += 1
            if not line.strip():
                continue
            if len(line) > MAX_LINE:
                return Parsed(products, _too_long(self._line))
            try:
                products.append(parse_new(line))
            except (Invalid, BrokenJson) as error:
                return Parsed(products, _at(self._line, error))
        return Parsed(products)


class Csv:
    """A record a product; the first record names the columns, in any order."""

    def __init__(self) -> None:
        self._tail = b""
        self._line = 0  # lines that have gone before the tail
        self._columns: list[int] | None = None

    def feed(self, data: bytes) -> Parsed:
        data = self._tail + data
        # A record is complete where its quotes are, which come in pairs.
        cut = at = quotes = 0
        while (end := data.find(b"\n", at)) >= 0:
            quotes += data.count(b'"', at, end)
            at = end + 1
            if quotes % 2 == 0:
                cut = at
        whole, self._tail = data[:cut], data[cut:]
        parsed = self._parse(whole)
        if parsed.refused is None and len(self._tail) > MAX_LINE:
            return Parsed(parsed.products, _too_long(self._line + 1))
        return parsed

    def end(self) -> Parsed:
        return self._parse(self._tail)

    def _parse(self, data: bytes) -> Parsed:
        products: list[Product] = []
        if not data:
            return Parsed(products)
        bad: WindlassError | None = None
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            start = data.rfind(b"\n", 0, error.start) + 1
            line = self._line + data.count(b"\n", 0, error.start) + 1
            bad = _at(line, Invalid("This is not UTF-8.", field="body"))
            text = data[:start].decode()
        records = csv.reader(io.StringIO(text, newline=""), strict=True)
        line = self._line + 1
        try:
            for record in records:
                if record:
                    products += self._products(record)
                line = self._line + records.line_num + 1
        except csv.Error as error:
            return Parsed(products, _at(line, Invalid(f"This is no CSV: {error}.", field="body")))
        except Invalid as error:
            return Parsed(products, _at(line, error))
        self._line += records.line_num
        return Parsed(products, bad)

    def _products(self, record: list[str]) -> Iterator[Product]:
        if self._columns is None:
            names = [name.strip().removeprefix("\ufeff") for name in record]
            if sorted(names) != sorted(_COLUMNS):
                raise Invalid(f"The first line has to be a header of {', '.join(_COLUMNS)}.", field="body")
            self._columns = [names.index(name) for name in _COLUMNS]
            return
        if len(record) != len(_COLUMNS):
            raise Invalid(f"It has {len(record)} columns, not {len(_COLUMNS)}.", field="body")
        product_id, name, price = (record[column] for column in self._columns)
        yield product(product_id, name, parse_price(price.strip()))


def _at(line: int, error: WindlassError) -> WindlassError:
    """The same error, of this line."""
    told = type(error)(f"Line {line}: {error.detail}", field=error.field or "body")
    told.members["line"] = line
    return told


def _too_long(line: int) -> WindlassError:
    return _at(line, Invalid(f"It has more than {MAX_LINE:,} bytes.", field="body"))
