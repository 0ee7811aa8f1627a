"""Jobs whose runners talk to one server of a shared store now, and to another then.

No server hears of what the others do, but where a test says so: whatever they know, they have asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.contract.http.served import settled as until_true
from tests.contract.servers import Several, Yards
from tests.contract.yard import SECRET, Yard, result
from windlass.dispatch import Job, outcomes
from windlass.dispatch.labels import JOBS
from windlass.dispatch.runners import IDENTITY, Runner
from windlass.errors import CodeLinkInvalid, JobLost, RunnerUnknown
from windlass.queues import pulse, registry

DAY = 24 * 3600.0


@pytest.fixture
def yards(several: Several) -> Iterator[Yards]:
    several.silent = True
    made = Yards(several)
    yield made
    made.close()


def known(yard: Yard, token: str) -> Runner:
    """The runner of a token, as one who asks this server."""

    async def find() -> Runner:
        try:
            return yard.dispatch.runners.known(token)
        except RunnerUnknown:
            await yard.dispatch.runners.catch_up(token)
            return yard.dispatch.runners.known(token)

    return yard.run(lambda _: find())


def everywhere(yards: Yards, name: str = "r", **more: Any) -> tuple[Runner, Runner]:
    """A new runner as either server knows it."""
    _, token = yards.a.run(
        lambda d: d.runners.register(SECRET, name, more.get("labels", ()), more.get("features", ()))
    )
    return known(yards.a, token), known(yards.b, token)


def state(yards: Yards, job_id: str) -> str:
    return yards.a.view(job_id).state


def told_or_looked(yards: Yards, monkeypatch: pytest.MonkeyPatch, *, silent: bool) -> None:
    """Servers that hear of each other and never look by themselves, or else the other way round."""
    yards.several.silent = silent
    if not silent:
        monkeypatch.setattr(pulse, "EVERY", 3600.0)
        monkeypatch.setattr(registry, "EVERY", 3600.0)


# --- leases ---------------------------------------------------------------------------------------


def test_a_heartbeat_without_a_list_keeps_what_another_server_gave(yards: Yards) -> None:
    """Planted defect: without a list, only what this process gave goes on."""
    at_a, at_b = everywhere(yards)
    yards.a.submit()
    sure = yards.a.take(at_a)
    yards.a.submit()
    unsure = yards.a.claim(at_a)
    assert unsure is not None
    yards.a.advance(20)
    yards.b.run(lambda d: d.leases.heartbeat(at_b, None))
    yards.a.advance(20)
    assert (state(yards, sure), state(yards, unsure.job_id)) == ("running", "queued")


def test_a_heartbeat_elsewhere_goes_no_further_than_the_job_may_last(yards: Yards) -> None:
    """Planted defect: a job that is unknown here is taken to last an hour."""
    at_a, at_b = everywhere(yards)
    yards.a.submit(max_seconds=40)
    job_id = yards.a.take(at_a)
    for _ in range(2):
        yards.a.advance(19)
        assert yards.b.beat(at_b, job_id).lost == []
    yards.a.advance(3)
    assert state(yards, job_id) == "queued"


def test_a_source_is_fetched_from_another_server(yards: Yards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defects: 403 where this process did not give the job; and the job given again by the one that
    did, which does not know that it was confirmed."""
    at_a, at_b = everywhere(yards)
    yards.a.submit()
    delivery = yards.a.claim(at_a)
    assert delivery is not None
    assert yards.b.run(lambda d: d.leases.confirm(at_b, delivery.job_id)).owner == "s"
    passed = time.monotonic
    monkeypatch.setattr("windlass.dispatch.service.time.monotonic", lambda: passed() + 12)
    yards.a.advance(12)
    assert yards.a.claim(at_a, "another") is None
    _, other_at_b = everywhere(yards, "other")
    with pytest.raises(CodeLinkInvalid):
        yards.b.run(lambda d: d.leases.confirm(other_at_b, delivery.job_id))


def test_a_delivery_that_may_not_have_arrived_is_given_again_by_any_server(yards: Yards) -> None:
    """Planted defect: deliveries of other servers are not looked for before new jobs are."""
    at_a, at_b = everywhere(yards)
    job_id = yards.a.submit()
    first = yards.a.claim(at_a, "one")
    assert first is not None
    assert yards.b.claim(at_b, "two") is None  # it may be on its way
    repeated = yards.b.claim(at_b, "one")
    assert repeated is not None
    assert repeated.job_id == job_id
    at_c, at_d = everywhere(yards, "other")
    other = yards.a.submit()
    assert yards.a.claim(at_c) is not None
    yards.a.advance(10)
    again = yards.b.claim(at_d)
    assert again is not None
    assert again.job_id == other
    assert yards.a.view(other).attempts == 1


def test_what_ended_elsewhere_is_not_given_again(yards: Yards) -> None:
    """Planted defect: a delivery stays in memory though another server took its result, its abort, or
    cancelled its job."""
    at_a, at_b = everywhere(yards)
    jobs = [yards.a.submit() for _ in range(3)]
    for job_id in jobs:
        delivery = yards.a.claim(at_a, job_id)
        assert delivery is not None
        assert delivery.job_id == job_id
    yards.b.complete(at_b, jobs[0])
    yards.b.run(lambda d: d.cancel(jobs[1]))
    yards.b.abort(at_b, jobs[2], "drain")
    others, _ = everywhere(yards, "other")
    assert yards.a.take(others) == jobs[2]
    assert [yards.a.claim(at_a, job_id) for job_id in jobs] == [None, None, None]


def test_a_result_reaches_any_server_and_may_be_repeated_at_another(yards: Yards) -> None:
    """Fails where the server that gave a job is the only one that takes its result; or where a late one is
    taken because a server still believes that its runner holds the job."""
    at_a, at_b = everywhere(yards)
    yards.a.submit()
    job_id = yards.a.take(at_a)
    yards.b.complete(at_b, job_id)
    yards.a.complete(at_a, job_id)
    assert state(yards, job_id) == "done"
    yards.a.submit()
    late = yards.a.take(at_a)
    yards.a.advance(31)
    other, other_at_b = everywhere(yards, "other")
    assert yards.b.take(other_at_b) == late
    with pytest.raises(JobLost):
        yards.a.complete(at_a, late)
    yards.a.complete(other, late)


def test_a_job_of_a_queue_unknown_here_ends_here(yards: Yards) -> None:
    """Planted defect: the queue of a job is named to the store, which does not know it: 404 for a result."""
    c = yards.open()
    c.run(lambda d: d.load())
    for bring in ("complete", "abort", "cancel"):
        yards.b.submit(asked=[f"only_{bring}", "gpu"])
    at_a, at_b = everywhere(yards, labels=["gpu", "only_complete", "only_abort", "only_cancel"])
    done, aborted, gone = (yards.b.take(at_b) for _ in range(3))
    jobs = {labels_of(yards, job_id): job_id for job_id in (done, aborted, gone)}
    c.complete(at_a, jobs["only_complete"])
    c.abort(at_a, jobs["only_abort"])
    c.run(lambda d: d.cancel(jobs["only_cancel"]))
    assert [state(yards, jobs[f"only_{how}"]) for how in ("complete", "abort", "cancel")] == [
        "done",
        "queued",
        "cancelled",
    ]


def labels_of(yards: Yards, job_id: str) -> str:
    return next(label for label in yards.b.view(job_id).labels if label != "gpu")


def test_a_server_that_comes_does_not_prolong_leases(yards: Yards) -> None:
    """Planted defect: a start gives all leases a new one; servers that come and go would keep dead runners'
    jobs for ever."""
    at_a, _ = everywhere(yards)
    yards.a.submit()
    job_id = yards.a.take(at_a)
    yards.a.advance(20)
    c = yards.open()
    c.run(lambda d: d.load())
    yards.a.advance(11)
    assert state(yards, job_id) == "queued"


# --- labels ---------------------------------------------------------------------------------------


def test_a_set_of_labels_that_is_new_elsewhere_is_looked_for_here(yards: Yards) -> None:
    """Planted defect: the queues of jobs are those that were there when this process began."""
    at_a, _ = everywhere(yards, labels=["gpu", "large"])
    assert yards.a.claim(at_a) is None
    job_id = yards.b.submit(asked=["gpu"])

    async def until_known() -> None:
        while not (found := await yards.a.dispatch.claim(at_a)):
            await yards.a.queues.registry.catch_up()
        assert found[0].job_id == job_id

    yards.run(until_known())


@pytest.mark.parametrize("silent", [False, True])
def test_a_runner_that_waits_gets_a_job_of_another_server(
    yards: Yards, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: who waits is told by this process alone; without a word, nobody looks; the new queue
    of a set of labels is not looked into by those who wait already."""
    told_or_looked(yards, monkeypatch, silent=silent)
    at_a, _ = everywhere(yards, labels=["gpu"])

    async def scenario() -> None:
        for asked in ((), ("gpu",), ()):
            waiting = asyncio.create_task(yards.a.dispatch.claim(at_a, wait=60))
            await until_true(lambda: yards.a.dispatch._lines.idle("gpu"))
            job_id = await yards.b.dispatch.submit(job(), asked=asked)
            (delivery,) = await waiting
            assert delivery.job_id == job_id
            await yards.b.dispatch.results.complete(at_a, job_id, result(1))

    yards.run(scenario())


def job() -> Job:
    return Job(command={"argv": ["true"]})


# --- runners --------------------------------------------------------------------------------------


def test_an_identity_lasts_as_long_as_any_server_hears_of_it(yards: Yards) -> None:
    """Planted defects: who was not heard of here is refused, or forgotten, without a question."""
    _, token = yards.a.run(lambda d: d.runners.register(SECRET, "r", (), ()))
    runner = known(yards.a, token)
    at_b = known(yards.b, token)
    yards.a.advance(6 * DAY)
    yards.b.beat(at_b)
    yards.a.advance(6 * DAY)
    assert known(yards.a, token).id == runner.id
    yards.b.beat(at_b)
    yards.a.advance(6 * DAY)
    yards.a.register("another")  # has those forgotten that were silent for too long
    assert runner in yards.a.dispatch.runners.all()
    yards.a.advance(IDENTITY / 1000 + 120)
    with pytest.raises(RunnerUnknown):
        known(yards.a, token)
    with pytest.raises(RunnerUnknown):
        known(yards.b, token)


def test_a_runner_forgotten_elsewhere_is_unknown_here(yards: Yards) -> None:
    """Planted defect: runners are only ever added to what memory holds."""
    _, token = yards.a.run(lambda d: d.runners.register(SECRET, "r", (), ()))
    at_b = known(yards.b, token)
    yards.a.run(lambda _: yards.a.bench.store.remove_runner(at_b.number))
    yards.run(yards.b.queues.registry.catch_up())
    with pytest.raises(RunnerUnknown):
        known(yards.b, token)


def test_bad_tokens_are_few_questions(yards: Yards) -> None:
    """Planted defect: each unknown token is a call of the store."""
    calls = yards.a.bench.store.calls

    async def flood() -> None:
        before = calls["refresh"]
        await asyncio.gather(*[yards.a.dispatch.runners.catch_up(f"rk_{n}") for n in range(500)])
        assert 1 <= calls["refresh"] - before <= 3

    yards.run(flood())


# --- outcomes -------------------------------------------------------------------------------------


def test_the_server_that_took_a_result_tells_of_it_and_no_other(
    yards: Yards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: whatever is untold is told by every server that wakes; a death that another server
    brought about is told of here."""
    monkeypatch.setattr(outcomes, "_LONGEST_PAUSE", 0.01)
    yards.several.silent = False
    at_a, at_b = everywhere(yards)
    yards.run(yards.a.dispatch.load(), yards.b.dispatch.load())
    done = [yards.a.submit(f"s{n}") for n in range(20)]
    yards.run(yards.b.queues.registry.catch_up())  # the queue of jobs is new
    yards.b.deaf = True
    for job_id in done:
        yards.b.complete(at_b, yards.b.take(at_b))
        assert job_id
    yards.a.submit("mine")
    yards.a.complete(at_a, yards.a.take(at_a))
    yards.a.submit("dead")
    for _ in range(3):
        yards.a.abort(at_a, yards.a.take(at_a))
    yards.until(lambda: len(yards.a.told) == 2)
    assert sorted(told[1] for told in yards.a.told) == ["dead", "mine"]
    assert yards.b.told == []
    yards.b.deaf = False
    yards.until(lambda: len(yards.b.told) == 20)
    assert len(yards.a.told) == 2


def left_untold(yards: Yards) -> None:
    """An end and a death of which `b` had not told when it was killed."""
    _, at_b = everywhere(yards)
    yards.b.deaf = True
    yards.b.submit("left")
    yards.b.complete(at_b, yards.b.take(at_b))
    yards.b.submit("dead")
    for _ in range(3):
        yards.b.abort(at_b, yards.b.take(at_b))
    yards.run(yards.b.dispatch.stop())


def test_what_a_server_left_untold_is_told_by_another_after_a_while(
    yards: Yards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: nobody looks for it; or it is told at once, while its own server may be about to."""
    monkeypatch.setattr(outcomes, "LOOK", 0.2)
    left_untold(yards)
    looks = yards.a.bench.store.calls
    yards.run(yards.a.dispatch.load())
    for look in (1, 2):
        yards.several.clock.advance(1)  # for a turn may be counted by that
        yards.until(lambda look=look: looks["untold"] >= look)  # type: ignore[misc]
    assert yards.a.told == []
    yards.several.clock.advance(outcomes.LEFT)
    yards.until(lambda: len(yards.a.told) == 2)
    assert sorted(told[1] for told in yards.a.told) == ["dead", "left"]


def test_of_many_servers_one_looks_for_what_was_left_untold(
    yards: Yards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: each of them looks, and tells of all of it."""
    monkeypatch.setattr(outcomes, "LOOK", 0.0)
    left_untold(yards)
    monkeypatch.setattr(outcomes, "LOOK", 3600.0)
    yards.several.clock.advance(outcomes.LEFT)
    others = [yards.a, yards.open(), yards.open(), yards.open()]
    yards.run(*[each.dispatch.load() for each in others])
    yards.until(lambda: all(each.bench.store.calls["turn"] for each in others))
    yards.until(lambda: sum(len(each.told) for each in others) == 2)
    assert sum(each.bench.store.calls["untold"] for each in others) == 1


# --- progress -------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_who_watches_here_sees_what_a_runner_tells_elsewhere(
    yards: Yards, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: what is told elsewhere stays there; who comes late gets nothing of it; it comes twice;
    the end is not told."""
    told_or_looked(yards, monkeypatch, silent=False)
    at_a, at_b = everywhere(yards, features=["events"])

    async def scenario() -> None:
        job_id = await yards.a.dispatch.submit(job())
        await yards.a.dispatch.claim(at_a)
        seen: list[Any] = []
        seen_by_another: list[Any] = []

        async def watch(seen: list[Any]) -> None:
            last, over = 0, False
            while not over:
                events, over = await yards.a.dispatch.views.watch(job_id, last, 60)
                seen.extend(event for _, event in events)
                last = events[-1][0] if events else last

        watching = asyncio.create_task(watch(seen)) if not late else None
        for n in range(3):
            await yards.b.dispatch.leases.tell(at_b, job_id, [{"event": "output", "n": n}])
            if watching is not None:
                await until_true(partial(seen.__contains__, {"event": "output", "n": n}))
                for _ in range(10):
                    await asyncio.sleep(0)  # until it is known at `b` that somebody watches still
        await yards.b.dispatch.results.complete(at_b, job_id, result(1))
        await asyncio.gather(watching or watch(seen), watch(seen_by_another))
        for each in (seen, seen_by_another):
            assert [event.get("n", event["event"]) for event in each] == ["started", 0, 1, 2, "done"]

    yards.run(scenario())


def test_who_watches_a_job_that_ended_elsewhere_is_let_go(yards: Yards) -> None:
    """Planted defect: a stream waits for a word that got lost."""
    at_a, at_b = everywhere(yards)

    async def scenario() -> None:
        job_id = await yards.a.dispatch.submit(job())
        await yards.a.dispatch.claim(at_a)
        events, over = await yards.a.dispatch.views.watch(job_id, 0, 60)
        watching = asyncio.create_task(yards.a.dispatch.views.watch(job_id, events[-1][0], 3600))
        await yards.b.dispatch.results.complete(at_b, job_id, result(1))
        assert (await watching)[1]
        assert not over

    yards.run(scenario())


def test_nobody_is_told_of_what_nobody_watches(yards: Yards) -> None:
    """Planted defect: whatever a runner tells goes to every server."""
    yards.several.silent = False
    at_a, at_b = everywhere(yards)

    async def scenario() -> None:
        job_id = await yards.a.dispatch.submit(job())
        await yards.a.dispatch.claim(at_a)
        for n in range(100):
            await yards.b.dispatch.leases.tell(at_b, job_id, [{"event": "output", "n": n}])

    yards.run(scenario())
    assert yards.a.bench.store.calls["tell"] == yards.b.bench.store.calls["tell"] == 0


# --- waiting for a job's end ----------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True])
def test_who_waits_for_a_job_is_told_that_it_ended_elsewhere(
    yards: Yards, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: only what this process did is an end; without a word, nobody looks."""
    told_or_looked(yards, monkeypatch, silent=silent)
    at_a, at_b = everywhere(yards)

    async def scenario() -> None:
        job_id = await yards.a.dispatch.submit(job())
        await yards.a.dispatch.claim(at_a)
        yards.several.attend_to_nothing()
        waiting = asyncio.create_task(yards.a.dispatch.views.job(job_id, wait=3600))
        await until_true(lambda: len(yards.a.dispatch.watches) == 1)
        await until_true(lambda: silent or yards.several.listens(JOBS))
        await yards.b.dispatch.results.complete(at_b, job_id, result(1))
        assert (await waiting).state == "done"

    yards.run(scenario())
