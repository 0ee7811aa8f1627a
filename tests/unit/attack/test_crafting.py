"""Crafted ids pass filters without a key, of any size, and a keyed one no more often than others."""

from __future__ import annotations

from itertools import islice

import pytest
from bitarray import bitarray

from tests.unit.attack.shop import SECRET
from windlass.attack.crafting import craft, murmur3
from windlass.catalogue.product import may_be_an_id
from windlass.guard.bloom import BloomFilter, bits_for, hashes_for

REAL = [f"product-{number}" for number in range(1000)]


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", "00000000000000000000000000000000"),
        (b"hello", "cbd8a7b341bd9b025b1e906a48ae1d19"),
        (b"The quick brown fox jumps over the lazy dog", "e34bbc7bbc071b6c7a433ca9c49a9347"),
    ],
)
def test_the_hash_is_murmurs(text: bytes, digest: str) -> None:
    """What the reference implementation gives (SMHasher; the same as mmh3 5.3.1)."""
    assert "{:016x}{:016x}".format(*murmur3(text)) == digest


def test_crafted_ids_have_the_hash_of_real_ones_and_are_ids_themselves() -> None:
    """Planted defect: a step of the hash is undone with one bit too many."""
    crafted = list(islice(craft(REAL, seed=1), 100))
    assert {murmur3(id_.encode()) for id_ in crafted} <= {murmur3(id_.encode()) for id_ in REAL}
    assert len(set(crafted)) == 100
    assert not set(crafted) & set(REAL)
    assert all(map(may_be_an_id, crafted))
    assert not any("/" in id_ for id_ in crafted)


@pytest.mark.parametrize("items", [1000, 1_000_000])
def test_they_pass_a_filter_without_a_key_and_not_a_keyed_one(items: int) -> None:
    """The same m and k, the same real ids in both. Planted defect: a filter that is always full."""
    keyed = BloomFilter(SECRET, expected_items=items)
    plain = Unkeyed(items)
    for id_ in REAL:
        keyed.add(id_)
        plain.add(id_)
    crafted = list(islice(craft(REAL, seed=2), 400))
    missing = [f"missing-{number}" for number in range(400)]
    assert all(id_ in plain for id_ in crafted)
    # At n one in a hundred passes either: more than 16 of 400 has a chance of one in a million.
    assert sum(id_ in plain for id_ in missing) <= 16
    assert sum(id_ in keyed for id_ in crafted) <= 16


class Unkeyed:
    """A Bloom filter as most libraries make it: (h1 + i h2) mod m of MurmurHash3's halves."""

    def __init__(self, items: int) -> None:
        self.size = bits_for(items, 0.01)
        self.hashes = hashes_for(self.size, items)
        self.bits = bitarray(self.size)

    def _positions(self, key: str) -> list[int]:
        first, second = murmur3(key.encode())
        return [(first + number * second) % self.size for number in range(self.hashes)]

    def add(self, key: str) -> None:
        self.bits[self._positions(key)] = 1

    def __contains__(self, key: str) -> bool:
        return self.bits[self._positions(key)].all()
