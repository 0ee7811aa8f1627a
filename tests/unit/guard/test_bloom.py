"""The Bloom filter: never a false negative, no more false positives than promised, no state trusted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.guard.bloom import BloomFilter, bits_for, estimated_rate, hashes_for
from windlass.guard.stored import SECTOR

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


# --- any size ---------------------------------------------------------------------------------------


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
