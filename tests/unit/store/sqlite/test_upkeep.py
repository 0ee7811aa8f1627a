"""Upkeep works in steps: however much is due, a step stops when its watch says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import counted, sqlite_of
from windlass.message import Options
from windlass.store.sqlite import upkeep
from windlass.store.sqlite.upkeep import Upkeep, Watch

MANY = 3_000


def leases(bench: Bench) -> None:
    bench.send("q", *[b"1"] * 1_000, *[b"1"] * 1_000, *[b"1"] * 1_000)
    while bench.receive("q", 1_000, 1_000):
        pass


def delays(bench: Bench) -> None:
    bench.send("q", *[b"1"] * MANY, delay=1_000)


def ttls(bench: Bench) -> None:
    bench.send("q", *[b"1"] * MANY, ttl=1_000)


def groups(bench: Bench) -> None:
    bench.send("q", *[b"1"] * MANY, ttl=1_000, group="g")


def purged(bench: Bench) -> None:
    bench.send("q", *[b"1"] * MANY)
    bench.send("q", *[b"1"] * 100, ttl=900_000, group="g")
    bench.purge("q")


def too_old(bench: Bench) -> None:
    bench.update("q", retention_seconds=1)
    bench.send("q", *[b"1"] * MANY)


def letters(bench: Bench) -> None:
    bench.create("dead")
    bench.update("q", max_deliveries=1, dead_letter="dead")
    leases(bench)


def records(bench: Bench) -> None:
    bench.update("q", dedup_window_seconds=1)
    for start in range(0, MANY, 1_000):
        bench.send_each("q", [Options(dedup_id=str(n)) for n in range(start, start + 1_000)])


WORK = [leases, delays, ttls, groups, purged, too_old, letters, records]


class Impatient(Watch):
    """Over after a number of looks at it."""

    looks = 12

    def __init__(self) -> None:
        super().__init__()
        self._left = self.looks

    @property
    def over(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("fill", WORK, ids=lambda fill: fill.__name__)
def test_a_step_is_bounded(
    bench: Bench, fill: Callable[[Bench], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a job does all that is due at once, or a bite goes on when the time is up."""
    bench.create("q")
    bench.settle()
    monkeypatch.setattr(upkeep, "Watch", Impatient)
    monkeypatch.setattr(upkeep, "_REST", 0)
    fill(bench)
    bench.clock.advance(1)
    steps = 0
    due = True
    most = 0
    while due:
        with counted(bench) as found:
            moment = bench.run(lambda s: s.expire())
        most = max(most, found["statements"])
        due = moment is not None and moment <= bench.clock.now()
        steps += 1
        assert steps < 2_000
    assert steps > 1
    assert most < 250
    left = next(sqlite_of(bench)._db.execute("SELECT count(*) FROM messages"))[0]
    assert left == (MANY if fill in (leases, delays, letters, records) else 0)
    total = sum(bench.totals()[1])
    assert total == left


def test_requests_go_first_while_much_is_to_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when each commit of a request carries a whole step of a backlog."""
    bench.create("q")
    ttls(bench)
    steps = []
    step = Upkeep.step

    def noted(self: Upkeep, tx: object) -> object:
        steps.append(tx)
        return step(self, tx)  # type: ignore[arg-type]

    monkeypatch.setattr(Upkeep, "step", noted)
    monkeypatch.setattr(upkeep, "Watch", Impatient)
    monkeypatch.setattr(upkeep, "_REST", 1e9)
    bench.clock.advance(1)
    for _ in range(10):
        bench.send("q", b"1")
    assert len(steps) == 1
    assert [m.content for m in bench.receive("q")] == [b"1"]  # what expired is passed all the same


def test_a_backlog_is_worked_off_while_nobody_asks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when upkeep rests although no request comes."""
    bench.create("q")
    ttls(bench)
    monkeypatch.setattr(upkeep, "Watch", Impatient)
    monkeypatch.setattr(upkeep, "_REST", 1e9)
    bench.advance(1)
    assert bench.counts("q") == {}


def test_nothing_due_means_no_step(bench: Bench) -> None:
    """Fails when the store is asked again and again while it sleeps."""
    bench.create("q")
    assert bench.settle() is None
    before = sqlite_of(bench).calls["expire"]
    assert bench.run(lambda s: s.expire()) is None
    assert sqlite_of(bench).calls["expire"] == before
