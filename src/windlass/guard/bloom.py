"""A Bloom filter: a set of strings that may say "perhaps" for what is not in it, and never "no" for what is.

Its hashes are keyed, so nobody without the secret can make up strings that pass more often than others, and
they are the same in every process. It grows by layers beyond what it was made for (Almeida, Baquero, Preguica
and Hutchison, "Scalable Bloom Filters", 2007). hashing.py makes two hashes of a key, stored.py has the bytes
that a filter is kept as.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from bitarray import bitarray
from numpy.typing import NDArray

from windlass.errors import FilterStateRefused
from windlass.guard.hashing import Hasher, Hashes, hashes, two_hashes
from windlass.guard.stored import (
    MAX_MARK,
    SECTOR,
    SECTOR_BITS,
    Header,
    pack,
    read_header,
    sector_count,
    unpack,
)

_MAX_LAYERS = 32

_BATCH = 8192  # keys hashed together: their positions fit the processor's caches
_REMEMBERED = 1024  # digests of single adds until the sectors that they changed are worked out

_MASKS = np.left_shift(1, np.arange(8)).astype(np.uint8)


def bits_for(items: int, rate: float) -> int:
    """m = ceil(-n ln p / (ln 2)^2): the bits that hold n items at the rate p.

    Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", 1970; in this form Broder and
    Mitzenmacher, "Network Applications of Bloom Filters: A Survey", 2004, section 2.1.
    """
    return math.ceil(-items * math.log(rate) / math.log(2) ** 2)


def hashes_for(bits: int, items: int) -> int:
    """k = round(m/n ln 2), at which half the bits are set in the end; same source as `bits_for`."""
    return round(bits / items * math.log(2))


def estimated_rate(bits: int, hashes: int, items: int) -> float:
    """(1 - e^(-k items/m))^k: how often a key that was never added passes; same source as `bits_for`."""
    return float((-math.expm1(-hashes * items / bits)) ** hashes)


def layer_shape(expected_items: int, rate: float, number: int) -> tuple[int, float]:
    """(capacity, rate) of layer `number`, from 0: each twice as large as the one before, at half its rate."""
    return expected_items << number, rate / (1 << number)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a filter is and how full. `bits` and `bits_set` are sums over the layers, `hashes` the first's.

    `items` are keys that were new as far as the filter can tell: false positives among them are not counted.
    """

    expected_items: int
    target_false_positive_rate: float
    bits: int
    hashes: int
    items: int
    bits_set: int
    fill_ratio: float
    estimated_false_positive_rate: float
    memory_bytes: int
    layers: int


class BloomFilter:
    """A set of strings, made for `expected_items` at `false_positive_rate`, under a secret.

    Any thread may ask while others add; those that change it take turns.
    """

    def __init__(
        self, secret: bytes, *, expected_items: int = 1_000_000, false_positive_rate: float = 0.01
    ) -> None:
        """Raises ValueError for a secret below 16 bytes, no items, or a rate that is not in (0, 0.5]."""
        if expected_items < 1:
            raise ValueError("expected_items must be at least 1")
        if not 0 < false_positive_rate <= 0.5:
            raise ValueError("false_positive_rate must be above 0 and at most 0.5")
        hasher = Hasher(secret)
        self._key_id, self._digest, self._digests = hasher.key_id, hasher.digest, hasher.digests
        self.expected_items = expected_items
        self.false_positive_rate = false_positive_rate
        self._filter_id = os.urandom(8)
        self._mark, self._saved_mark = b"", b""
        self._layers = [_Layer(*layer_shape(expected_items, false_positive_rate, 0))]
        self._recent: list[bytes] = []
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        """False: the key was never added. True: it was, or this is one of the false positives."""
        first, second = two_hashes(self._digest(key))
        for layer in self._layers:  # noqa: SIM110  (a generator would take a fifth of the time)
            if layer.holds(first, second):
                return True
        return False

    def add(self, key: str) -> bool:
        """Whether the key was new, as far as the filter can tell."""
        digest = self._digest(key)
        first, second = two_hashes(digest)
        with self._lock:
            layers, newest = self._layers, self._layers[-1]
            if len(layers) > 1 and any(layer.holds(first, second) for layer in layers[:-1]):
                return False
            if newest.items >= newest.capacity:
                if newest.holds(first, second):
                    return False
                newest = self._grow()
            if not newest.add(first, second):
                return False
            self._recent.append(digest)
            if len(self._recent) >= _REMEMBERED:
                self._mark_recent()
        return True

    def update(self, keys: Iterable[str]) -> int:
        """Add many keys at a third of the cost each; returns how many were new."""
        rest, new = iter(keys), 0
        while batch := dict.fromkeys(islice(rest, _BATCH)):
            rows = hashes(self._digests(batch))
            with self._lock:
                before = self._items()
                for layer in self._layers[:-1]:
                    rows = rows[~layer.hold_many(rows)]
                while len(rows := self._layers[-1].add_many(rows)):
                    self._grow()
                new += self._items() - before
        return new

    @property
    def items(self) -> int:
        """Keys that were new as far as the filter could tell."""
        return self._items()

    def stats(self) -> Stats:
        layers = self._layers
        bits = sum(layer.size for layer in layers)
        bits_set = sum(layer.bits.count() for layer in layers)
        rates = [estimated_rate(layer.size, layer.hashes, layer.items) for layer in layers]
        return Stats(
            expected_items=self.expected_items,
            target_false_positive_rate=self.false_positive_rate,
            bits=bits,
            hashes=layers[0].hashes,
            items=self._items(),
            bits_set=bits_set,
            fill_ratio=bits_set / bits,
            # 1 - prod(1 - p_i), which this keeps exact where the rates are tiny.
            estimated_false_positive_rate=abs(math.expm1(sum(math.log1p(-rate) for rate in rates))),
            memory_bytes=sum(layer.bits.nbytes + len(layer.changed) for layer in layers),
            layers=len(layers),
        )

    # --- the stored form --------------------------------------------------------------------------

    @property
    def mark(self) -> bytes:
        """What its keeper has stored with it, up to MAX_MARK bytes: of when its keys are, say."""
        return self._mark

    @mark.setter
    def mark(self, mark: bytes) -> None:
        if len(mark) > MAX_MARK:
            raise ValueError(f"a mark has at most {MAX_MARK} bytes")
        self._mark = mark

    def dump(self) -> bytes:
        """The whole stored form. It has to replace an older one in one step (a rename, a SET)."""
        with self._lock:
            self._recent.clear()
            header = self._header()
            sectors = [header.pack()]
            for layer, first in self._placed():
                layer.changed[:] = bytes(len(layer.changed))
                sectors += pack(layer.view.data, range(len(layer.changed)), header.seed() + first)
            self._saved_mark = header.mark
        return b"".join(sectors)

    def changes(self) -> list[tuple[int, bytes]]:
        """(offset, sector) of what changed since the last `dump`, `changes` or `load`, the header last.

        Written over the stored form, and flushed, they make it hold every key added before the call. Some of
        them alone do no harm, as bits are only ever set; but what was asked for here is not given again, so a
        caller whose write failed writes a whole `dump`.
        """
        found: list[tuple[int, bytes]] = []
        with self._lock:
            self._mark_recent()
            header = self._header()
            for layer, first in self._placed():
                numbers = np.flatnonzero(np.frombuffer(layer.changed, np.uint8)).tolist()
                layer.changed[:] = bytes(len(layer.changed))
                offsets = [SECTOR * (first + number) for number in numbers]
                found += zip(offsets, pack(layer.view.data, numbers, header.seed() + first), strict=True)
            if not found and header.mark == self._saved_mark:
                return []
            self._saved_mark = header.mark
            return [*found, (0, header.pack())]

    @classmethod
    def load(
        cls,
        state: bytes,
        secret: bytes,
        *,
        expected_items: int | None = None,
        false_positive_rate: float | None = None,
    ) -> BloomFilter:
        """The filter of a stored form, made for what is given here (or for anything, where it is not).

        Raises FilterStateRefused, which says what is wrong, for all that is not whole, of this version, of
        this secret and of this size. Nothing is allocated before the sizes are known to agree.
        """
        header = read_header(state, Hasher(secret).key_id)
        _check(header, len(state))
        for what, wanted, found in (
            ("items", expected_items, header.expected_items),
            ("a false positive rate of", false_positive_rate, header.rate),
        ):
            if wanted is not None and wanted != found:
                raise FilterStateRefused(f"It was made for {what} {found}, not {wanted}.")
        loaded = cls(secret, expected_items=header.expected_items, false_positive_rate=header.rate)
        loaded._filter_id = header.filter_id
        loaded._mark = loaded._saved_mark = header.mark
        while len(loaded._layers) < header.layers:
            loaded._grow()
        items = header.items
        for layer, first in loaded._placed():
            end = first + len(layer.changed)
            layer.read(memoryview(state)[SECTOR * first : SECTOR * end], header.seed() + first)
            layer.items = min(items, layer.capacity)
            items -= layer.items
        return loaded

    def _placed(self) -> Iterator[tuple[_Layer, int]]:
        """Each layer with the number of its first sector."""
        first = 1
        for layer in self._layers:
            yield layer, first
            first += len(layer.changed)

    def _header(self) -> Header:
        return Header(
            self._layers[0].hashes, len(self._layers), self.expected_items, self.false_positive_rate,
            self._layers[0].size, self._items(), self._key_id, self._filter_id, self._mark,
        )  # fmt: skip

    # --- within -----------------------------------------------------------------------------------

    def _items(self) -> int:
        return sum(layer.items for layer in self._layers)

    def _grow(self) -> _Layer:
        self._mark_recent()
        shape = layer_shape(self.expected_items, self.false_positive_rate, len(self._layers))
        self._layers.append(_Layer(*shape))
        return self._layers[-1]

    def _mark_recent(self) -> None:
        """Mark the sectors that single adds changed; a loop over them in `add` would take half its time."""
        if self._recent:
            layer = self._layers[-1]
            layer.mark(layer.positions(hashes(self._recent)))
            self._recent.clear()


class _Layer:
    """`capacity` items at `rate`. Position i of a key is g_i(x) = (h1(x) + i h2(x)) mod m, 0 <= i < k.

    Kirsch and Mitzenmacher, "Less Hashing, Same Performance: Building a Better Bloom Filter", 2006: two
    hashes do the work of k. h1 is uniform over the m bits and h2 over 1..`steps`. The positions are an
    arithmetic progression, so unless it goes round the end it is one slice, read and set in C; the shorter
    the steps, the rarer that is, and the fewer pages a key touches. But a key with the step of a stored one
    that begins on one of its positions shares most others. Such keys pass at a rate of about 3 n / (m steps),
    which `steps` keeps at 0.15 % of `rate` wherever m has room for that.
    """

    __slots__ = ("bits", "capacity", "changed", "hashes", "items", "rate", "size", "steps", "view")

    def __init__(self, capacity: int, rate: float) -> None:
        self.capacity, self.rate, self.items = capacity, rate, 0
        self.size = bits_for(capacity, rate)
        self.hashes = hashes_for(self.size, capacity)
        self.steps = min(self.size - 1, math.ceil(2000 * capacity / (rate * self.size)))
        self.changed = bytearray(b"\1") * sector_count(self.size)  # a new layer is in no stored form yet
        self.bits = bitarray(SECTOR_BITS * len(self.changed), endian="little")
        self.view = np.frombuffer(memoryview(self.bits), np.uint8)

    def holds(self, first: int, second: int) -> bool:
        start = first % self.size
        step = 1 + second % self.steps
        stop = start + self.hashes * step
        if stop <= self.size:
            return self.bits[start:stop:step].all()
        return self.bits[self._round(start, stop, step)].all()

    def add(self, first: int, second: int) -> bool:
        """Whether that changed anything."""
        start = first % self.size
        step = 1 + second % self.steps
        stop = start + self.hashes * step
        if stop <= self.size:
            if self.bits[start:stop:step].all():
                return False
            self.bits[start:stop:step] = 1
        else:
            positions = self._round(start, stop, step)
            if self.bits[positions].all():
                return False
            self.bits[positions] = 1
        self.items += 1
        return True

    def _round(self, start: int, stop: int, step: int) -> list[int]:
        return [position % self.size for position in range(start, stop, step)]

    def positions(self, hashes: Hashes) -> NDArray[np.int64]:
        """The positions of many keys: a row for each i, a column for each key."""
        start = (hashes[:, 0] % np.uint64(self.size)).astype(np.int64)
        step = (hashes[:, 1] % np.uint64(self.steps)).astype(np.int64) + 1
        positions = start + np.arange(self.hashes)[:, None] * step
        beyond = positions >= self.size
        positions[beyond] %= self.size
        return positions

    def hold_many(self, hashes: Hashes) -> NDArray[np.bool_]:
        positions = self.positions(hashes)
        held: NDArray[np.bool_] = np.all(self.view[positions >> 3] & _MASKS[positions & 7], axis=0)
        return held

    def add_many(self, hashes: Hashes) -> Hashes:
        """Add those that are new, as far as there is room; returns the new ones that found none."""
        positions = self.positions(hashes)
        octets, masks = positions >> 3, _MASKS[positions & 7]
        new = np.flatnonzero(~np.all(self.view[octets] & masks, axis=0))
        added, left = np.split(new, [self.capacity - self.items])
        self.items += len(added)
        self.mark(positions[:, added])
        octets, masks = octets[:, added].ravel(), masks[:, added].ravel()
        while len(octets):
            self.view[octets] |= masks  # of several bits for one byte, one is set
            lost = self.view[octets] & masks == 0
            octets, masks = octets[lost], masks[lost]
        return hashes[left]

    def mark(self, positions: NDArray[np.int64]) -> None:
        """Note that the sectors with these bits have changed."""
        np.frombuffer(self.changed, np.uint8)[positions // SECTOR_BITS] = 1

    def read(self, sectors: memoryview, seed: int) -> None:
        """Take the bits from these sectors, which are of the right size."""
        self.view[:] = np.frombuffer(unpack(sectors, seed), np.uint8)
        self.changed[:] = bytes(len(self.changed))


def _check(header: Header, length: int) -> None:
    """Raises FilterStateRefused where a stored form of `length` bytes cannot have this header."""
    if not (header.expected_items >= 1 and 0 < header.rate <= 0.5 and 1 <= header.layers <= _MAX_LAYERS):
        raise FilterStateRefused("Its header makes no sense.")
    shapes = [layer_shape(header.expected_items, header.rate, number) for number in range(header.layers)]
    sizes = [bits_for(*shape) for shape in shapes]
    hashes = hashes_for(sizes[0], header.expected_items)
    if (header.size, header.hashes) != (sizes[0], hashes):
        raise FilterStateRefused(
            f"It has {header.size} bits and {header.hashes} hashes, not {sizes[0]} and {hashes}."
        )
    if not sum(items for items, _ in shapes[:-1]) <= header.items <= sum(items for items, _ in shapes):
        raise FilterStateRefused(f"It claims {header.items} items in {header.layers} layers.")
    wanted = SECTOR * (1 + sum(map(sector_count, sizes)))
    if length != wanted:
        raise FilterStateRefused(f"It has {length} bytes, and its header says {wanted}.")
