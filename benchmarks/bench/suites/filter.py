"""The Bloom filter against others: a million ids at one false positive in a hundred.

Each filter is built, asked and saved in turn, in one process and on one thread; times are of the processor,
so that neighbours on the machine count less. rbloom takes its hash from the caller: once the one that
Windlass uses (BLAKE2b under a secret, in the fastest way Python has), once the one that its README has for
filters that are saved (SHA-256 of a pickle), and once the fastest that is the same in every process (XXH3).
No secret protects the last two.

Parts, for --only: speed, rate, memory.
"""

from __future__ import annotations

import gc
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b, sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.processes import BenchmarkError, scratch_directory
from bench.results import Options, Result, begin, finish
from windlass.guard.bloom import BloomFilter

ITEMS = 1_000_000
RATE = 0.01
SINGLES = 100_000
SECRET = bytes(range(32))
OURS, KEYED = "windlass", "rbloom, keyed BLAKE2b"
README, UNKEYED = "rbloom, SHA-256 as in its README", "rbloom, XXH3 without a secret"
SLOW = "pyprobables"  # 15 us an id: it is asked a tenth of them

BUILD, ADD, HIT, MISS = "bulk build", "single add", "look-up, present", "look-up, absent"
SAVE, LOAD, PASSED = "save", "load", "false positives"
MEMORY, RESIDENT = "memory, as it says", "memory, resident"


@dataclass(frozen=True)
class Kind:
    """A filter's verbs, each in the way that its library does it fastest; `size` is in bytes."""

    make: Callable[[], Any]
    update: Callable[[Any, Sequence[str]], object]
    adder: Callable[[Any], Callable[[str], object]]
    asker: Callable[[Any], Callable[[str], bool]]
    size: Callable[[Any], int]
    save: Callable[[Any, Path], object]
    load: Callable[[Path], Any]


def windlass() -> Kind:
    return Kind(
        make=lambda: BloomFilter(SECRET, expected_items=ITEMS, false_positive_rate=RATE),
        update=lambda bloom, keys: bloom.update(keys),
        adder=lambda bloom: bloom.add,
        asker=lambda bloom: bloom.__contains__,
        size=lambda bloom: bloom.stats().memory_bytes,
        save=lambda bloom, path: path.write_bytes(bloom.dump()),
        load=lambda path: BloomFilter.load(path.read_bytes(), SECRET),
    )


def rbloom(hashed: Callable[[str], int]) -> Kind:
    from rbloom import Bloom

    return Kind(
        make=lambda: Bloom(ITEMS, RATE, hashed),
        update=lambda bloom, keys: bloom.update(keys),
        adder=lambda bloom: bloom.add,
        asker=lambda bloom: bloom.__contains__,
        size=lambda bloom: bloom.size_in_bits // 8,
        save=lambda bloom, path: bloom.save(str(path)),
        load=lambda path: Bloom.load(str(path), hashed),
    )


def rbloom_keyed() -> Kind:
    copy = blake2b(SECRET, digest_size=16).copy

    def hashed(key: str) -> int:
        state = copy()
        state.update(key.encode())
        return int.from_bytes(state.digest(), "little", signed=True)

    return rbloom(hashed)


def rbloom_readme() -> Kind:
    def hashed(key: str) -> int:
        return int.from_bytes(sha256(pickle.dumps(key)).digest()[:16], "big", signed=True)

    return rbloom(hashed)


def rbloom_unkeyed() -> Kind:
    from xxhash import xxh3_128_intdigest

    half = 1 << 127
    return rbloom(lambda key: xxh3_128_intdigest(key.encode()) - half)


def fastbloom() -> Kind:
    from fastbloom_rs import BloomFilter, FilterBuilder

    return Kind(
        make=lambda: FilterBuilder(ITEMS, RATE).build_bloom_filter(),
        update=lambda bloom, keys: bloom.add_str_batch(keys),
        adder=lambda bloom: bloom.add_str,
        asker=lambda bloom: bloom.contains_str,
        size=lambda bloom: len(bloom.get_bytes()),
        save=lambda bloom, path: bloom.save_to_file_with_hashes(str(path)),
        load=lambda path: BloomFilter.from_file_with_hashes(str(path)),
    )


def pybloom() -> Kind:
    from pybloom_live import BloomFilter

    def save(bloom: Any, path: Path) -> None:
        with path.open("wb") as file:
            bloom.tofile(file)

    def load(path: Path) -> Any:
        with path.open("rb") as file:
            return BloomFilter.fromfile(file)

    return Kind(
        make=lambda: BloomFilter(ITEMS, RATE),
        update=lambda bloom, keys: _each(bloom.add, keys),
        adder=lambda bloom: bloom.add,
        asker=lambda bloom: bloom.__contains__,
        size=lambda bloom: bloom.num_bits // 8,
        save=save,
        load=load,
    )


def probables() -> Kind:
    from probables import BloomFilter

    return Kind(
        make=lambda: BloomFilter(ITEMS, RATE),
        update=lambda bloom, keys: _each(bloom.add, keys),
        adder=lambda bloom: bloom.add,
        asker=lambda bloom: bloom.check,
        size=lambda bloom: bloom.bloom_length,
        save=lambda bloom, path: bloom.export(path),
        load=lambda path: BloomFilter(filepath=path),
    )


KINDS = {
    OURS: windlass,
    KEYED: rbloom_keyed,
    README: rbloom_readme,
    UNKEYED: rbloom_unkeyed,
    "fastbloom-rs": fastbloom,
    "pybloom-live": pybloom,
    SLOW: probables,
}


def run(options: Options) -> None:
    result = begin("filter", options)
    result.settings |= {
        "items": ITEMS,
        "rate": RATE,
        "single_operations": SINGLES,
        "absent_ids": options.size,
    }
    result.units |= {SAVE: "ms", LOAD: "ms", MEMORY: "KiB", RESIDENT: "KiB", PASSED: "a million"}
    kinds: dict[str, Kind] = {}
    for name, make in KINDS.items():
        try:
            kinds[name] = make()
        except ImportError:
            result.notes.append(f"{name} is not installed and left out")
    keys = _keys()
    if options.wants("speed"):
        with scratch_directory(options.scratch, "filter") as directory:
            for round_ in range(1, options.rounds + 1):
                for name, kind in kinds.items():
                    measure(result, name, kind, round_, keys, directory / "saved")
    if options.wants("rate"):
        for name, kind in kinds.items():
            count_passing(result, name, kind, keys)
    if options.wants("memory"):
        for name in kinds:
            result.add(RESIDENT, name, 1, resident_growth(name) / 1024)
    for metric, aim in ((BUILD, 1.0), (ADD, 0.5), (HIT, 0.5), (MISS, 0.5)):
        for other in (KEYED, README):
            result.ratio(f"{metric}: {OURS} / {other}", (metric, OURS), (metric, other), aim=aim)
        result.ratio(f"{metric}: {OURS} / {UNKEYED}", (metric, OURS), (metric, UNKEYED))
    result.ratio(f"{MEMORY}: {OURS} / {KEYED}", (MEMORY, OURS), (MEMORY, KEYED), aim=1.05, at_most=True)
    for metric in (SAVE, LOAD):
        result.limit(f"{metric}, ms", (metric, OURS), at_most=10)
    result.limit(f"{PASSED}, in a million", (PASSED, OURS), at_most=1.05 * RATE * 1e6)
    finish(result)


def measure(result: Result, name: str, kind: Kind, round_: int, keys: Sequence[str], path: Path) -> None:
    """One round of one filter; BenchmarkError where it, or what it saved, does not find its keys."""
    few, absent = keys[:: len(keys) // SINGLES], [f"absent-{number}" for number in range(SINGLES)]
    single, full = kind.make(), kind.make()
    seconds = _timed(partial(_each, kind.adder(single), few))
    result.add(ADD, name, round_, len(few) / seconds)
    seconds = _timed(partial(kind.update, full, keys))
    result.add(BUILD, name, round_, len(keys) / seconds)
    for metric, asked in ((HIT, few), (MISS, absent)):
        seconds = _timed(partial(_each, kind.asker(full), asked))
        result.add(metric, name, round_, len(asked) / seconds)
    result.add(SAVE, name, round_, 1e3 * _timed(partial(kind.save, full, path)))
    result.add(LOAD, name, round_, 1e3 * _timed(partial(kind.load, path)))
    if round_ == 1:
        result.add(MEMORY, name, round_, kind.size(full) / 1024)
    for bloom, held in ((single, few), (kind.load(path), keys[:SINGLES])):
        if not all(map(kind.asker(bloom), held)):
            raise BenchmarkError(f"{name}: a key that was added is not found")


def count_passing(result: Result, name: str, kind: Kind, keys: Sequence[str]) -> None:
    """How many ids that were never added pass a full filter."""
    bloom = kind.make()
    kind.update(bloom, keys)
    asked = result.options.size // (10 if name == SLOW else 1)
    passed = sum(map(kind.asker(bloom), (f"missing-{number}" for number in range(asked))))
    result.add(PASSED, name, 1, passed / asked * 1e6, asked=asked)


def resident_growth(name: str) -> int:
    """Bytes by which a fresh process grows as it makes and fills a filter, as the kernel counts them."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (name,))


def _grown(name: str) -> int:
    kind, keys = KINDS[name](), _keys()
    gc.collect()
    before = _resident()
    bloom = kind.make()
    kind.update(bloom, keys)
    gc.collect()
    return _resident() - before


def _keys() -> list[str]:
    return [f"product-{number}" for number in range(ITEMS)]


def _resident() -> int:
    """Anonymous memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _each(call: Callable[[str], object], keys: Iterable[str]) -> None:
    deque(map(call, keys), maxlen=0)


def _timed(call: Callable[[], object]) -> float:
    """Seconds of the processor."""
    started = time.process_time()
    call()
    return time.process_time() - started
