"""`windlass store copy`: what goes along between backends of all kinds, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.contract.bench import Bench
from tests.contract.conftest import BACKENDS
from tests.contract.model import EPOCH
from tests.contract.moving import PLACES, QUIET, Spot, copied, shown, translated
from tests.contract.yard import Yard
from windlass.clock import ManualClock
from windlass.dispatch.labels import JOBS
from windlass.errors import JobLost, JobNotFound, StartError, StoreLocked
from windlass.ids import PLACE_BITS, Ids
from windlass.message import Acknowledgement, Extension, Once, Settled, State
from windlass.store import Key, Report, Runner, copy_store
from windlass.store.redis.address import parse
from windlass.store.redis.direct import Direct
from windlass.store.redis.target import RedisTarget
from windlass.store.sqlite.target import SQLiteTarget
from windlass.store.transfer import Living, Record

WAYS = [(source, target) for source in BACKENDS for target in BACKENDS]


class Moving:
    """A store that moves from place to place, and what it is now."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.spots: list[Spot] = []

    def bench(self, backend: str) -> Bench:
        self.spots = [Spot(backend, self.home)]
        return Bench(self.spots[0])

    def spot(self, backend: str) -> Spot:
        self.spots.append(Spot(backend, self.home))
        return self.spots[-1]

    def move(self, bench: Bench, backend: str) -> Report:
        """Copy what `bench` has open to a fresh place, and open that instead."""
        source, target = self.spots[-1], self.spot(backend)
        self.rest(bench)
        report = copied(source, target, bench.clock)
        bench.store = target.open(bench.clock)
        bench.ground = target
        return report

    def rest(self, bench: Bench) -> None:
        """Close it, for so long that nobody serves it any more."""
        bench.store.close()
        bench.clock.advance(QUIET)


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Moving]:
    made = Moving(tmp_path)
    yield made
    for spot in made.spots:
        spot.clear()


def fill(bench: Bench) -> dict[int, int]:
    """One of everything; returns each message's number and the queue that it was sent to."""
    bench.create("letters", lease_seconds=60)
    bench.create("orders", max_deliveries=2, dead_letter="letters", lease_seconds=60)
    bench.create("dead", max_deliveries=1, history_seconds=3_600, outcome_ttl_seconds=7_200)
    bench.create("idle")
    bench.update("idle", paused=True)
    numbers: dict[int, int] = {}

    def send(queue: str, *contents: bytes, once: Once | None = None, **options: Any) -> list[int]:
        bench.clock.advance(0.001)
        sent = bench.send(queue, *contents, once=once, **options)
        numbers.update(dict.fromkeys(sent.numbers, sent.queue))
        return list(sent.numbers)

    # Ready, in several priorities, with all that a message can have.
    send("orders", *(b'"plain %d"' % n for n in range(5)))
    send("orders", b'"first"', priority=9, headers=b'{"to":"\xc3\xa4"}', ttl=3_600_000)
    send("orders", b'"again"', dedup_id="once", once=Once(b"\xff" * 32, b"\x80" * 32))
    # Blocked behind one that is leased, behind one that is delayed, behind one that is ready.
    for group, delay in (("held", 0), ("late", 7_200_000), ("grüppe", 0)):
        send("dead", b'"head of %b"' % group.encode(), group=group, delay=delay)
        send("dead", b'"second of %b"' % group.encode(), group=group)
    # Leased and delivered before, forgiven and not; tentative; confirmed; lapsed.
    (held,) = bench.run(lambda s: s.receive("dead", 1, 3_600_000, "worker"))
    for counts in (False, True):
        (back,) = bench.receive("orders", 1, 60_000, "worker")
        bench.run(
            lambda s, m=back, counts=counts: s.release(  # type: ignore[misc]
                "orders", m.number, m.delivery, 3_600_000 if counts else 0, reason="täken", counts=counts
            )
        )
    bench.run(lambda s: s.receive("orders", 1, 3_600_000, "worker", claim="tentative"))
    (sure,) = bench.run(lambda s: s.receive("orders", 1, 3_600_000, "worker", claim="confirmed"))
    bench.run(lambda s: s.extend("orders", [Extension(sure.number, 3_600_000, sure.delivery)]))
    send("idle", b'"short"', ttl=1_000)
    bench.update("idle", paused=False)
    bench.receive("idle", 1, 3_600_000)
    bench.update("idle", paused=True)
    bench.advance(2)
    # Dead here, dead of a claim and untold, a letter, and one that was redriven.
    for claim in (None, "c"):
        send("dead", b'"dies"')
        (dying,) = [
            m
            for m in bench.run(lambda s, c=claim: s.receive("dead", 9, 3_600_000, "w", claim=c))  # type: ignore[misc]
            if m.content == b'"dies"'
        ]
        bench.run(lambda s, m=dying: s.release("dead", m.number, m.delivery, last=True))  # type: ignore[misc]
    for _ in range(2):
        (letter,) = bench.receive("orders", 1, 60_000)
        bench.run(lambda s, m=letter: s.release("orders", m.number, m.delivery, last=True))  # type: ignore[misc]
    bench.redrive("letters", 1)
    # Ended: acknowledged with an outcome, received, cancelled and untold, and told.
    send("dead", *(b'"ends %d"' % n for n in range(5)))
    for n, tell in enumerate((False, True)):
        ending = next(m for m in bench.run(lambda s: s.receive("dead", 1, 60_000, "w")))
        ack = Acknowledgement(ending.number, ending.delivery, b'{"n":%d}' % n, tell=tell)
        assert bench.run(lambda s, a=ack: s.acknowledge("dead", [a])) == [Settled.ACKNOWLEDGED]  # type: ignore[misc]
    bench.receive("dead", 1)
    for outcome in (None, b'{"cancelled":1}'):
        (number,) = send("dead", b'"cancelled"')
        bench.run(lambda s, n=number, o=outcome: s.cancel("dead", n, outcome=o))  # type: ignore[misc]
    (number,) = send("dead", b'"told"')
    bench.run(lambda s: s.cancel("dead", number, outcome=b"{}"))
    bench.run(lambda s: s.told(number, 3_600_000))
    at = bench.clock.now()
    bench.add_key(Key("k1", "shöp", b"\xff" * 32, ("send:*", "all"), at))
    for name in ("first", "second"):
        bench.run(lambda s, n=name: s.add_runner(Runner(0, n, n.encode() * 5, ("gpu",), ("x",), at, at)))  # type: ignore[misc]
    bench.run(lambda s: s.remove_runner(1))
    assert held.number in numbers
    return numbers


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_everything_goes_along(moving: Moving, source: str, target: str) -> None:
    """Planted defects: a state without its index; a letter without the way back from its home; ends that
    nobody was told of among those that somebody was; a record without its delivery."""
    bench = moving.bench(source)
    known = fill(bench)
    before = bench.store
    moving.rest(bench)
    copied(moving.spots[0], moving.spot(target), bench.clock)
    bench.store = moving.spots[0].open(bench.clock)
    expected = shown(bench, known)
    states = [("dead", "BLOCKED"), ("dead", "DEAD"), ("letters", "READY")]
    states += [("orders", state) for state in ("READY", "LEASED", "DELAYED")]
    assert all(expected[f"{queue} {state}"] for queue, state in states)
    assert len(expected["held"]) == 2
    assert len(expected["untold"]) == 3
    bench.store.close()
    bench.store = moving.spots[1].open(bench.clock)
    assert shown(bench, known, translated(before, bench.store)) == expected
    assert bench.redrive("letters") == (1, True)
    bench.close()


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_ids_and_receipts_stay_the_same_text(moving: Moving, source: str, target: str) -> None:
    """Planted defects: a secret of its own; numbers that begin anew."""
    bench = moving.bench(source)
    bench.create("orders")
    bench.send("orders", *(b"%d" % n for n in range(200)))
    taken = bench.receive("orders", 3, 3_600_000)

    def texts() -> tuple[Ids, list[bytes], list[bytes]]:
        store = bench.store
        ids = Ids(store.secret, spread=store.spread)
        queue = store.queue_number("orders")
        messages = bench.peek("orders")
        receipts = [ids.receipt(queue, m.number, m.delivery) for m in taken]
        return ids, [ids.message(m.queue, m.number) for m in messages], receipts

    _, messages, receipts = texts()
    moving.move(bench, target)
    ids, after, _ = texts()
    assert after == messages
    settled = []
    for text in receipts:
        parsed = ids.parse_receipt(text)
        assert parsed is not None
        settled += bench.run(lambda s, p=parsed: s.acknowledge("orders", [Acknowledgement(p[1], p[2])]))  # type: ignore[misc]
    assert settled == [Settled.ACKNOWLEDGED] * 3
    bench.close()


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_what_is_sent_later_comes_later(moving: Moving, source: str, target: str) -> None:
    """Planted defect: counting begins anew, or at the highest number that is still there."""
    bench = moving.bench(source)
    bench.create("orders", max_deliveries=1)
    last = bench.send("orders", *(b"%d" % n for n in range(300))).numbers[-1]
    bench.run(lambda s: s.cancel("orders", last))
    moving.move(bench, target)
    bench.store.close()
    bench.clock = ManualClock(EPOCH + 1)  # or time alone would bring a higher place
    bench.store = moving.spots[-1].open(bench.clock)
    sent = bench.send("orders", b"300")
    assert sent.numbers[0] & PLACES > last & PLACES
    bench.send("orders", b"-1", priority=1)
    contents = [message.content for message in bench.receive("orders", 1_000)]
    assert contents == [b"-1", *(b"%d" % n for n in range(299)), b"300"]
    added = bench.create("another")
    assert bench.store.queue_number(added.name) == 2
    bench.close()


def test_numbers_that_two_queues_have_are_given_to_one_at_most(moving: Moving) -> None:
    """Planted defects: both are written under it, or one of a queue that sends its dead letters elsewhere."""
    bench = moving.bench("redis")
    bench.create("letters")
    for name in ("a", "b"):
        bench.create(name, dead_letter="letters", max_deliveries=1, history_seconds=60)
    for name in ("c", "d", "windlass.jobs"):
        bench.create(name)
    first = {name: bench.send(name, b'"%b"' % name.encode()).numbers[0] for name in "ab"}
    bench.clock.advance(0.001)
    second = {name: bench.send(name, b'"%b2"' % name.encode()).numbers[0] for name in "ab"}
    bench.clock.advance(0.001)
    third = {name: bench.send(name, b'"3"').numbers[0] for name in ("c", "d", "windlass.jobs")}
    bench.clock.advance(0.001)
    alone = bench.send("a", b'"alone"', dedup_id="d").numbers[0]
    for numbers in (first, second, third):
        assert len({number & PLACES for number in numbers.values()}) == 1
    bench.receive("b", 1)  # its record is kept
    bench.receive("a", 1, 1_000)
    bench.advance(2)  # a letter
    before = {name: bench.contents(name) for name in ("a", "b", "c", "d", "letters")}
    report = moving.move(bench, "sqlite")
    assert report.renumbered == 6
    assert {name: bench.contents(name) for name in before} == before
    for numbers in (first, second):
        assert bench.find(numbers["a"] & PLACES) is None
    kept = bench.find(third["c"] & PLACES)
    assert kept is not None
    assert kept.in_queue == "windlass.jobs"
    assert bench.send("a", b'"alone"', dedup_id="d").numbers == [alone & PLACES]
    # What is dead-lettered from now on finds its own place, too.
    for name in "ab":
        bench.receive(name, 9, 1_000)
    bench.advance(2)
    assert bench.contents("letters") == [b'"a"', b'"a2"', b'"b2"', b'"alone"']
    assert bench.redrive("letters") == (4, True)
    bench.close()


def test_letters_of_one_place_keep_their_order(moving: Moving) -> None:
    """Planted defect: places as they were, of which two are the same: the second is not written."""
    bench = moving.bench("redis")
    bench.create("letters", max_deliveries=1)
    for name in ("a", "b", "c"):
        bench.create(name, dead_letter="letters", max_deliveries=1)
        bench.send(name, *(b'"%b%d"' % (name.encode(), n) for n in range(3)), group="g")
    for name in ("b", "c", "a"):
        for _ in range(3):
            bench.receive(name, 1, 1_000)
            bench.advance(2)
    bench.clock.advance(0.001)
    bench.send("letters", b'"own"', group="g")
    before = bench.contents("letters"), sorted(bench.contents("letters", State.BLOCKED))
    assert (len(before[0]), len(before[1])) == (1, 9)
    moving.move(bench, "sqlite")
    assert (bench.contents("letters"), sorted(bench.contents("letters", State.BLOCKED))) == before
    order = [bench.receive("letters", 1)[0].content for _ in range(10)]
    assert order == [
        b'"a0"',
        b'"b0"',
        b'"c0"',
        b'"a1"',
        b'"b1"',
        b'"c1"',
        b'"a2"',
        b'"b2"',
        b'"c2"',
        b'"own"',
    ]
    bench.close()


@pytest.mark.parametrize(("source", "target"), [("sqlite", "redis"), ("redis", "sqlite")])
def test_jobs_go_on(moving: Moving, source: str, target: str) -> None:
    """A runner goes on with the jobs that it holds, under the ids that it has; so does who asked for them.

    Planted defects: an id of the other kind is none; it is looked for in queues with claims only; confirmed
    claims end while nobody could extend them.
    """
    bench = moving.bench(source)
    yard = Yard(bench)
    runner = yard.register(labels=["gpu"])
    held, given_back, done = (yard.submit(str(n)) for n in range(3))
    assert [yard.take(runner) for _ in range(3)] == [held, given_back, done]
    yard.complete(runner, done)
    yard.settle()
    bench.clock.advance(0.001)  # a number of its own: at one moment two queues give out the same
    waiting = yard.submit("labelled", asked=["gpu"])
    told = len(yard.told)
    yard.advance(25)
    yard.stop()
    moving.move(bench, target)  # past the end of the leases
    yard._open()
    runner = yard.again(runner)
    assert [yard.view(job).state for job in (held, given_back, done, waiting)] == [
        "running", "running", "done", "queued",
    ]  # fmt: skip
    yard.advance(20)
    assert yard.beat(runner, held, given_back, done).lost == [done]
    yard.abort(runner, given_back)
    yard.advance(20)
    assert yard.view(given_back).state == "queued"
    yard.complete(runner, held)
    yard.complete(runner, held)
    yard.settle()
    assert yard.view(held).state == "done"
    assert len(yard.told) == told + 1
    with pytest.raises(JobLost):
        yard.complete(runner, given_back)
    yard.run(lambda d: d.cancel(waiting))
    assert yard.view(waiting).state == "cancelled"
    with pytest.raises(JobNotFound):
        yard.view(yard.dispatch._ids.numbered("jb", 9 << PLACE_BITS | 77 if target == "sqlite" else 77))
    assert bench.counts(JOBS) == {"ready": 1}
    yard.stop()
    bench.close()


def test_what_was_on_its_way_arrives(moving: Moving) -> None:
    """A server of Redis was killed between a message's leaving one queue and its arrival in the next.

    Planted defect: what has left is nowhere.
    """
    bench = moving.bench("redis")
    bench.create("letters")
    bench.create("orders", dead_letter="letters")
    bench.send("orders", b'"moves"')
    (message,) = bench.receive("orders", 1, 60_000)
    direct = Direct(parse(moving.spots[0].where), bench.clock)
    member = str(message.number & PLACES)
    queue = message.number >> PLACE_BITS
    reply = direct.ask("release", queue, [member, message.delivery, 0, "-", "", "1", "1"])
    assert len(reply[5]) == 1
    direct.close()
    report = moving.move(bench, "sqlite")
    assert report.messages == 1
    assert bench.contents("letters") == [b'"moves"']
    assert bench.find(message.number & PLACES) is not None
    bench.close()


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", BACKENDS)
def test_a_target_that_has_something_is_named_and_left(moving: Moving, target: str) -> None:
    """Planted defect: what is there is written over, or mixed with what comes."""
    bench = moving.bench("sqlite")
    bench.create("orders")
    other = moving.spot(target)
    former = other.open(bench.clock)
    bench.run(lambda _: former.create_queue("theirs", {}))
    former.close()
    moving.rest(bench)
    with pytest.raises(StartError, match=r"not empty: .*1 queue \(theirs\)"):
        copy_store(moving.spots[0].where, other.where, clock=bench.clock)
    again = other.open(bench.clock)
    assert [info.name for info in bench.run(lambda _: again.queues())] == ["theirs"]
    again.close()
    bench.store = moving.spots[0].open(bench.clock)
    bench.close()


def test_a_single_key_that_is_there_is_named(moving: Moving) -> None:
    """Planted defect: only the registry is looked at."""
    bench = moving.bench("sqlite")
    bench.create("orders")
    moving.rest(bench)
    target = moving.spot("redis")
    direct = Direct(parse(target.where))
    direct.do(1, [("SET", direct.key(1, "dd"), "x")])
    with pytest.raises(StartError, match=r"a key copy\d+:\{1\}:dd"):
        copy_store(moving.spots[0].where, target.where)
    direct.close()
    bench.loop.close()


@pytest.mark.parametrize("source", BACKENDS)
def test_a_source_that_is_served_is_refused(moving: Moving, source: str) -> None:
    """Planted defect: it is not looked whether a server is there."""
    bench = moving.bench(source)
    bench.create("orders")
    bench.settle()
    target = moving.spot("sqlite")
    with pytest.raises(StoreLocked if source == "sqlite" else StartError, match="Stop"):
        copy_store(moving.spots[0].where, target.where, clock=bench.clock)
    assert not (target.directory / "windlass.db").exists()
    bench.close()


def test_a_server_that_comes_up_meanwhile_is_noticed(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: only the beginning is looked at, and what that server did is missing."""
    bench = moving.bench("redis")
    bench.create("orders")
    moving.rest(bench)
    finish = SQLiteTarget.finish

    def serve(target: SQLiteTarget) -> None:
        bench.store = moving.spots[0].open(bench.clock)
        bench.settle()
        finish(target)

    monkeypatch.setattr(SQLiteTarget, "finish", serve)
    target = moving.spot("sqlite")
    with pytest.raises(StartError, match="Stop all of its servers"):
        copy_store(moving.spots[0].where, target.where, clock=bench.clock)
    with pytest.raises(StartError, match="not finished"):
        target.open(bench.clock)
    bench.close()


@pytest.mark.parametrize("source", BACKENDS)
def test_a_source_that_is_not_there_is_said_and_not_made(moving: Moving, source: str) -> None:
    spot, target = moving.spot(source), moving.spot("sqlite")
    with pytest.raises(StartError, match="There is no store"):
        copy_store(spot.where, target.where)
    assert not spot.directory.exists()
    assert not target.directory.exists()


def test_a_store_is_not_copied_to_itself(moving: Moving) -> None:
    bench = moving.bench("sqlite")
    with pytest.raises(StartError, match="itself"):
        copy_store(moving.spots[0].where, moving.spots[0].where + "/")
    bench.close()


# --- unfinished, and different --------------------------------------------------------------------


Lose = Callable[[Sequence[Record]], Sequence[Record]]


def _last_lost(batch: Sequence[Record]) -> Sequence[Record]:
    return batch[:-1]


def _swapped(batch: Sequence[Record]) -> Sequence[Record]:
    """Two ready messages in the place of each other."""
    first, second, *rest = batch
    assert isinstance(first, Living)
    assert isinstance(second, Living)
    return [replace(first, content=second.content), replace(second, content=first.content), *rest]


@pytest.mark.parametrize("lose", [_last_lost, _swapped])
@pytest.mark.parametrize("target", BACKENDS)
def test_what_differs_is_no_store(
    moving: Moving, monkeypatch: pytest.MonkeyPatch, target: str, lose: Lose
) -> None:
    """Planted defect: the comparison looks at counts only, or at both sides as they were read from one."""
    bench = moving.bench("sqlite")
    bench.create("orders")
    bench.send("orders", *(b"%d" % n for n in range(10)))
    moving.rest(bench)
    kind = SQLiteTarget if target == "sqlite" else RedisTarget
    put = kind.put
    monkeypatch.setattr(kind, "put", lambda self, batch: put(self, lose(batch)))
    spot = moving.spot(target)
    report = copy_store(moving.spots[0].where, spot.where, clock=bench.clock)
    assert not report.same
    assert [queue.same for queue in report.queues] == [False]
    assert not report.queues[0].same_order
    with pytest.raises(StartError, match="not finished") as refused:
        spot.open(bench.clock)
    assert "Take it away" in str(refused.value)
    monkeypatch.undo()
    with pytest.raises(StartError, match="not finished"):
        copy_store(moving.spots[0].where, spot.where, clock=bench.clock)
    bench.store = moving.spots[0].open(bench.clock)  # the source serves on
    assert bench.counts("orders") == {"ready": 10}
    bench.close()


def test_retention_of_copied_messages_falls_due_when_it_is_over(moving: Moving) -> None:
    """Planted defect: Redis reads a message's time in its place, which says nothing after a copy: upkeep
    takes all that are ready for long overdue, and looks again at once, without end."""
    bench = moving.bench("sqlite")
    bench.create("short", retention_seconds=60)
    bench.send("short", b'"old"')
    sent_at = bench.clock.now()
    moving.move(bench, "redis")
    due = [bench.run(lambda s: s.expire()) for _ in range(2)]
    assert due[-1] == sent_at + 60_000
    bench.advance(60)
    assert bench.counts("short") == {}
    bench.close()


_PEAK = """
import sys
from windlass.store import copy_store
from windlass.clock import ManualClock

def memory(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) // 1024

before = memory("VmRSS")
report = copy_store(sys.argv[1], sys.argv[2], clock=ManualClock(int(sys.argv[3])))
assert report.same, report
print(memory("VmHWM") - before)
"""


@pytest.mark.parametrize(("source", "target"), [("sqlite", "redis"), ("redis", "sqlite")])
def test_memory_holds_a_batch_and_not_a_store(moving: Moving, source: str, target: str) -> None:
    """Ten thousand messages with 200 MB of content, read in a process of its own.

    Planted defect: a list of all messages.
    """
    bench = moving.bench(source)
    bench.create("orders", max_message_bytes=4 * 1024 * 1024)
    content = b'"%b"' % (b"x" * 20_000)
    for _ in range(20):
        bench.send("orders", *[content] * 500)
    bench.send("orders", *[b'"%b"' % (b"y" * 2_000_000)] * 8)
    moving.rest(bench)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _PEAK,
            moving.spots[0].where,
            moving.spot(target).where,
            str(bench.clock.now()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 130, "MB more than before"
    bench.loop.close()
