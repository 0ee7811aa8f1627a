"""Would a filter in front of the index of dedup ids, or of Idempotency-Keys, make a send cheaper?

Sends whose ids were never seen go to the store itself, without HTTP, among ten thousand and three million
that it remembers. The index is asked as it is; or Bloom filters by the time of their ids are asked first, all
in one or in five, of which the oldest could be dropped whole; or nothing is asked at all, which is more than
any filter could save. Whatever is asked, an id that is known has to be found out in the end.

Parts, for --only: dedup, batch, key.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import apsw
import msgspec

from bench.processes import BenchmarkError, scratch_directory
from bench.results import Options, Result, begin, finish
from windlass.clock import SystemClock
from windlass.guard.bloom import BloomFilter
from windlass.guard.hashing import two_hashes
from windlass.message import Once, Sent
from windlass.message import Options as SendOptions
from windlass.store import Store, open_store
from windlass.store.sqlite import sending
from windlass.store.sqlite.files import DATABASE

SIZES = (10_000, 3_000_000)
RATE = 0.01
BUCKETS = (1, 5)
INDEX, NOTHING = "the index", "nothing"
PARTS = {"dedup": (32, 1), "batch": (4, 100), "key": (32, 1)}
"""What is sent: how many senders, and messages of each send."""
NAMES = {"dedup": "dedup ids", "batch": "dedup ids, 100 a send", "key": "Idempotency-Keys"}

_WINDOW = 30 * 24 * 3600
_WARM_UP_SECONDS = 0.5
_encode = msgspec.json.Encoder().encode


class Buckets:
    """Ids by their time, the newest bucket last. A prototype: nothing here drops a bucket, or begins one.

    It takes no lock and hashes once for all buckets, as one that was built would.
    """

    def __init__(self, ids: Iterator[str], amount: int, buckets: int) -> None:
        size = -(-amount // buckets)
        filters = [
            BloomFilter(bytes(32), expected_items=size, false_positive_rate=RATE) for _ in range(buckets)
        ]
        for each in filters:
            each.update(islice(ids, size))
        self._digest = filters[0]._digest
        *self._older, self._newest = (each._layers[0] for each in filters)

    def take(self, key: str) -> bool:
        """Whether a key may have been there before; it is now."""
        first, second = two_hashes(self._digest(key))
        for layer in self._older:
            if layer.holds(first, second):
                return True
        return not self._newest.add(first, second)


class Looks:
    """The two look-ups of a send, as they are or behind something."""

    def __init__(self, db: apsw.Connection, amount: int) -> None:
        def ids() -> Iterator[str]:
            return (row[0] for row in db.execute("SELECT dedup_id FROM dedup ORDER BY id"))

        def keys() -> Iterator[str]:
            return (row[0].hex() for row in db.execute("SELECT key FROM answers ORDER BY until"))

        self._of_ids = {_named(number): Buckets(ids(), amount, number) for number in BUCKETS}
        self._of_keys = {_named(number): Buckets(keys(), amount, number) for number in BUCKETS}
        self._known: Callable[..., Any] = sending._known
        self._answered: Callable[..., Any] = sending._answered

    @contextmanager
    def behind(self, variant: str) -> Iterator[None]:
        sending._known, sending._answered = self._made(variant)
        try:
            yield
        finally:
            sending._known, sending._answered = self._known, self._answered

    def _made(self, variant: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        known, answered = self._known, self._answered
        if variant == INDEX:
            return known, answered
        if variant == NOTHING:
            return (lambda *_: None), (lambda *_: None)
        ids, keys = self._of_ids[variant], self._of_keys[variant]

        def filtered_known(tx: Any, queue: Any, dedup_id: str | None) -> Any:
            return known(tx, queue, dedup_id) if dedup_id is not None and ids.take(dedup_id) else None

        def filtered_answered(tx: Any, key: bytes) -> Any:
            return answered(tx, key) if keys.take(key.hex()) else None

        return filtered_known, filtered_answered


def run(options: Options) -> None:
    result = begin("dedup", options)
    result.settings |= {"remembered": [min(size, options.size) for size in SIZES], "rate": RATE}
    sending.MAX_ANSWERS = 1 << 40
    variants = [INDEX, *map(_named, BUCKETS), NOTHING]
    for size in SIZES:
        amount = min(size, options.size)
        with scratch_directory(options.scratch, "dedup") as directory:
            remember(directory, amount)
            with closing(apsw.Connection(str(directory / DATABASE))) as db:
                looks = Looks(db, amount)
            with closing(open_store(directory, clock=SystemClock())) as store, asyncio.Runner() as runner:
                for part in filter(options.wants, PARTS):
                    for round_ in range(options.rounds + 1):
                        for variant in variants[round_ % 4 :] + variants[: round_ % 4]:
                            with looks.behind(variant):
                                measure(result, runner, store, part, variant, amount, round_)
                for variant in variants[:-1]:
                    with looks.behind(variant):
                        runner.run(check(store))
    for size in SIZES:
        for part in filter(options.wants, PARTS):
            for metric in _metrics(part, min(size, options.size)):
                for variant in variants[1:]:
                    result.ratio(f"{metric}: {variant} / {INDEX}", (metric, variant), (metric, INDEX))
    finish(result)


def remember(directory: Path, amount: int) -> None:
    """A store with so many dedup ids and Idempotency-Keys, as if they had been sent over some hours."""
    with closing(open_store(directory, clock=SystemClock())) as store:
        asyncio.run(store.create_queue("q", {"dedup_window_seconds": _WINDOW}))
        queue, now = store.queue_number("q"), SystemClock().now()
    answer, until = _encode(Sent(queue, [1])), now + 20 * 3600 * 1000
    numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)"
    with closing(apsw.Connection(str(directory / DATABASE))) as db:
        db.pragma("synchronous", "off")
        db.pragma("cache_size", -2_000_000)  # KiB: the indexes by time are filled in no order
        with db:
            db.execute(
                f"INSERT INTO dedup (queue, dedup_id, id, until) {numbers}"
                " SELECT ?2, lower(hex(randomblob(16))) AS dedup_id, n, ?3 + n FROM n ORDER BY dedup_id",
                (amount, queue, until),
            )
            db.execute(
                f"INSERT INTO answers (key, fingerprint, answer, until) {numbers}"
                " SELECT randomblob(24) AS key, randomblob(24), ?2, ?3 + n FROM n ORDER BY key",
                (amount, answer, until),
            )
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def measure(
    result: Result,
    runner: asyncio.Runner,
    store: Store,
    part: str,
    variant: str,
    amount: int,
    round_: int,
) -> None:
    """One turn of a variant; round 0 warms up."""
    seconds = result.options.seconds if round_ else _WARM_UP_SECONDS
    wall, cpu = time.perf_counter(), time.process_time()
    sent = runner.run(send(store, part, seconds))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if round_:
        rate, each = _metrics(part, amount)
        result.units[each] = "us"
        result.add(rate, variant, round_, sent / wall)
        result.add(each, variant, round_, cpu * 1e6 / sent)


async def send(store: Store, part: str, seconds: float) -> int:
    """Send for so long, each sender one after the other; how many messages."""
    senders, batch = PARTS[part]
    ends, contents = time.perf_counter() + seconds, [b'"x"'] * batch

    async def one() -> int:
        for sends in count(1):
            if part == "key":
                await store.send("q", contents, None, Once(os.urandom(24), bytes(24)))
            else:
                fresh = os.urandom(16 * batch).hex()
                ids = [fresh[at : at + 32] for at in range(0, 32 * batch, 32)]
                await store.send("q", contents, [SendOptions(dedup_id=each) for each in ids])
            if time.perf_counter() > ends:
                return sends * batch
        raise AssertionError

    return sum(await asyncio.gather(*(one() for _ in range(senders))))


async def check(store: Store) -> None:
    """BenchmarkError where a second send is taken for a first."""
    options, once = [SendOptions(dedup_id=os.urandom(16).hex())], Once(os.urandom(24), bytes(24))
    first = await store.send("q", [b"1"], options)
    again = await store.send("q", [b"1"], options)
    answered = await store.send("q", [b"1"], None, once)
    repeated = await store.send("q", [b"1"], None, once)
    if (again.duplicates, list(again.numbers)) != ([True], list(first.numbers)):
        raise BenchmarkError("a dedup id was taken for a new one")
    if list(repeated.numbers) != list(answered.numbers):
        raise BenchmarkError("an Idempotency-Key was taken for a new one")


def _metrics(part: str, amount: int) -> tuple[str, str]:
    name = f"{NAMES[part]} among {amount:,}"
    return name, f"{name}, processor"


def _named(buckets: int) -> str:
    return f"{buckets} filter{'s' if buckets > 1 else ''}, then the index"
