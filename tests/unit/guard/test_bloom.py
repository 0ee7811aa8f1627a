"""The Bloom filter: never a false negative, no more false positives than promised, no state trusted."""

from __future__ import annotations

import sys
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from struct import pack_into

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.errors import FilterStateRefused
from windlass.guard.bloom import MAX_MARK, SECTOR, BloomFilter, bits_for, estimated_rate, hashes_for

SECRET = bytes(range(32))
ODD_KEYS = [
    "", "\0", "\0\0", "a", "a\0", " ", "x" * 10_000, "x" * 9_999 + "y", "\U0001f600", "\U0001f600\ufe0f",
    "\ud83d", "\ude00", "\ud83d\ude00", "e\u0301", "\u00e9", "\ufffd", "?", "\\ud83d",
]  # fmt: skip
any_text = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(ODD_KEYS)


def small(items: int = 100, rate: float = 0.01) -> BloomFilter:
    return BloomFilter(SECRET, expected_items=items, false_positive_rate=rate)


def absent(count: int) -> Iterable[str]:
    return (f"absent-{number}" for number in range(count))


def passing(bloom: BloomFilter, keys: Iterable[str]) -> int:
    return sum(key in bloom for key in keys)


class Storage:
    """The stored form as a caller keeps it: written whole, then sector by sector."""

    def __init__(self, state: bytes = b"") -> None:
        self.state = bytearray(state)

    def write(self, changes: Iterable[tuple[int, bytes]]) -> None:
        for offset, sector in changes:
            if len(self.state) < offset + len(sector):
                self.state.extend(bytes(offset + len(sector) - len(self.state)))
            self.state[offset : offset + len(sector)] = sector

    def load(self) -> BloomFilter:
        return BloomFilter.load(bytes(self.state), SECRET)


# --- what is in it is found -----------------------------------------------------------------------


some_keys = st.lists(any_text, max_size=60) | st.tuples(st.text(max_size=3), st.integers(1, 200)).map(
    lambda drawn: [f"{drawn[0]}{number}" for number in range(drawn[1])]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "update", "changes", "dump", "load"]), some_keys), max_size=25)
)
def test_what_was_added_is_found(steps: list[tuple[str, list[str]]]) -> None:
    """No false negative after any mixture of adds, bulk adds, layers, saves of all and of changes, and loads.

    Planted: a bulk add that forgets the keys beyond a full layer; single adds whose sectors are not marked;
    a new layer that is not saved; a look-up in the newest layer only. Each fails here.
    """
    bloom, storage = small(20), Storage()
    added: set[str] = set()
    storage.write(bloom.changes())
    for step, keys in steps:
        if step == "add":
            for key in keys:
                bloom.add(key)
            added.update(keys)
        elif step == "update":
            assert bloom.update(keys) <= len(set(keys))
            added.update(keys)
        elif step == "dump":
            storage = Storage(bloom.dump())
        else:
            storage.write(bloom.changes())
            if step == "load":
                bloom = storage.load()
        assert [key for key in added if key not in bloom] == []
    storage.write(bloom.changes())
    loaded = storage.load()
    assert [key for key in added if key not in loaded] == []
    assert loaded.stats() == bloom.stats()
    assert loaded.dump() == bloom.dump() == bytes(storage.state)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_odd_keys(one_by_one: bool) -> None:
    """Fails when a key of any length or letters raises, or two different strings are one key.

    Planted: errors="replace" in place of "surrogatepass", in `add` or in `update`; keys cut at a NUL.
    """
    for left_out in ODD_KEYS:
        bloom = small(1000, 1e-9)
        others = [key for key in ODD_KEYS if key != left_out]
        if one_by_one:
            assert [bloom.add(key) for key in others] == [True] * len(others)
        else:
            assert bloom.update(others) == len(others)
        assert left_out not in bloom
        assert all(key in bloom for key in others)
        assert bloom.stats().items == len(others)


def test_single_and_bulk_adds_are_the_same() -> None:
    """Planted: other positions in the bulk (i from 1, or no turn round the end)."""
    single, bulk = small(3000), small(3000)
    keys = [f"product-{number}" for number in range(3000)]
    for key in keys:
        single.add(key)
    bulk.update([*keys, *keys[:100]])
    assert single.stats().bits_set == bulk.stats().bits_set
    assert [key for key in absent(50_000) if (key in single) != (key in bulk)] == []


def test_add_says_what_was_new() -> None:
    """Planted: `add` always True; repeated keys counted as items, in one batch or in the next."""
    bloom = small()
    assert bloom.add("one")
    assert not bloom.add("one")
    assert bloom.update(["one", "two", "two", "three"]) == 2
    assert bloom.update(iter(["two", "four"])) == 1
    assert bloom.update([]) == 0
    assert bloom.stats().items == 4


def test_known_keys_need_no_room() -> None:
    """Planted: a full layer that grows before it looks; `update` or `add` that look in the newest only."""
    bloom = small(50, 1e-9)
    keys = [f"product-{number}" for number in range(150)]
    for count, layers in ((50, 1), (150, 2)):
        bloom.update(keys[:count])
        assert [key for key in keys[:count] if bloom.add(key)] == []
        assert bloom.update(keys[:count]) == 0
        assert (bloom.stats().items, bloom.stats().layers) == (count, layers)


def test_the_hashes_are_fixed() -> None:
    """Every process and every version must find what another one stored.

    Planted: Python's own hash() of the key; a hash per process. It fails for any change of the hashes, which
    would need a new version of the stored form.
    """
    for key, positions in {
        "product-1": [193, 243, 293, 546, 596, 849, 899],
        "\U0001f600": [30, 212, 394, 576, 625, 758, 807],
        "\ud83d": [13, 131, 254, 372, 613, 731, 854],
    }.items():
        bloom = small(100)
        bloom.add(key)
        bits = int.from_bytes(bloom.dump()[SECTOR:-4], "little")
        assert [position for position in range(959) if bits >> position & 1] == positions


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads that are interrupted as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient_threads")
def test_threads_take_turns() -> None:
    """Planted: no lock; adds of two threads and a third that saves lose bits or changes between them."""
    bloom, storage = small(1_000), Storage()
    storage.write(bloom.changes())
    names = [[f"{thread}-{number}" for number in range(20_000)] for thread in range(3)]

    def one_by_one() -> None:
        for key in names[0]:
            bloom.add(key)

    threads = [
        threading.Thread(target=one_by_one),
        *[threading.Thread(target=bloom.update, args=(keys,)) for keys in names[1:]],
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        storage.write(bloom.changes())
    storage.write(bloom.changes())
    loaded = storage.load()
    assert [key for keys in names for key in keys if key not in bloom or key not in loaded] == []


# --- sizes and rates ------------------------------------------------------------------------------


def test_the_formulas() -> None:
    """Planted: floor in place of ceil for m; k from n ln p alone (6.64 rounds alike, but not at 0.3)."""
    assert bits_for(1_000_000, 0.01) == 9_585_059
    assert hashes_for(9_585_059, 1_000_000) == 7
    assert estimated_rate(9_585_059, 7, 1_000_000) == pytest.approx(0.01004, abs=5e-6)
    assert estimated_rate(9_585_059, 7, 0) == 0
    assert (bits_for(1, 0.5), hashes_for(2, 1)) == (2, 1)
    assert (bits_for(1000, 0.3), hashes_for(bits_for(1000, 0.3), 1000)) == (2506, 2)


def test_stats_of_the_default() -> None:
    """Planted: bits counted with the padding of the last sector; the target given as the estimate; -0.0."""
    bloom = BloomFilter(SECRET)
    stats = bloom.stats()
    assert (stats.expected_items, stats.target_false_positive_rate) == (1_000_000, 0.01)
    assert (stats.bits, stats.hashes, stats.items, stats.bits_set, stats.layers) == (9_585_059, 7, 0, 0, 1)
    assert repr((stats.fill_ratio, stats.estimated_false_positive_rate)) == "(0.0, 0.0)"
    assert 9_585_059 / 8 <= stats.memory_bytes < 1_250_000
    bloom.add("one")
    assert (bloom.stats().items, bloom.stats().bits_set) == (1, 7)
    bloom.update(map(str, range(100_000)))
    stats = bloom.stats()
    assert stats.fill_ratio == stats.bits_set / stats.bits == pytest.approx(0.0704, rel=0.01)
    assert stats.estimated_false_positive_rate == pytest.approx(
        estimated_rate(9_585_059, 7, stats.items), rel=1e-12, abs=0
    )


def test_stats_of_layers() -> None:
    """Planted: layers of one size; a rate that is the sum, the greatest or the last of the layers' rates."""
    bloom = small(1000)
    bloom.update(absent(6000))
    stats = bloom.stats()
    sizes = [(1000, 0.01), (2000, 0.005), (4000, 0.0025)]
    bits = [bits_for(*size) for size in sizes]
    items = [1000, 2000, stats.items - 3000]
    passes = 1.0
    for m, (capacity, _), held in zip(bits, sizes, items, strict=True):
        passes *= 1 - estimated_rate(m, hashes_for(m, capacity), held)
    assert (stats.layers, stats.hashes, stats.bits) == (3, 7, sum(bits))
    assert stats.estimated_false_positive_rate == pytest.approx(1 - passes)


@pytest.mark.parametrize(
    ("items", "rate", "added", "most"),
    [
        (50_000, 0.01, 50_000, 1.05),
        (50_000, 0.3, 50_000, 1.05),
        (5_000, 0.01, 5_000, 1.05),
        (10_000, 0.01, 70_000, 2.1),
        (2_000, 0.05, 62_000, 2.1),
    ],
)
def test_the_rate_is_kept(items: int, rate: float, added: int, most: float) -> None:
    """Planted: one hash fewer; steps of at most 100; layers that do not halve their rate."""
    bloom = small(items, rate)
    bloom.update(f"product-{number}" for number in range(added))
    probes = 400_000
    assert passing(bloom, absent(probes)) / probes <= most * rate


def test_ids_crafted_against_another_secret_pass_no_more_than_others() -> None:
    """Whoever knows the code and every key, but not the secret, finds ids that pass his own filter only.

    Planted: a key of the hashes that does not depend on the secret; all crafted ids pass.
    """
    keys = [f"product-{number}" for number in range(5_000)]
    known, theirs = (BloomFilter(secret, expected_items=5_000) for secret in (bytes(32), SECRET))
    known.update(keys)
    theirs.update(keys)
    crafted = [key for key in absent(300_000) if key in known]
    assert len(crafted) > 2_500
    assert passing(theirs, crafted) / len(crafted) < 0.016


# --- the stored form ------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("secret", "items", "rate"),
    [(b"", 1, 0.01), (b"x" * 15, 1, 0.01), (SECRET, 0, 0.01), (SECRET, -1, 0.01), (SECRET, 1, 0.0),
     (SECRET, 1, 0.51), (SECRET, 1, -0.1), (SECRET, 1, float("nan"))],
)  # fmt: skip
def test_what_makes_no_filter(secret: bytes, items: int, rate: float) -> None:
    with pytest.raises(ValueError, match="must"):
        BloomFilter(secret, expected_items=items, false_positive_rate=rate)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.floats(1e-9, 0.5), st.lists(any_text, max_size=400))
def test_any_size_works(items: int, rate: float, keys: list[str]) -> None:
    """Fails when a filter of a few bits divides by zero, or its layers do not fit its stored form."""
    bloom = small(items, rate)
    bloom.update(keys)
    for key in keys[:20]:
        assert not bloom.add(key)
    loaded = BloomFilter.load(bloom.dump(), SECRET, expected_items=items, false_positive_rate=rate)
    assert [key for key in keys if key not in loaded] == []


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
