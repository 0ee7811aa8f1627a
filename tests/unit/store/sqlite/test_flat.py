"""Finding the next message costs the same whatever lies in the queue: counted in steps, not timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import counted, sqlite_of
from windlass.message import Options
from windlass.store.sqlite import ready
from windlass.store.sqlite.upkeep import Upkeep

FEW, MANY = 10, 30_000
BATCH = 1_000


def _fill(bench: Bench, amount: int, **options: object) -> None:
    each = Options(**options)  # type: ignore[arg-type]
    for start in range(0, amount, BATCH):
        bench.send_each("q", [each] * min(BATCH, amount - start))


def _lease_all(bench: Bench, seconds: int) -> None:
    while bench.receive("q", BATCH, seconds * 1_000):
        pass


def waiting(bench: Bench, amount: int) -> None:
    bench.create("q")
    _fill(bench, amount)


def leased(bench: Bench, amount: int) -> None:
    bench.create("q")
    _fill(bench, amount)
    _lease_all(bench, 3_600)


def delayed(bench: Bench, amount: int) -> None:
    bench.create("q")
    _fill(bench, amount, delay=3_600_000)


def blocked(bench: Bench, amount: int) -> None:
    bench.create("q")
    _fill(bench, amount, group="g")
    bench.receive("q", 1, 3_600_000)


def dead(bench: Bench, amount: int) -> None:
    bench.create("q", max_deliveries=1)
    _fill(bench, amount)
    _lease_all(bench, 1)
    bench.advance(1)


def expired(bench: Bench, amount: int) -> None:
    """All ttls are over, and upkeep has had no time to clear up."""
    bench.create("q")
    _fill(bench, amount, ttl=1_000)
    bench.clock.advance(1)


def expired_later(bench: Bench, amount: int) -> None:
    """Ttls that end in no order; every third message lives, and its block with it."""
    bench.create("q")
    for start in range(0, amount, BATCH):
        each = [Options(ttl=1_000 + 7 * n % 500) for n in range(min(BATCH, amount - start))]
        bench.send_each("q", each)
    bench.clock.advance(2)
    _fill(bench, 1, ttl=3_600_000, priority=9)


def too_old(bench: Bench, amount: int) -> None:
    bench.create("q", retention_seconds=10)
    _fill(bench, amount)
    bench.clock.advance(10)


def abandoned(bench: Bench, amount: int) -> None:
    bench.create("q")
    _fill(bench, amount)
    bench.purge("q")


STATES = [waiting, leased, delayed, blocked, dead, expired, expired_later, too_old, abandoned]


def rest(patch: pytest.MonkeyPatch) -> None:
    """Upkeep does only what it does before all else, as if it had no time for more."""
    for name in ("_due", "_expired", "_retention", "_sweep", "_records"):
        patch.setattr(Upkeep, name, lambda *_: False)


def _cost(bench: Bench, fill: Callable[[Bench, int], None], amount: int) -> int:
    """Steps of four rounds of send, receive, lease and acknowledge with `amount` messages in a state."""
    fill(bench, amount)
    with pytest.MonkeyPatch.context() as patch:
        rest(patch)
        return _rounds(bench)


def _rounds(bench: Bench) -> int:
    for _ in range(4):  # the first of them move what upkeep does first, and the memory of where receives are
        bench.run(lambda s: s.ping())
    bench.receive("q")
    with counted(bench) as found:
        for _ in range(4):
            bench.send("q", b"next", ttl=60_000)
            bench.send("q", b"next", b"next")
            assert bench.receive("q")
            messages = bench.receive("q", 2, 3_600_000)
            assert len(messages) == 2
            bench.acknowledge("q", *messages)
    return found["steps"]


@pytest.mark.parametrize("fill", STATES, ids=lambda fill: fill.__name__)
def test_the_cost_does_not_grow(bench: Bench, fill: Callable[[Bench, int], None]) -> None:
    """Fails when a verb walks over messages that may not leave.

    The planted defects: receive filters expired rows one by one; the index that it reads holds leased or
    blocked messages.
    """
    few = _cost(bench, fill, FEW)
    bench.delete("q")
    many = _cost(bench, fill, MANY)
    # A block of 256 numbers may be walked through; a walk over all would take some hundred thousand steps.
    assert many <= few + 12_000


def test_many_queues_cost_no_more_than_one(bench: Bench) -> None:
    """Fails when a commit writes a row, or a page, for each queue that exists."""
    for n in range(17):
        bench.create(f"q{n}")

    def cost(queues: int) -> int:
        with counted(bench) as found:
            bench.together(*[lambda s, n=n: s.send(f"q{n % queues}", [b"1"]) for n in range(16)])
        return found["statements"]

    one = cost(1)
    assert cost(16) <= one + 2


def test_the_memory_of_what_is_past_is_found_by_halving(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the first message inside a retention is looked for one by one."""
    rest(monkeypatch)
    bench.create("q", retention_seconds=10)
    _fill(bench, 5_000)
    bench.clock.advance(10)
    (last,) = bench.send("q", b"young").numbers
    store = sqlite_of(bench)
    queue = store._memory.queue("q")
    queue.past = -1
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return False

    db = store._db
    db.set_progress_handler(step, 1)
    assert ready.past(db, queue, bench.clock.now()) == last - 1
    db.set_progress_handler(None)
    assert steps < 40 * 600
