"""Counts: folded now and then, and right after a crash at any point."""

from __future__ import annotations

import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import sqlite_of
from windlass.store.sqlite import counts


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds after few commits, few queues at a time."""
    monkeypatch.setattr(counts, "FOLD_AFTER", 5)
    monkeypatch.setattr(counts, "_SLICE", 2)


def test_a_crash_at_any_point_leaves_the_counts_right(bench: Bench) -> None:
    """Fails when a fold that is half done counts an entry of the log twice, or not at all."""
    names = [f"q{n}" for n in range(7)]
    for name in names:
        bench.create(name)
    sent = dict.fromkeys(names, 0)
    for turn in range(60):
        name = names[turn * turn % 7]
        bench.send(name, b"1")
        sent[name] += 1
        if turn % 3 == 0:
            bench.receive(name)
            sent[name] -= 1
        bench.crash()
        assert {name: bench.info(name).ready for name in names} == sent
    assert bench.totals() == (7, [sum(sent.values()), 0, 0, 0, 0])


def test_the_log_is_cut(bench: Bench) -> None:
    """Fails when the log of differences grows for ever, and each start with it."""
    for n in range(9):
        bench.create(f"q{n}")
    longest = 0
    for turn in range(200):
        bench.send(f"q{turn % 9}", b"1")
        store = sqlite_of(bench)
        bench.run(lambda s: s.ping())
        longest = max(longest, next(store._db.execute("SELECT count(*) FROM count_log"))[0])
    assert 0 < longest <= 20


def test_a_deleted_queue_leaves_nothing_to_count(bench: Bench) -> None:
    """Fails when the log's entries of a deleted queue go to whatever comes after it."""
    bench.create("q")
    bench.send("q", b"1", b"2")
    bench.delete("q")
    bench.create("q")
    bench.crash()
    assert bench.totals() == (1, [0, 0, 0, 0, 0])
    for _ in range(20):
        bench.send("q", b"1")
    bench.crash()
    assert bench.counts("q") == {"ready": 20}


def test_a_fold_that_fails_is_done_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a full disk during a fold loses counts, or the request that came before it."""
    bench.create("q")
    db = sqlite_of(bench)._db
    with monkeypatch.context() as patch:
        patch.setattr(counts.Fold, "step", lambda *_: db.execute("SELECT planted"))
        for _ in range(20):
            bench.send("q", b"1")
    for _ in range(10):
        bench.send("q", b"1")
    bench.run(lambda s: s.ping())
    assert next(db.execute("SELECT count(*) FROM count_log"))[0] < 20
    bench.crash()
    assert bench.counts("q") == {"ready": 30}
