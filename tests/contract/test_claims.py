"""Claims: leases that are tentative until their holder shows that it has the message; ends that are told."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.contract.bench import Bench
from windlass.errors import MessageGone, MessageLeased, ReceiptGone, ReceiptStale
from windlass.message import Acknowledgement, Extension, Message, Settled, State
from windlass.store import Runner, Store

LEASE = 30_000


@pytest.fixture
def jobs(bench: Bench) -> Bench:
    bench.create("q", max_deliveries=3, history_seconds=60)
    return bench


def claim(bench: Bench, holder: str = "a", name: str = "c") -> Message:
    (message,) = bench.run(lambda s: s.receive("q", 1, LEASE, holder, None, name))
    return message


def extend(bench: Bench, message: Message, holder: str = "a", **how: Any) -> int | Settled:
    extension = Extension(message.number, how.pop("lease", LEASE), holder=holder, **how)
    return bench.run(lambda s: s.extend(None, [extension]))[0]


def release(bench: Bench, message: Message, holder: str = "a", **how: Any) -> None:
    bench.run(lambda s: s.release("q", message.number, holder=holder, **how))


def acknowledge(bench: Bench, message: Message, holder: str = "a", **how: Any) -> Settled:
    ack = Acknowledgement(message.number, holder=holder, **how)
    return bench.run(lambda s: s.acknowledge("q", [ack]))[0]


async def tell(number: int, store: Store) -> None:
    await store.told(number, 5_000)


def events(bench: Bench, message: Message) -> list[dict[str, Any]]:
    life = bench.find(message.number)
    assert life is not None
    return life.events


def test_claims_are_found_again_until_they_end(jobs: Bench) -> None:
    """Planted defect: a claim that a restart forgets, or one that outlives its lease's end."""
    jobs.send("q", b"1", b"2")
    first, second = claim(jobs), claim(jobs, "b", "d")
    extend(jobs, second, "b")
    jobs.crash()
    held = jobs.run(lambda s: s.held())
    assert [(h.message.number, h.message.delivery, h.holder, h.claim, h.tentative) for h in held] == [
        (first.number, 1, "a", "c", True),
        (second.number, 1, "b", "d", False),
    ]
    release(jobs, first)
    acknowledge(jobs, second, "b")
    assert jobs.run(lambda s: s.held()) == []


def test_a_confirmed_claim_has_a_whole_lease_from_the_start_of_a_store(jobs: Bench) -> None:
    """Planted defects: time in which no store was there counts; a plain or a tentative lease goes on too;
    a lease becomes shorter than it was."""
    jobs.send("q", b"1", b"2", b"3", b"4")
    confirmed, tentative, long = claim(jobs), claim(jobs), claim(jobs)
    extend(jobs, confirmed)
    extend(jobs, long, lease=10 * LEASE)
    (plain,) = jobs.receive("q", 1, LEASE, "a")
    jobs.clock.advance(10 * LEASE / 1000 - 1)
    jobs.crash()
    jobs.settle()
    states = [life.state for each in (confirmed, tentative, plain) if (life := jobs.find(each.number))]
    assert states == ["leased", "ready", "ready"]
    assert extend(jobs, confirmed, lease=None) == jobs.clock.now() + LEASE
    assert extend(jobs, long, lease=None) == jobs.clock.now() + LEASE
    extend(jobs, long, lease=10 * LEASE)
    jobs.crash()
    assert extend(jobs, long, lease=None) == jobs.clock.now() + 10 * LEASE
    jobs.advance(LEASE / 1000)  # and it is a lease like any other
    assert extend(jobs, confirmed) is Settled.STALE


def test_a_plain_lease_is_no_claim(jobs: Bench) -> None:
    jobs.send("q", b"1")
    jobs.receive("q", 1, LEASE, "a")
    assert jobs.run(lambda s: s.held()) == []


def test_what_nobody_was_seen_to_have_does_not_count_ten_times_at_most(jobs: Bench) -> None:
    """Planted defects: a tentative delivery that counts; one that never does, for ever."""
    jobs.send("q", b"1")
    for _ in range(10 + 2):
        message = claim(jobs)
        jobs.advance(LEASE / 1000)
        assert jobs.counts("q") == {"ready": 1}
    message = claim(jobs)
    assert (message.deliveries, message.delivery) == (3, 13)
    jobs.advance(LEASE / 1000)
    assert jobs.counts("q") == {"dead": 1}


def test_what_was_given_back_and_what_was_never_seen_are_counted_apart(jobs: Bench) -> None:
    """Planted defect: one number for both, so that ten drains make the next lost reply an attempt."""
    jobs.send("q", b"1")
    for _ in range(10):
        message = claim(jobs)
        release(jobs, message, reason="drain", counts=False)
        claim(jobs)
        jobs.advance(LEASE / 1000)
    message = claim(jobs)
    assert (message.deliveries, message.delivery) == (1, 21)


def test_a_confirmed_claim_that_runs_out_counts(jobs: Bench) -> None:
    """Planted defect: a lease that stays tentative after it was extended."""
    jobs.send("q", b"1")
    for n in range(3):
        message = claim(jobs)
        assert message.deliveries == n + 1
        assert extend(jobs, message, lease=None) == message.lease_until
        jobs.advance(LEASE / 1000)
    assert jobs.counts("q") == {"dead": 1}


def test_a_release_says_why_and_whether_it_counts(jobs: Bench) -> None:
    jobs.send("q", b"1")
    for counts in (False, True, True, False):
        message = claim(jobs)
        extend(jobs, message)
        release(jobs, message, reason='"drain"', counts=counts)
    told = [(e["reason"], e.get("counts", True)) for e in events(jobs, message) if e["event"] == "given_back"]
    assert told == [('"drain"', False), ('"drain"', True), ('"drain"', True), ('"drain"', False)]
    message = claim(jobs)
    assert message.deliveries == 3
    release(jobs, message, reason="the last")  # tentative: who gives it back has had it
    assert jobs.counts("q") == {"dead": 1}
    assert [e["reason"] for e in events(jobs, message) if e["event"] == "given_back"][-1] == "the last"


def test_only_the_holder_extends_gives_back_and_acknowledges(jobs: Bench) -> None:
    """Planted defect: any holder's word counts, as long as the message is leased."""
    jobs.send("q", b"1")
    message = claim(jobs)
    assert extend(jobs, message, "b") is Settled.STALE
    assert acknowledge(jobs, message, "b") is Settled.STALE
    with pytest.raises(ReceiptStale):
        release(jobs, message, "b")
    jobs.advance(LEASE / 1000)
    for holder in ("a", "b"):
        assert extend(jobs, message, holder) is Settled.STALE
        assert acknowledge(jobs, message, holder) is Settled.STALE
    claim(jobs, "b")
    assert acknowledge(jobs, message, "a") is Settled.STALE
    assert acknowledge(jobs, message, "b", outcome=b"1") is Settled.ACKNOWLEDGED
    assert acknowledge(jobs, message, "b") is Settled.ACKNOWLEDGED  # a repeat of the same holder
    assert acknowledge(jobs, message, "a") is Settled.GONE
    assert extend(jobs, message, "b") is Settled.GONE
    with pytest.raises(ReceiptGone):
        release(jobs, message, "b")


def test_a_late_holder_is_refused_in_the_same_commit_too(jobs: Bench) -> None:
    """Planted defect: whoever comes behind the holder, in one commit, is told that it is done."""
    jobs.send("q", b"1")
    number = claim(jobs).number
    acks = [
        Acknowledgement(number, outcome=b"1", holder=holder, tell=True) for holder in ("b", "a", "b", "a")
    ]
    settled = jobs.run(lambda s: s.acknowledge("q", acks))
    assert settled == [Settled.STALE, Settled.ACKNOWLEDGED, Settled.GONE, Settled.ACKNOWLEDGED]


def test_no_lease_is_extended_past_its_longest(jobs: Bench) -> None:
    """Planted defect: each extension counts its most from itself, not from the lease's beginning."""
    jobs.send("q", b"1")
    message = claim(jobs)
    began = jobs.clock.now()
    for _ in range(4):
        jobs.clock.advance(20)
        until = extend(jobs, message, longest=90_000)
    assert until == began + 90_000
    jobs.advance(10)
    assert extend(jobs, message, longest=90_000) is Settled.STALE
    assert jobs.counts("q") == {"ready": 1}


def test_many_leases_are_extended_at_once_each_for_itself(jobs: Bench) -> None:
    numbers = list(jobs.send("q", b"1", b"2", b"3").numbers)
    claim(jobs)
    claim(jobs, "b")
    wanted = [Extension(number, LEASE, holder="a") for number in (*numbers, numbers[0] + 999)]
    got = jobs.run(lambda s: s.extend(None, wanted))
    assert got == [jobs.clock.now() + LEASE, Settled.STALE, Settled.STALE, Settled.GONE]


def test_a_leased_message_is_cancelled_only_where_that_is_meant(jobs: Bench) -> None:
    """Planted defect: the result of a job that was cancelled under its runner is taken."""
    jobs.send("q", b"1", b"2")
    message = claim(jobs)
    with pytest.raises(MessageLeased):
        jobs.cancel("q", message.number)
    jobs.run(lambda s: s.cancel("q", message.number, leased=True))
    assert acknowledge(jobs, message) is Settled.GONE
    assert jobs.counts("q") == {"ready": 1}
    assert events(jobs, message)[-1]["event"] == "cancelled"
    jobs.advance(LEASE / 1000 + 1)
    assert jobs.counts("q") == {"ready": 1}
    with pytest.raises(MessageGone):
        jobs.run(lambda s: s.cancel("q", message.number, leased=True))


def test_ends_are_kept_until_they_are_told(jobs: Bench) -> None:
    """Planted defects: an outcome that runs out before somebody has read it; a death lost at a restart; the
    dead that are kept for ever once that was told."""
    jobs.send("q", b"1", b"2")
    done, dying = claim(jobs), claim(jobs)
    acknowledge(jobs, done, outcome=b'{"a":1}', tell=True)
    for _ in range(3):
        extend(jobs, dying)
        release(jobs, dying, reason="no")
        if jobs.counts("q") != {"dead": 1}:
            claim(jobs)
    assert jobs.changes[-1].died == [dying.number]
    jobs.advance(30 * 24 * 3600)
    jobs.crash()
    ends = jobs.run(lambda s: s.untold())
    assert [(end.number, end.outcome, end.life.state) for end in ends] == [
        (done.number, b'{"a":1}', "acknowledged"),
        (dying.number, None, "dead"),
    ]
    assert ends[1].life.message.content == b"2"
    for number in (done.number, dying.number) * 2:  # a repeat changes nothing
        jobs.run(partial(tell, number))
    assert jobs.run(lambda s: s.untold()) == []
    assert jobs.find(done.number) is not None
    jobs.crash()
    assert jobs.contents("q", State.DEAD) == [b"2"]
    jobs.advance(6)
    assert (jobs.find(done.number), jobs.find(dying.number)) == (None, None)
    assert jobs.counts("q") == {}


def test_the_dead_of_whom_nobody_has_to_be_told_stay(jobs: Bench) -> None:
    """Planted defect: telling of one message forgets another that is dead, or one that is not."""
    jobs.send("q", b"1", b"2")
    for _ in range(3):
        (message,) = jobs.receive("q", 1, LEASE, "a")
        jobs.release("q", message)
    other = claim(jobs)
    assert jobs.counts("q") == {"leased": 1, "dead": 1}
    for number in (message.number, other.number):
        jobs.run(partial(tell, number))
    jobs.advance(20)
    assert jobs.counts("q") == {"leased": 1, "dead": 1}


def test_what_was_forgotten_in_bites_is_all_gone(jobs: Bench) -> None:
    """More than a step of upkeep looks at, with what they were."""
    sent = jobs.send("q", *[b"1"] * 600)

    async def die_and_tell(store: Store) -> None:
        taken = await store.receive("q", 600, LEASE, "a", None, "c")
        await asyncio.gather(*[store.release("q", m.number, holder="a", last=True) for m in taken])
        await asyncio.gather(*[store.told(m.number, 5_000) for m in taken])

    jobs.run(die_and_tell)
    assert jobs.counts("q") == {"dead": 600}
    jobs.advance(5)
    assert jobs.counts("q") == {}
    assert jobs.find(sent.numbers[0]) is None
    (state,) = jobs.run(lambda s: s.create_queue("q", {}))[:1]
    assert state.length == 0


def test_runners_are_remembered(bench: Bench) -> None:
    """Planted defect: a number that is given out twice, so that an old token's jobs are a new runner's."""

    def add(name: str) -> Runner:
        runner = Runner(0, name, name.encode() * 32, ("gpu",), ("control",), 1, 2)
        return bench.run(lambda s: s.add_runner(runner))

    first, second = add("a"), add("b")
    bench.run(lambda s: s.seen_runner(first.number, 99))
    bench.run(lambda s: s.remove_runner(second.number))
    on_record = bench.run(lambda s: s.runner(first.number))
    assert on_record is not None
    assert on_record.seen_at == 99
    assert bench.run(lambda s: s.runner(second.number)) is None
    bench.crash()
    (found,) = bench.store.runners()
    assert (found.number, found.name, found.seen_at, found.labels) == (first.number, "a", 99, ("gpu",))
    assert add("c").number > second.number
