"""The stored form of a filter: written in parts, and refused where a bit of it is not what it was."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from struct import pack_into

import pytest

from tests.unit.guard.test_bloom import SECRET, Storage, small
from windlass.errors import FilterStateRefused
from windlass.guard.bloom import BloomFilter, bits_for
from windlass.guard.stored import MAX_MARK, SECTOR


def test_a_new_key_changes_few_sectors() -> None:
    """Planted: marks that are not taken back after a save."""
    bloom = BloomFilter(SECRET)
    storage = Storage(bloom.dump())
    assert len(storage.state) < 1_250_000
    assert bloom.changes() == []
    bloom.add("one")
    changes = bloom.changes()
    assert 2 <= len(changes) <= 8
    assert changes[-1][0] == 0
    assert all(len(sector) == SECTOR and offset % SECTOR == 0 for offset, sector in changes)
    assert bloom.changes() == []
    bloom.add("one")
    assert bloom.changes() == []
    storage.write(changes)
    assert "one" in storage.load()


def test_some_of_the_changes_do_no_harm() -> None:
    """A crash between two sectors leaves what was saved before. Planted: items in the sectors' checksums."""
    bloom = small(2000)
    bloom.update(f"old-{number}" for number in range(500))
    before = bloom.dump()
    bloom.update(f"new-{number}" for number in range(500))
    changes = bloom.changes()
    for count in range(len(changes)):
        storage = Storage(before)
        storage.write(changes[:count])
        loaded = storage.load()
        assert all(f"old-{number}" in loaded for number in range(500))


def filled(items: int = 100, secret: bytes = SECRET, added: int = 50, rate: float = 0.01) -> bytes:
    bloom = BloomFilter(secret, expected_items=items, false_positive_rate=rate)
    bloom.update(f"product-{number}" for number in range(added))
    return bloom.dump()


def forged(state: bytes, form: str, offset: int, value: float) -> bytes:
    """`state` with another value in its header, and a checksum that agrees."""
    header = bytearray(state[: SECTOR - 4])
    pack_into(form, header, offset, value)
    return bytes(header) + zlib.crc32(header).to_bytes(4) + state[SECTOR:]


def refused(state: bytes, why: str, **wanted: float) -> None:
    with pytest.raises(FilterStateRefused, match=why):
        BloomFilter.load(state, SECRET, **wanted)  # type: ignore[arg-type]


def test_every_flipped_bit_is_noticed() -> None:
    """Planted: checksums of sectors not compared; the header's checksum not compared."""
    state = bytearray(filled())
    assert len(state) == 2 * SECTOR
    for bit in range(8 * len(state)):
        state[bit >> 3] ^= 1 << (bit & 7)
        refused(bytes(state), r"damaged|no filter|has the form")
        state[bit >> 3] ^= 1 << (bit & 7)
    BloomFilter.load(bytes(state), SECRET)


def test_every_other_length_is_refused() -> None:
    """Planted: a length that is only compared from below."""
    state = filled(600, added=1500)
    for length in [*range(0, len(state), 37), SECTOR, len(state) - SECTOR, len(state) - 1]:
        refused(state[:length], r"cut off: \d+ bytes|bytes, and its header says")
    for more in (b"\0", bytes(SECTOR), state[SECTOR:], state):
        refused(state + more, "bytes, and its header says")


@pytest.mark.parametrize("size", [0, 1, SECTOR - 1])
def test_next_to_nothing_is_refused(size: int) -> None:
    refused(bytes(size), f"cut off: {size} bytes")


@pytest.mark.parametrize(
    "state", [bytes(4096), b"\x80\x04" * 2048, b"{}" * 1024], ids=["zeros", "pickle", "text"]
)
def test_what_is_no_filter_is_refused(state: bytes) -> None:
    refused(state, "no filter of Windlass")


@pytest.mark.parametrize(
    ("form", "offset", "value", "why"),
    [
        (">H", 8, 2, "has the form 2, and this Windlass reads 1"),
        (">H", 10, 8, "959 bits and 8 hashes, not 959 and 7"),
        (">I", 12, 0, "makes no sense"),
        (">I", 12, 2, "claims 50 items in 2 layers"),
        (">I", 12, 2**32 - 1, "makes no sense"),
        (">Q", 16, 0, "makes no sense"),
        (">Q", 16, 99, "959 bits and 7 hashes, not 949 and 7"),
        (">Q", 16, 2**64 - 1, "959 bits and 7 hashes, not "),
        (">d", 24, 0.0, "makes no sense"),
        (">d", 24, -0.01, "makes no sense"),
        (">d", 24, 0.6, "makes no sense"),
        (">d", 24, float("nan"), "makes no sense"),
        (">d", 24, float("inf"), "makes no sense"),
        (">d", 24, 5e-324, "959 bits and 7 hashes, not "),
        (">d", 24, 0.02, "959 bits and 7 hashes, not "),
        (">Q", 32, 960, "960 bits and 7 hashes, not 959 and 7"),
        (">Q", 40, 101, "claims 101 items in 1 layers"),
        (">Q", 40, 2**64 - 1, "items in 1 layers"),
        (">Q", 48, 1, "under another secret"),
        (">Q", 56, 1, "damaged"),
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit_is_refused(form: str, offset: int, value: float, why: str) -> None:
    """Planted, one for each: that field not looked at."""
    refused(forged(filled(), form, offset, value), why)


def test_a_gigabyte_claimed_is_not_allocated() -> None:
    """Planted: the length compared after the layers were made."""
    state = filled()
    items = 900_000_000
    bits = bits_for(items, 0.01)
    claiming = forged(forged(state, ">Q", 16, items), ">Q", 32, bits)
    layered = forged(forged(state, ">I", 12, 32), ">Q", 40, 100 * (2**32 - 1))
    tracemalloc.start()
    try:
        refused(claiming, "has 1024 bytes, and its header says 1086810624")
        refused(layered, "has 1024 bytes, and its header says ")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_another_installations_state_is_refused() -> None:
    """Planted: the id of the secret not compared."""
    refused(filled(secret=bytes(32)), "under another secret")


def test_other_sizes_than_wanted_are_refused() -> None:
    """Planted: the sizes that are wanted not compared."""
    state = filled()
    refused(state, "made for items 100, not 200", expected_items=200)
    refused(state, r"false positive rate of 0\.01, not 0\.02", expected_items=100, false_positive_rate=0.02)
    assert "product-1" in BloomFilter.load(state, SECRET, expected_items=100, false_positive_rate=0.01)


def swapped(state: bytes) -> bytes:
    return state[:SECTOR] + state[2 * SECTOR : 3 * SECTOR] + state[SECTOR : 2 * SECTOR] + state[3 * SECTOR :]


def mixed(state: bytes) -> bytes:
    return state[: 2 * SECTOR] + filled(1200)[2 * SECTOR :]


@pytest.mark.parametrize("change", [swapped, mixed])
def test_sectors_of_elsewhere_are_refused(change: Callable[[bytes], bytes]) -> None:
    """Planted: checksums that do not begin with the sector's number; with the filter's identity.

    The second is what a crash leaves of a rebuilt filter that was written over the old one of the same size.
    """
    refused(change(filled(1200)), "damaged: a sector")


def test_a_mark_is_kept_with_the_filter_and_saved_alone() -> None:
    """Planted defect: a header that is only given where bits changed too."""
    bloom = BloomFilter(SECRET, expected_items=1000)
    bloom.add("a")
    bloom.mark = b"m" * MAX_MARK
    state = bytearray(bloom.dump())
    assert BloomFilter.load(bytes(state), SECRET).mark == b"m" * MAX_MARK
    assert bloom.changes() == []
    bloom.mark = b"later"
    ((offset, sector),) = bloom.changes()
    assert offset == 0
    state[: len(sector)] = sector
    loaded = BloomFilter.load(bytes(state), SECRET)
    assert (loaded.mark, "a" in loaded) == (b"later", True)
    assert loaded.changes() == []
    with pytest.raises(ValueError, match="at most"):
        bloom.mark = b"m" * (MAX_MARK + 1)
