"""The eight invariants of the server, one after the other, on every store. Races are in test_races.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.bench import Bench
from tests.contract.http.served import settled
from tests.contract.yard import SECRET, Gone, Yard, result
from windlass.dispatch import Control, Delivery, Dispatch, Job, runners
from windlass.dispatch.labels import JOBS
from windlass.errors import (
    CodeLinkInvalid,
    Invalid,
    JobLost,
    JobNotFound,
    MessageGone,
    RegistrationDenied,
    ResultMalformed,
    RunnerUnknown,
    StoreUnavailable,
    TooLarge,
)
from windlass.judge.dispatching import Jobs
from windlass.message import State


@pytest.fixture
def yard(bench: Bench) -> Iterator[Yard]:
    made = Yard(bench)
    yield made
    made.stop()


# --- 1: taking a job and leasing it is one step; a result, its job's end and its lease's another ------


def test_1_runners_that_race_for_one_job_get_it_once(yard: Yard) -> None:
    """Planted defect: a look, and then a lease of what was seen."""
    job_id = yard.submit()
    runners = [yard.register(f"r{n}") for n in range(8)]

    async def race(dispatch: Dispatch) -> list[list[Delivery]]:
        return await asyncio.gather(*[dispatch.claim(runner) for runner in runners])

    won = [delivery for deliveries in yard.run(race) for delivery in deliveries]
    assert [delivery.job_id for delivery in won] == [job_id]


def test_1_a_result_ends_job_and_lease_at_once_whatever_happens_then(yard: Yard) -> None:
    """Planted defect: the lease is given up before the outcome is kept, or the outcome kept elsewhere."""
    runner = yard.register()
    yard.submit()
    job_id = yard.take(runner)
    yard.deaf = True
    yard.complete(runner, job_id)
    yard.crash()
    view = yard.view(job_id)
    assert (view.state, view.runner) == ("done", None)
    assert yard.bench.counts(JOBS) == {}
    assert yard.claim(yard.again(runner)) is None
    yard.deaf = False
    yard.settle()
    assert [(told[0], told[1], len(told[3]["tasks"])) for told in yard.told] == [(job_id, "s", 2)]


# --- 2: only the lease's deadline decides a reclaim ---------------------------------------------------


def test_2_a_runner_that_looks_dead_keeps_its_job_until_the_deadline(yard: Yard) -> None:
    """Planted defect: jobs of a runner that missed its heartbeat are given away before the lease is over."""
    first, second = yard.register("a"), yard.register("b")
    yard.submit()
    job_id = yard.take(first)
    yard.advance(29.9)  # two heartbeats were missed
    assert yard.claim(second) is None
    yard.complete(first, job_id)
    assert yard.view(job_id).state == "done"


def test_2_a_runner_that_beats_without_the_job_loses_it_at_the_deadline(yard: Yard) -> None:
    """Planted defect: a sign of life of the runner counts for all of its jobs."""
    first, second = yard.register("a"), yard.register("b")
    yard.submit()
    job_id = yard.take(first)
    for _ in range(3):
        yard.advance(10)
        yard.beat(first, "jb_of_another")
    delivery = yard.claim(second)
    assert delivery is not None
    assert delivery.job_id == job_id


# --- 3: a heartbeat renews what the runner still holds, and brings nothing back -----------------------


def test_3_a_heartbeat_renews_what_it_names_or_all_that_is_confirmed(yard: Yard) -> None:
    """Planted defects: a list that is passed over; without one, jobs renewed that may never have arrived."""
    runner = yard.register()
    for _ in range(3):
        yard.submit()
    named, other, unsure = yard.take(runner), yard.take(runner), yard.claim(runner)
    assert unsure is not None
    yard.advance(20)
    yard.beat(runner, named)
    yard.advance(15)
    assert [yard.view(job).state for job in (named, other, unsure.job_id)] == ["running", "queued", "queued"]
    yard.take(runner)
    again = yard.claim(runner)
    assert again is not None
    yard.advance(10)
    yard.run(lambda d: d.leases.heartbeat(runner, None))
    yard.advance(25)
    assert sorted(yard.view(job).state for job in (named, other, unsure.job_id)) == [
        "queued",
        "running",
        "running",
    ]


def test_3_heartbeats_that_come_together_are_on_disk_when_each_has_its_own_answer(yard: Yard) -> None:
    """Planted defects: an answer before the commit that renews; what one is told goes to another."""
    runners = [yard.register(str(n), features=["control"]) for n in range(4)]
    for n in range(4):
        yard.submit(str(n))
    held = [yard.take(runner) for runner in runners]
    yard.run(lambda d: d.supersede(held[2]))
    yard.advance(20)

    async def all_at_once(dispatch: Dispatch) -> list[Control]:
        beats = (
            dispatch.leases.heartbeat(runner, [job_id]) for runner, job_id in zip(runners, held, strict=True)
        )
        return await asyncio.gather(*beats)

    controls = yard.run(all_at_once)
    assert [control.superseded for control in controls] == [[], [], [held[2]], []]
    yard.crash()
    yard.advance(15)  # their first leases are over
    states = [yard.view(job_id).state for job_id in held]
    assert states == ["running", "running", "superseded", "running"]


def test_3_a_heartbeat_brings_no_job_back(yard: Yard) -> None:
    """Planted defect: renewing by the job's id alone, whoever holds it, or nobody."""
    first, second = yard.register("a", features=["control"]), yard.register("b")
    done, reclaimed, superseded, cancelled = (yard.submit(str(n)) for n in range(4))
    for job_id in (done, reclaimed, superseded, cancelled):
        assert yard.take(first) == job_id
    yard.complete(first, done)
    yard.run(lambda d: d.supersede(superseded))
    yard.run(lambda d: d.cancel(cancelled))
    yard.advance(31)
    assert yard.take(second) == reclaimed
    control = yard.beat(first, done, reclaimed, superseded, cancelled, "jb_nonsense")
    assert (sorted(control.lost), control.superseded, control.cancelled) == (
        sorted([done, reclaimed, "jb_nonsense"]),
        [superseded],
        [cancelled],
    )
    assert [yard.view(job).state for job in (done, reclaimed, superseded, cancelled)] == [
        "done",
        "running",
        "superseded",
        "cancelled",
    ]
    assert yard.view(reclaimed).runner == second.id


def test_3_no_lease_is_renewed_past_the_most_that_a_job_may_last(yard: Yard) -> None:
    """Planted defect: a job that hangs is kept for ever by its runner's heartbeats."""
    runner = yard.register()
    assert Job().max_seconds == 3_600  # unless its sender says otherwise
    job_id = yard.submit(max_seconds=100)
    yard.take(runner)
    for _ in range(9):
        yard.advance(10)
        assert yard.beat(runner, job_id).lost == []
    yard.advance(10)
    assert yard.beat(runner, job_id).lost == [job_id]
    assert yard.view(job_id).state == "queued"


# --- 4: a result is taken from the holder of the current lease of the current job only ----------------


def test_4_a_result_of_anybody_else_is_refused_and_changes_nothing(yard: Yard) -> None:
    """Planted defects: a result after the lease, of another runner, of a superseded job, is taken."""
    first, second = yard.register("a"), yard.register("b")
    late = yard.submit()
    yard.take(first)
    with pytest.raises(JobLost):
        yard.complete(second, late)
    yard.advance(31)
    with pytest.raises(JobLost):
        yard.complete(first, late)
    with pytest.raises(JobLost):
        yard.abort(first, late)
    yard.take(second)
    with pytest.raises(JobLost):
        yard.complete(first, late)
    yard.complete(second, late, result(2, 1, status="WA"))
    yard.complete(second, late)  # a repeat is told that it is done, and changes nothing
    with pytest.raises(JobLost):
        yard.complete(first, late)
    assert yard.view(late).result["tasks"][0][0]["status"] == "WA"
    with pytest.raises(JobNotFound):
        yard.complete(first, "jb_AAAAAAAAAAAAAAAAAAAAAAAA")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'{"tasks": 1}', b'{"tasks": []}', b'{"tasks": [[1], []]}', result(2), result(1, 2),
        result(2, 1, 1), result(2, 1, status="XX"), result(2, 1, exitCode="0"), result(2, 1, execTime=-1),
        b'{"tasks": [[{"stdout": ""}]]}', b"\xff" * 10, b'{"tasks": [[], []]}',
    ],
)  # fmt: skip
def test_4_a_result_of_the_wrong_shape_is_refused_and_the_job_goes_on(yard: Yard, body: bytes) -> None:
    """Planted defect: a job with fewer results than cases is taken for judged."""
    runner = yard.register()
    yard.submit()
    job_id = yard.take(runner)
    with pytest.raises(ResultMalformed):
        yard.complete(runner, job_id, body)
    assert yard.view(job_id).state == "running"
    yard.complete(runner, job_id)


# --- 5: attempts are bounded --------------------------------------------------------------------------


def test_5_after_its_last_attempt_a_job_is_dead_and_its_owner_told_why(yard: Yard) -> None:
    """Planted defects: a fourth attempt; a death that nobody is told of."""
    runner = yard.register()
    job_id = yard.submit("s", generation=4)
    yard.take(runner)
    yard.advance(31)
    yard.take(runner)
    yard.abort(runner, job_id, "no space")
    yard.take(runner)  # ready at once
    yard.abort(runner, job_id, "it broke again")
    yard.settle()
    assert yard.view(job_id).state == "failed"
    assert yard.claim(runner) is None
    ((told_id, owner, generation, outcome),) = yard.told
    assert (told_id, owner, generation) == (job_id, "s", 4)
    assert outcome["failed"] == "The last attempt was handed back: it broke again"
    history = [event["event"] for event in outcome["attempts"]]
    assert history == [
        "sent", "leased", "lease_expired", "leased", "given_back", "leased", "given_back", "dead",
    ]  # fmt: skip
    with pytest.raises(JobLost):
        yard.complete(runner, job_id)


def test_5_an_abort_that_blames_the_job_counts_whatever_was_seen_of_its_runner_before(yard: Yard) -> None:
    """Planted defect: a job that no runner can begin with is handed round ten times more."""
    runner = yard.register()
    job_id = yard.submit()
    for _ in range(3):
        assert yard.view(job_id).state == "queued"
        assert yard.claim(runner) is not None
        yard.abort(runner, job_id, "its source cannot be had")
    assert yard.view(job_id).state == "failed"


def test_5_attempts_are_bounded_in_a_queue_that_an_earlier_process_only_began(yard: Yard) -> None:
    """Planted defect: a queue that is made and then set up; a crash in between, and attempts have no end."""
    yard.bench.create(f"{JOBS}.gpu")
    yard.crash()
    runner = yard.register(labels=["gpu"])
    job_id = yard.submit(asked=["gpu"])
    for _ in range(3):
        yard.abort(runner, yard.take(runner))
    assert yard.view(job_id).state == "failed"


@pytest.mark.parametrize("reason", ["drain", "shutdown"])
def test_5_a_runner_that_stops_does_not_use_up_an_attempt_ten_times_at_most(yard: Yard, reason: str) -> None:
    """Planted defects: a drained job that counts; a job that is handed round for ever."""
    runner = yard.register()
    job_id = yard.submit()
    for _ in range(10):
        yard.take(runner)
        yard.abort(runner, job_id, reason)
    assert yard.view(job_id).attempts == 0
    for _ in range(3):
        assert yard.view(job_id).state == "queued"
        yard.take(runner)
        yard.abort(runner, job_id, reason)
    assert yard.view(job_id).state == "failed"


# --- 6: a rejudge supersedes --------------------------------------------------------------------------


def test_5_a_failed_job_is_kept_for_a_while_and_no_longer(bench: Bench) -> None:
    """Planted defects: it goes before its owner was told; it stays for ever; the setting changes nothing."""
    yard = Yard(bench, failed_kept=1_000)
    runner = yard.register()
    job_id = yard.submit()
    yard.deaf = True
    for _ in range(3):
        yard.abort(runner, yard.take(runner))
    yard.advance(2_000)
    assert [job.job_id for job in yard.run(lambda d: d.views.jobs(State.DEAD, 10))] == [job_id]
    yard.deaf = False
    yard.settle()
    yard.advance(999)
    assert yard.view(job_id).state == "failed"
    yard.advance(2)
    assert yard.bench.counts(JOBS) == {}
    with pytest.raises(JobNotFound):
        yard.view(job_id)
    yard.run(lambda d: d.supersede(job_id))  # whoever rejudges does not mind
    yard.stop()


def test_6_what_is_superseded_never_runs_and_its_late_result_is_refused(yard: Yard) -> None:
    """Planted defects: a superseded job in the queue is handed out; the late result of one is taken."""
    runner = yard.register()
    waiting, running = yard.submit("w"), yard.submit("r")
    assert yard.take(runner) == waiting
    yard.abort(runner, waiting, "drain")
    assert yard.take(runner) == waiting
    yard.abort(runner, waiting, "drain")
    yard.run(lambda d: d.supersede(waiting))
    assert yard.take(runner) == running
    yard.run(lambda d: d.supersede(running))
    yard.run(lambda d: d.supersede(running))  # again, and one that has ended: nothing
    with pytest.raises(JobLost):
        yard.complete(runner, running)
    with pytest.raises(MessageGone):
        yard.run(lambda d: d.cancel(running))
    yard.advance(100)
    assert yard.claim(runner) is None
    assert yard.told == []


# --- 7: no job is lost, and none is stuck -------------------------------------------------------------


def test_7_a_lost_reply_is_repeated_by_its_claim_at_once(yard: Yard) -> None:
    """Planted defect: the job of a lost reply waits for its lease's end, and has used up an attempt."""
    runner = yard.register()
    first = yard.submit()
    second = yard.submit()
    for _ in range(3):
        delivery = yard.claim(runner, "c1")
        assert delivery is not None
        assert delivery.job_id == first
    other = yard.claim(runner, "c2")
    assert other is not None
    assert other.job_id == second
    assert yard.view(first).attempts == 1
    yard.crash()
    runner = yard.again(runner)
    delivery = yard.claim(runner, "c1")
    assert delivery is not None
    assert delivery.job_id == first


def test_7_a_lost_reply_that_gave_a_job_again_is_repeated_by_its_own_claim(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: the repeat gets another job, and the first waits ten seconds more."""
    now = [0.0]
    monkeypatch.setattr("windlass.dispatch.service.time.monotonic", lambda: now[0])
    runner = yard.register()
    first, _ = yard.submit(), yard.submit()
    for moment, claim in ((0.0, "c1"), (11.0, "c2"), (11.5, "c2")):
        now[0] = moment
        delivery = yard.claim(runner, claim)
        assert delivery is not None
        assert delivery.job_id == first


def test_7_an_old_runner_gets_what_it_did_not_confirm_again_after_ten_seconds(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: never again; at once, so that every second call brings the same job twice."""
    now = [0.0]
    monkeypatch.setattr("windlass.dispatch.service.time.monotonic", lambda: now[0])
    runner = yard.register()
    first, second = yard.submit(), yard.submit()
    order = []
    for moment in (0.0, 9.0, 10.5, 11.0, 19.5):
        now[0] = moment
        delivery = yard.claim(runner)
        order.append(delivery.job_id if delivery else None)
    assert order == [first, second, first, None, second]
    now[0] = 40.0
    yard.beat(runner, first, second)
    assert yard.claim(runner) is None


def test_7_an_unconfirmed_lease_that_runs_out_costs_no_attempt(yard: Yard) -> None:
    """Planted defect: a runner that dies before its first sign of life burns an attempt."""
    runner = yard.register()
    job_id = yard.submit()
    for _ in range(10):
        assert yard.claim(runner) is not None
        yard.advance(31)
    assert yard.view(job_id).attempts == 0
    for _ in range(3):
        assert yard.claim(runner) is not None
        yard.advance(31)
    assert yard.view(job_id).state == "failed"


def test_7_who_only_looks_is_in_nobodys_way(yard: Yard) -> None:
    """Planted defects: no source where nobody can be told of the start; jobs counted that are lost."""

    async def away(_owner: str, _generation: int) -> None:
        raise StoreUnavailable

    runner = yard.register()
    job_id = yard.submit()
    yard.dispatch.leases.on_start(away)
    assert yard.claim(runner) is not None
    assert yard.run(lambda d: d.leases.confirm(runner, job_id)).owner == "s"
    assert [jobs for _, _, jobs in yard.run(lambda d: d.seen())] == [1]
    yard.advance(31)
    assert [jobs for _, _, jobs in yard.run(lambda d: d.seen())] == [0]


def test_7_fetching_the_source_confirms(yard: Yard) -> None:
    """Planted defect: a link of one runner's confirms, or shows, another's job."""
    first, second = yard.register("a"), yard.register("b")
    job_id = yard.submit()
    assert yard.claim(first) is not None
    assert yard.run(lambda d: d.leases.confirm(first, job_id)).owner == "s"
    with pytest.raises(CodeLinkInvalid):
        yard.run(lambda d: d.leases.confirm(second, job_id))
    yard.advance(31)
    with pytest.raises(CodeLinkInvalid):
        yard.run(lambda d: d.leases.confirm(first, job_id))
    assert yard.view(job_id).attempts == 1


def test_7_who_had_a_job_done_is_told_that_it_was_cancelled(yard: Yard) -> None:
    """Planted defect: a submission whose job somebody cancels waits for ever."""
    runner = yard.register()
    waiting, running, nobodys = yard.submit("w", generation=3), yard.submit("r"), yard.submit("")
    yard.abort(runner, yard.take(runner), "it broke")
    yard.deaf = True
    yard.run(lambda d: d.cancel(waiting))
    assert yard.take(runner) == running
    yard.run(lambda d: d.cancel(running))
    yard.run(lambda d: d.cancel(nobodys))
    yard.crash()
    yard.deaf = False
    yard.settle()
    assert [(*told[:3], told[3]["failed"]) for told in sorted(yard.told, key=lambda told: told[0])] == [
        (waiting, "w", 3, "The job was cancelled."),
        (running, "r", 1, "The job was cancelled."),
    ]
    history = next(told[3]["attempts"] for told in yard.told if told[0] == waiting)
    assert [event["event"] for event in history] == ["sent", "leased", "given_back"]
    view = yard.view(waiting)
    assert (view.state, view.result, view.submission_id) == ("cancelled", None, "w")


def test_7_a_job_that_was_cancelled_is_not_given_again(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a delivery that is not confirmed is given again from memory, and a command runs."""
    now = [0.0]
    monkeypatch.setattr("windlass.dispatch.service.time.monotonic", lambda: now[0])
    runner = yard.register()
    first, second = yard.submit(), yard.submit()
    for job_id in (first, second):
        delivery = yard.claim(runner, job_id)
        assert delivery is not None
        assert delivery.job_id == job_id
    yard.run(lambda d: d.cancel(first))
    yard.run(lambda d: d.supersede(second))
    assert yard.claim(runner, first) is None
    now[0] = 11.0
    assert yard.claim(runner) is None


def test_7_a_job_outlives_the_server_at_every_step(yard: Yard) -> None:
    """Planted defects: what a runner holds is forgotten at a restart; a result told twice, or never."""
    runner = yard.register()
    job_id = yard.submit()
    yard.crash()
    runner = yard.again(runner)
    assert yard.take(runner) == job_id
    yard.crash()
    runner = yard.again(runner)
    assert yard.beat(runner, job_id).lost == []
    yard.crash()
    runner = yard.again(runner)
    yard.run(lambda d: d.leases.heartbeat(runner, None))  # without a list: what the store says it holds
    yard.clock.advance(20)
    yard.run(lambda d: d.leases.heartbeat(runner, None))
    yard.clock.advance(20)
    yard.complete(runner, job_id)
    yard.crash()
    yard.settle()
    yard.crash()
    yard.settle()
    assert [told[0] for told in yard.told] == [job_id]


def test_7_a_runner_keeps_its_job_over_a_server_that_was_away_for_longer_than_the_lease(yard: Yard) -> None:
    """Planted defect: the lease runs out while nobody could extend it, and an attempt is counted."""
    runner, other = yard.register("a"), yard.register("b")
    job_id = yard.submit()
    yard.take(runner)
    yard.clock.advance(600)
    yard.crash()
    runner, other = yard.again(runner), yard.again(other)
    yard.settle()  # before anybody asks the dispatch for anything
    assert yard.claim(other) is None
    yard.advance(29)
    assert yard.beat(runner, job_id).lost == []
    yard.complete(runner, job_id)
    assert (yard.view(job_id).state, yard.view(job_id).attempts) == ("done", 1)


def test_7_a_runner_that_died_with_the_server_loses_its_job_a_lease_after_the_start(yard: Yard) -> None:
    """Planted defect: leases that wait for their runner's word, however long that takes."""
    yard.submit()
    job_id = yard.take(yard.register())
    yard.crash()
    yard.run(lambda d: d.load())
    yard.advance(30)
    assert yard.view(job_id).state == "queued"


@pytest.mark.parametrize("every", [1, 29])
def test_7_a_server_that_starts_again_and_again_keeps_no_lease_for_ever(yard: Yard, every: int) -> None:
    """Planted defect: each start gives a dead runner's job another lease, past the most that it may last."""
    job_id = yard.submit(max_seconds=60)
    yard.take(yard.register())
    for _ in range(61 // every + 1):
        yard.clock.advance(every)
        yard.crash()
        yard.run(lambda d: d.load())
        yard.settle()
    assert yard.view(job_id).state == "queued"


def test_7_a_corrupt_record_is_set_aside_and_the_queue_moves_on(yard: Yard) -> None:
    """Planted defect: a job that nobody can read is handed out again and again, before all others."""
    runner = yard.register()
    first = yard.submit()
    yard.complete(runner, yard.take(runner))
    yard.settle()
    assert [told[0] for told in yard.told] == [first]
    yard.bench.send(JOBS, b'{"tasks": "none"}', b"17")
    good = yard.submit()
    delivery = yard.claim(runner)
    assert delivery is not None
    assert delivery.job_id == good
    assert yard.bench.counts(JOBS) == {"leased": 1, "dead": 2}
    assert yard.bench.contents(JOBS, State.DEAD) == [b'{"tasks": "none"}', b"17"]
    yard.settle()
    told = [(owner, outcome["failed"]) for _, owner, _, outcome in yard.told[1:]]
    assert told == [("", "The job's record cannot be read.")] * 2


def test_7_the_judge_learns_whether_a_job_is_over(yard: Yard) -> None:
    """Planted defects: a dead job, or one that nobody knows, passes for one that runs; or the other way."""
    runner = yard.register()
    jobs = Jobs(yard.dispatch)
    queued, done, dead, cancelled = (yard.submit(str(n)) for n in range(4))
    assert [yard.take(runner) for _ in range(3)] == [queued, done, dead]
    yard.complete(runner, done)
    yard.run(lambda d: d.cancel(cancelled))
    for _ in range(2):
        yard.abort(runner, dead)
        assert yard.take(runner) == dead
    yard.abort(runner, dead)

    async def over(_: Dispatch) -> list[bool]:
        return [await jobs.over(job_id) for job_id in (queued, done, dead, cancelled, "jb_nonsense")]

    assert yard.run(over) == [False, True, True, True, True]
    yard.abort(runner, queued, "drain")
    assert yard.run(over)[0] is False
    yard.advance(8 * 24 * 3600)
    assert yard.run(over) == [False, True, True, True, True]


def test_7_a_corrupt_record_that_a_crash_left_with_its_runner_is_set_aside_later(yard: Yard) -> None:
    """Planted defect: the runner's polls and heartbeats end in an error as long as it is said to hold it."""
    runner = yard.register()
    yard.submit()
    yard.complete(runner, yard.take(runner))
    yard.bench.send(JOBS, b"17")
    yard.bench.run(lambda store: store.receive(JOBS, 1, 30_000, runner.id, None, "c"))
    yard.crash()
    runner = yard.again(runner)
    good = yard.submit()
    delivery = yard.claim(runner, "c")
    assert delivery is not None
    assert delivery.job_id == good
    yard.advance(31)
    yard.take(runner)
    assert yard.bench.contents(JOBS, State.DEAD) == [b"17"]


def test_7_who_cannot_be_told_is_in_nobodys_way(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: all others wait, ever longer, for the one that cannot be told."""
    monkeypatch.setattr("windlass.dispatch.outcomes._FIRST_PAUSE", 600)
    runner = yard.register()
    bad, good = yard.submit("bad"), yard.submit("good")
    tried, told = asyncio.Event(), asyncio.Event()

    async def listen(_job_id: str, owner: str, _generation: int, _outcome: dict[str, Any]) -> None:
        if owner == "bad":
            tried.set()
            raise OSError("not to me")
        told.set()

    async def bring(dispatch: Dispatch) -> None:
        await dispatch.results.complete(runner, bad, result(2, 1))
        await tried.wait()
        await dispatch.results.complete(runner, good, result(2, 1))
        async with asyncio.timeout(60):  # less than the pause
            await told.wait()

    assert [yard.take(runner), yard.take(runner)] == [bad, good]
    yard.dispatch.outcomes.listen(listen)
    yard.run(bring)


def test_7_a_client_that_hung_up_takes_nothing(yard: Yard) -> None:
    yard.submit()
    runner = yard.register()
    assert yard.run(lambda d: d.claim(runner, None, 0, Gone())) == []
    assert yard.bench.counts(JOBS) == {"ready": 1}


def test_7_a_waiting_runner_is_woken_by_a_job_that_it_may_have(yard: Yard) -> None:
    """Planted defects: one that waits for labels nobody asked for; a wake-up for those who may not."""
    plain, gpu = yard.register("plain"), yard.register("gpu", ["gpu", "big"])

    job = Job(owner="s")

    async def scenario(dispatch: Dispatch) -> list[str]:
        waiting = [asyncio.ensure_future(dispatch.claim(each, None, 20)) for each in (plain, gpu)]
        for _ in range(20):  # turns in which both get in line
            await asyncio.sleep(0)
        order = []
        special = await dispatch.submit(job, asked=["gpu"])
        order.append(await asyncio.wait_for(waiting[1], 60))
        assert not waiting[0].done()
        ordinary = await dispatch.submit(job)
        order.append(await asyncio.wait_for(waiting[0], 60))
        assert [each.job_id for got in order for each in got] == [special, ordinary]
        return [special, ordinary]

    assert len(set(yard.run(scenario))) == 2


def test_7_jobs_that_are_taken_together_are_repeated_together_and_confirmed_one_by_one(yard: Yard) -> None:
    """Planted defect: a repeat brings the first of them only, and the others wait for their leases' ends."""
    runner = yard.register()
    jobs = [yard.submit() for _ in range(4)]

    def take(claim: str) -> list[str]:
        return [each.job_id for each in yard.run(lambda d: d.claim(runner, claim, limit=3))]

    assert take("c1") == take("c1") == jobs[:3]
    yard.beat(runner, jobs[1])
    assert take("c1") == [jobs[0], jobs[2]]
    yard.complete(runner, jobs[0])
    yard.crash()
    runner = yard.again(runner)
    assert take("c1") == [jobs[2]]
    assert take("c2") == [jobs[3]]
    assert take("c3") == []


def test_7_an_unreadable_job_among_others_is_set_aside_alone(yard: Yard) -> None:
    runner = yard.register()
    first = yard.submit()
    yard.bench.send(JOBS, b'"no job"')
    last = yard.submit()
    taken = yard.run(lambda d: d.claim(runner, "c1", limit=8))
    assert [each.job_id for each in taken] == [first, last]
    assert yard.bench.counts(JOBS) == {"leased": 2, "dead": 1}


def test_a_runner_takes_no_more_than_its_share_while_others_wait(yard: Yard) -> None:
    """Planted defect: whoever is first in line takes all the jobs of a commit, and the others none."""
    runners = [yard.register(f"r{n}") for n in range(3)]

    async def scenario(dispatch: Dispatch) -> list[list[Delivery]]:
        await dispatch.submit(Job())
        (first,) = await dispatch.claim(runners[0])  # the queue is there
        await dispatch.results.complete(runners[0], first.job_id, result(1))
        waiting = [asyncio.ensure_future(dispatch.claim(each, None, 20, limit=8)) for each in runners]
        for _ in range(20):  # turns in which all get in line
            await asyncio.sleep(0)
        await yard.bench.store.ping()  # and in which their first looks are over
        await asyncio.gather(*[dispatch.submit(Job()) for _ in range(6)])
        return await asyncio.wait_for(asyncio.gather(*waiting), 60)

    assert [len(each) for each in yard.run(scenario)] == [2, 2, 2]


def calls_in_order(yard: Yard, monkeypatch: pytest.MonkeyPatch, *verbs: str) -> list[str]:
    """Filled with `verb` when the store is asked, and with `verb done` when it has answered."""
    order: list[str] = []
    for verb in verbs:
        asked = getattr(yard.bench.store, verb)

        def call(*args: Any, verb: str = verb, asked: Any = asked, **more: Any) -> Any:
            order.append(verb)
            answer = asked(*args, **more)
            answer.add_done_callback(lambda _: order.append(f"{verb} done"))
            return answer

        monkeypatch.setattr(yard.bench.store, verb, call)
    return order


def test_a_job_goes_out_with_the_commit_that_brings_it(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defects: who waits is called when the job is on disk, which takes a second commit; and the next
    in line is called for a job that is taken already."""
    runner = yard.register()
    yard.complete(runner, (yard.submit(), yard.take(runner))[1])
    order = calls_in_order(yard, monkeypatch, "send", "receive")

    async def scenario(dispatch: Dispatch) -> None:
        waiting = asyncio.ensure_future(dispatch.claim(runner, None, 20))
        while order != ["receive", "receive done"]:  # its first look
            await yard.bench.store.ping()
        behind = asyncio.ensure_future(dispatch.claim(runner, None, 20))
        await yard.bench.store.ping()
        job_id = await dispatch.submit(Job())
        assert [each.job_id for each in await asyncio.wait_for(waiting, 60)] == [job_id]
        await yard.bench.store.ping()
        behind.cancel()

    yard.run(scenario)
    assert order[2:4] == ["send", "receive"]
    done = ["receive done", "send done"]
    assert set(order[4:]) >= set(done)
    if not yard.bench.store.shared:  # else the two may travel one after the other
        assert sorted(order[4:]) == done  # and the one behind did not look in vain


def test_a_job_that_is_not_taken_in_after_all_leaves_who_waits_in_line(yard: Yard) -> None:
    """Planted defect: an attempt that was made for a job under way, and found nothing, ends the wait."""
    runner = yard.register()
    yard.complete(runner, (yard.submit(), yard.take(runner))[1])

    async def scenario(dispatch: Dispatch) -> None:
        waiting = asyncio.ensure_future(dispatch.claim(runner, None, 20))
        for _ in range(20):
            await asyncio.sleep(0)
        await yard.bench.store.ping()
        with pytest.raises(TooLarge):
            await dispatch.submit(Job(command={"argv": ["x" * 17_000_000]}))
        await yard.bench.store.ping()
        assert not waiting.done()
        job_id = await dispatch.submit(Job())
        assert [each.job_id for each in await asyncio.wait_for(waiting, 60)] == [job_id]
        assert not any(dispatch._coming.values())

    yard.run(scenario)


def test_new_jobs_come_with_the_commit_of_the_results(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: jobs are looked for when the results are on disk."""
    runner = yard.register()
    jobs = [yard.submit() for _ in range(5)]
    held = [yard.take(runner), yard.take(runner)]
    order = calls_in_order(yard, monkeypatch, "acknowledge", "receive")
    results = [(job_id, result(2, 1)) for job_id in held]
    refusals, deliveries = yard.run(lambda d: d.results.exchange(runner, results, "c1", 2))
    assert (refusals, [each.job_id for each in deliveries]) == ([None, None], jobs[2:4])
    if not yard.bench.store.shared:  # else it is asked first what the runner holds
        assert order[:2] == ["acknowledge", "receive"]
    assert yard.bench.counts(JOBS) == {"leased": 2, "ready": 1}
    # The answer was lost: the same results, and the same claim.
    again = yard.run(lambda d: d.results.exchange(runner, results, "c1", 2))
    assert (again[0], [each.job_id for each in again[1]]) == ([None, None], jobs[2:4])
    assert yard.run(lambda d: d.results.exchange(runner, [], None, 0)) == ([], [])


def test_each_of_several_results_is_judged_alone(yard: Yard) -> None:
    """Planted defects: one that is refused takes the others with it; refusals in another order; a new job for
    one that the runner still has to give back."""
    first, second = yard.register("first"), yard.register("second")
    special = yard.register("special", ["gpu"])
    mine = [yard.submit(f"s{n}") for n in range(3)]
    for _ in mine:
        yard.take(first)
    others = (yard.submit("other"), yard.take(second))[1]
    gpu = (yard.submit("gpu", asked=["gpu"]), yard.take(special))[1]
    malformed = b'{"tasks": []}'
    brought = [
        (mine[0], result(2, 1)), (others, result(2, 1)), (mine[1], malformed), ("jb_nonsense", result(2, 1)),
        (gpu, result(2, 1)), (mine[2], result(2, 1)), (mine[0], result(2, 1)),
    ]  # fmt: skip
    waiting = [yard.submit("next") for _ in range(8)]
    refusals, deliveries = yard.run(lambda d: d.results.exchange(first, brought, None, 100))
    assert [type(refusal) for refusal in refusals] == [
        type(None), JobLost, ResultMalformed, JobNotFound, JobLost, type(None), type(None),
    ]  # fmt: skip
    assert [each.job_id for each in deliveries] == waiting[:5]  # not for the malformed one, nor for nobody's
    yard.settle()
    assert sorted(owner for _, owner, _, _ in yard.told) == ["s0", "s2"]
    assert yard.view(mine[1]).state == yard.view(others).state == yard.view(gpu).state == "running"
    yard.complete(first, mine[1])


# --- 8: tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token", [None, "", "wrong", SECRET + " ", 1, True, [], {}, "\ud800", "x" * 100_000, SECRET.encode()]
)
def test_8_whatever_is_no_registration_token_is_refused(yard: Yard, token: object) -> None:
    """Planted defect: a type or a surrogate that makes the comparison raise."""
    with pytest.raises(RegistrationDenied):
        yard.run(lambda d: d.runners.register(token, "r", [], []))


def test_8_without_a_registration_token_nobody_registers(bench: Bench) -> None:
    """Planted defect: an unset secret that an empty one matches."""
    yard = Yard(bench)
    yard.dispatch.runners._secret = None
    for token in ("", None, SECRET):
        with pytest.raises(RegistrationDenied):
            yard.run(lambda d, token=token: d.runners.register(token, "r", [], []))  # type: ignore[misc]
    yard.stop()


def test_8_only_the_hash_of_a_token_is_on_the_disk(yard: Yard) -> None:
    """Planted defect: the token itself is stored."""
    runner, token = yard.run(lambda d: d.runners.register(SECRET, "r", [], []))
    assert token.startswith("rk_")
    assert yard.dispatch.runners.known(token) is runner
    yard.crash()
    assert yard.dispatch.runners.known(token).id == runner.id
    files = [path for path in yard.bench.directory.rglob("*") if path.is_file()]
    assert files
    assert not any(token.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize("token", ["", "rk_", "rk_wrong", "\ud800", "x" * 100_000, "\x00"])
def test_8_an_unknown_token_is_refused(yard: Yard, token: str) -> None:
    with pytest.raises(RunnerUnknown):
        yard.dispatch.runners.known(token)


def test_8_an_identity_ends_seven_days_after_the_last_sign_of_life(yard: Yard) -> None:
    """Planted defects: one that ends while its runner beats; one that a restart makes older than it is."""
    runner, token = yard.run(lambda d: d.runners.register(SECRET, "r", [], []))
    for _ in range(3):
        yard.clock.advance(5 * 24 * 3600)
        yard.beat(runner)
    yard.crash()
    assert yard.dispatch.runners.known(token).id == runner.id
    yard.clock.advance(7 * 24 * 3600)
    if yard.bench.store.shared:  # another server may have seen it since its last note
        yard.clock.advance(runners._SHOWN_EVERY / 1000)
    with pytest.raises(RunnerUnknown):
        yard.dispatch.runners.known(token)
    yard.clock.advance(2 * 3600)
    yard.run(lambda d: d.load())
    yard.crash()
    yard.run(lambda d: d.load())
    assert len(yard.dispatch.runners) == 0


def test_8_who_registers_has_those_of_long_ago_forgotten(yard: Yard) -> None:
    """Planted defects: runners of one job pile up until the next start; those that register at once forget
    the same ones; one that lives is forgotten."""
    old = [yard.register(f"r{n}") for n in range(20)]
    yard.clock.advance(4 * 24 * 3600)
    yard.beat(old[7])
    yard.clock.advance(4 * 24 * 3600)

    async def register(dispatch: Dispatch) -> None:
        await asyncio.gather(*[dispatch.runners.register(SECRET, "new", [], []) for _ in range(3)])

    yard.run(register)
    assert [runner.name for runner in yard.dispatch.runners.all()] == ["r7", "new", "new", "new"]
    if yard.bench.store.shared:  # what was heard on the way may bring some back, until more is heard

        async def heard(dispatch: Dispatch) -> None:
            await settled(lambda: len(dispatch.runners) == 4)

        yard.run(heard)
    assert len(yard.dispatch.runners) == len(yard.bench.store.runners()) == 4


def test_what_runners_offered_that_are_gone_is_forgotten(yard: Yard) -> None:
    """Planted defects: each commit looks through all labels that were ever offered; those of somebody who
    waits are forgotten, and nobody wakes him."""
    runners = [yard.register(f"r{n}", [f"label-{n}"]) for n in range(5)]

    async def scenario(dispatch: Dispatch) -> str:
        for runner in runners[1:]:
            assert await dispatch.claim(runner, wait=0.001) == []
        waiting = asyncio.ensure_future(dispatch.claim(runners[0], wait=20))
        await asyncio.sleep(0)
        dispatch._swept -= 1_000
        await dispatch.claim(runners[1])
        assert list(dispatch._offers) == ["label-0"]
        job_id = await dispatch.submit(Job(), asked=["label-0"])
        assert [each.job_id for each in await asyncio.wait_for(waiting, 60)] == [job_id]
        return job_id

    assert yard.run(scenario)


# --- labels and priorities ----------------------------------------------------------------------------


def test_a_job_goes_to_a_runner_that_offers_what_it_asks_for(yard: Yard) -> None:
    """Planted defect: a job for nobody stands in the way of the others."""
    plain, gpu = yard.register("plain"), yard.register("gpu", ["gpu", "big"])
    special = yard.submit(asked=["gpu"])
    both = yard.submit(asked=["big", "gpu"])
    nobody = yard.submit(asked=["quantum"])
    ordinary = yard.submit()
    assert yard.take(plain) == ordinary
    assert yard.claim(plain) is None
    assert [yard.take(gpu), yard.take(gpu)] == [both, special]
    assert yard.claim(gpu) is None
    yard.crash()
    assert yard.view(nobody).labels == ["quantum"]
    assert yard.take(yard.register("q", ["quantum"])) == nobody


def test_the_highest_priority_leaves_first(yard: Yard) -> None:
    runner = yard.register()
    low, high = yard.submit(priority=1), yard.submit(priority=9)
    assert [yard.take(runner), yard.take(runner)] == [high, low]


@pytest.mark.parametrize("asked", [["a b"], ["A"], [""], ["-a"], [1], ["x" * 33], list("abcdefghi"), ["a.b"]])
def test_labels_that_are_none_are_refused(yard: Yard, asked: list[Any]) -> None:
    with pytest.raises(Invalid):
        yard.submit(asked=asked)


def test_the_same_dedup_is_the_same_job(yard: Yard) -> None:
    """Planted defect: a sweeper that sends again makes a second job."""
    first = yard.submit(dedup="s.1")
    yard.crash()
    assert yard.submit(dedup="s.1") == first
    assert yard.submit(dedup="s.2") != first


def test_a_job_that_its_owner_did_not_confirm_is_told_again(yard: Yard) -> None:
    """Planted defect: an outcome counts as told when it was said, not when it was heard."""
    runner = yard.register()
    yard.submit()
    job_id = yard.take(runner)
    yard.deaf = True
    yard.complete(runner, job_id)
    yard.advance(30 * 24 * 3600)
    yard.crash()
    yard.deaf = False
    yard.settle()
    assert [told[0] for told in yard.told] == [job_id]


def test_a_job_of_nobody_is_told_to_nobody_and_its_outcome_is_kept(yard: Yard) -> None:
    runner = yard.register()
    job_id = yard.run(lambda d: d.submit(Job(command={"argv": ["true"]})))
    yard.take(runner)
    yard.complete(runner, job_id, result(1))
    assert yard.bench.run(lambda store: store.untold()) == []
    yard.complete(runner, job_id, result(1))  # and a repeat is as good as the first
    yard.advance(6 * 24 * 3600)
    assert yard.view(job_id).result["tasks"][0][0]["status"] == "AC"
    assert yard.told == []
