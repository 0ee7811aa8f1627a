"""What is ready is kept as runs, and a plain commit is one statement."""

from __future__ import annotations

from collections.abc import Callable

import apsw
import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import counted, sqlite_of
from windlass.message import Acknowledgement
from windlass.store.sqlite.files import DATABASE


def runs(bench: Bench) -> list[tuple[int, int]]:
    """First number and length of each row of `ready`, in order."""
    db = apsw.Connection(str(bench.directory / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
    rows = db.execute("SELECT id, amount FROM ready ORDER BY generation, rank, seq").fetchall()
    db.close()
    return [(int(str(number)), int(str(amount))) for number, amount in rows]


def fill(bench: Bench, *batches: int) -> list[bytes]:
    """Send batches of numbered contents; returns all contents."""
    numbered = iter(range(sum(batches)))
    contents = [[b"%d" % next(numbered) for _ in range(amount)] for amount in batches]
    for batch in contents:
        bench.send("q", *batch)
    return [content for batch in contents for content in batch]


def test_what_is_sent_together_is_one_row(bench: Bench) -> None:
    """Planted defect: a row a message, which is what made batches and many queues expensive."""
    bench.create("q")
    fill(bench, 1_000, 3)
    assert [amount for _, amount in runs(bench)] == [1_000, 3]


@pytest.mark.parametrize("take", [1, 4, 5, 9, 10, 14, 15, 40])
def test_receives_cut_runs_at_the_front_and_nowhere_else(bench: Bench, take: int) -> None:
    """Planted defects: a run that is used up stays, or one too many goes, at either end of a run."""
    bench.create("q")
    contents = fill(bench, 5, 5, 5)
    got = bench.receive("q", take, 1_000)
    assert [m.content for m in got] == contents[:take]
    assert bench.contents("q") == contents[take:]
    assert sum(amount for _, amount in runs(bench)) == len(contents[take:])
    bench.crash()
    assert [m.content for m in bench.receive("q", 40)] == contents[take:]
    assert runs(bench) == []


@pytest.mark.parametrize("at", [0, 1, 4, 5])
def test_what_leaves_from_inside_a_run_splits_it(bench: Bench, at: int) -> None:
    """Planted defects: the rest of the run lost, or the cancelled one still counted in it."""
    bench.create("q")
    first = bench.send("q", *[b"%d" % n for n in range(6)]).numbers[0]
    bench.cancel("q", first + at)
    left = [b"%d" % n for n in range(6) if n != at]
    assert bench.contents("q") == left
    assert sum(amount for _, amount in runs(bench)) == 5
    assert [m.content for m in bench.receive("q", 10)] == left


def test_what_comes_back_goes_in_front_of_the_run_it_left(bench: Bench) -> None:
    bench.create("q")
    fill(bench, 4)
    got = bench.receive("q", 2, 1_000)
    bench.release("q", got[1])
    bench.release("q", got[0])
    assert [m.content for m in bench.receive("q", 4)] == [b"0", b"1", b"2", b"3"]


def test_a_retention_ends_the_old_part_of_the_queue_and_the_rest_of_a_run_goes_on(bench: Bench) -> None:
    """Planted defect: looking behind the retention's end only at the beginnings of runs."""
    bench.create("q")
    fill(bench, 6)
    bench.update("q", retention_seconds=10)
    bench.clock.advance(5)
    fill(bench, 6)
    bench.clock.advance(6)  # the first six are over; upkeep has not been there
    assert bench.oldest("q") == bench.clock.now() - 6_000
    assert [m.content for m in bench.receive("q", 2, 1_000)] == [b"0", b"1"]
    bench.settle()
    assert bench.contents("q") == [b"2", b"3", b"4", b"5"]
    assert bench.counts("q") == {"ready": 4, "leased": 2}


def test_a_purge_sweeps_runs_of_any_length(bench: Bench) -> None:
    """Planted defect: a bite that takes a run whole, or forgets what it left of one."""
    bench.create("q")
    fill(bench, 700, 1, 1, 300)
    bench.purge("q")
    fill(bench, 2)
    bench.settle()
    assert [amount for _, amount in runs(bench)] == [2]
    db = sqlite_of(bench)._db
    assert next(db.execute("SELECT count(*) FROM messages"))[0] == 2


def test_a_receive_sees_what_the_same_commit_sent(bench: Bench) -> None:
    """Planted defect: reading the front without what the commit has not written yet."""
    for name in ("q", "r"):
        bench.create(name)
    bench.send("q", b"0")
    results = bench.together(
        lambda s: s.send("q", [b"1"]),
        lambda s: s.send("r", [b"2"]),
        lambda s: s.receive("q", 3),
        lambda s: s.receive("r"),
    )
    assert [[m.content for m in got] for got in results[2:]] == [[b"0", b"1"], [b"2"]]
    assert runs(bench) == []


def test_many_queues_are_served_in_one_commit_each_its_own_first(bench: Bench) -> None:
    """Planted defect: answers dealt out in the order of the queues, not by the queue of each row."""
    names = [f"q{n}" for n in range(6)]
    for name in names:
        bench.create(name)
        if name != "q3":
            bench.send(name, f'"{name}"'.encode(), b"1")
    results = bench.together(*[lambda s, name=name: s.receive(name, 1, 1_000) for name in reversed(names)])
    expected = [[] if name == "q3" else [f'"{name}"'.encode()] for name in reversed(names)]
    assert [[m.content for m in got] for got in results] == expected
    assert bench.counts("q0") == {"ready": 1, "leased": 1}


def _send(bench: Bench) -> None:
    bench.together(*[lambda s: s.send("q", [b"1"])] * 20)


def _receive(bench: Bench) -> None:
    bench.together(*[lambda s: s.receive("q")] * 20)


def _lease_and_acknowledge(bench: Bench, *, late: bool = False) -> None:
    got = bench.receive("q", 20, 60_000)
    acks = [Acknowledgement(m.number, m.delivery, late=late) for m in got]
    bench.together(
        *[lambda s, ack=ack: s.acknowledge("q", [ack]) for ack in acks],
        *[lambda s: s.receive("q", 1, 60_000)] * 20,
    )


def _lease_and_delete(bench: Bench) -> None:
    """As over SQS: each may be late, and none is."""
    _lease_and_acknowledge(bench, late=True)


@pytest.mark.parametrize(
    ("work", "most"),
    [(_send, 1), (_receive, 2), (_lease_and_acknowledge, 3 + 3), (_lease_and_delete, 3 + 3)],
)
def test_a_plain_commit_writes_with_one_statement(
    bench: Bench, work: Callable[[Bench], None], most: int
) -> None:
    """Planted defect: a statement of its own on the hot path, each a turn at the interpreter's lock."""
    bench.create("q")
    fill(bench, 200)
    bench.settle()
    with counted(bench) as nothing:
        pass
    with counted(bench) as found:
        work(bench)
    assert found["statements"] - nothing["statements"] <= most
