"""Two servers' judges on one PostgreSQL and one dispatch: whatever crosses, each thing is done once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import create_engine, func, select, text, update
from sqlalchemy.pool import NullPool

from tests.harness import until
from tests.judging import Bench, FakeDispatch, meta, result, zipped
from windlass.errors import IdempotencyKeyReused, ProblemNotFound, StoreUnavailable, WindlassError
from windlass.judge import outbox as outboxes
from windlass.judge import problems as problems_module
from windlass.judge import projection, submissions
from windlass.judge.problem import current
from windlass.judge.service import Judge
from windlass.judge.submission import Submission
from windlass.judge.sweeper import Sweeper
from windlass.judge.tables import installation, outbox
from windlass.message import Once

T = TypeVar("T")

KEY = Once(b"k" * 24, b"f" * 24)


class Pair:
    """Two servers; scenarios run on one loop."""

    def __init__(self, url: str, folder: Path) -> None:
        self.dispatch = FakeDispatch()
        self.benches = [Bench(folder / name, self.dispatch, url=url) for name in ("one", "two")]
        self.benches[1]._runner.close()
        self.benches[1]._runner = self.benches[0]._runner
        self._engine = create_engine(
            url.replace("postgresql:", "postgresql+psycopg:"),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )

    @property
    def judges(self) -> tuple[Judge, Judge]:
        one, two = self.benches
        return one.judge, two.judge

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        return self.benches[0].run(scenario)

    def both(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        """What comes of these, begun at once."""

        async def scenario() -> list[T]:
            return [*await asyncio.gather(*work)]

        return self.run(scenario())

    def blocked(self) -> bool:
        """Whether anybody waits for a lock of another's."""
        waits = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with self._engine.connect() as connection:
            return bool(connection.execute(waits).scalar_one())

    def get(self, submission_id: str) -> Submission:
        return self.run(self.judges[0].submissions.get(submission_id))

    def sweep(self) -> None:
        """Everything that is left is sent, with nobody else at it."""
        for bench in self.benches:
            self.run(bench.judge.sweeper.stop())
        assert self.run(self.judges[0].outbox.sweep())

    def close(self) -> None:
        for judge in self.judges:
            self.run(judge.stop())
            judge.close()
        self.benches[0]._runner.close()


@pytest.fixture
def pair(postgresql_url: str, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(postgresql_url, tmp_path)
    yield made
    made.close()


def meet(pair: Pair, monkeypatch: pytest.MonkeyPatch, where: object, name: str, *, before: bool) -> None:
    """Whoever comes to this step first goes on once the other one is there, or waits for a lock of his; they
    meet `before` the step, or when both have done it."""
    step, there, lock = getattr(where, name), set[int](), threading.Lock()

    def meeting() -> None:
        with lock:
            first = not there
            there.add(threading.get_ident())
        if first:
            until(lambda: len(there) > 1 or pair.blocked(), what="the other one")

    def met(*arguments: Any, **options: Any) -> Any:
        if before:
            meeting()
        done = step(*arguments, **options)
        if not before:
            meeting()
        return done

    monkeypatch.setattr(where, name, met)


# --- in ---------------------------------------------------------------------------------------------


def test_a_problem_that_one_makes_is_there_on_the_other(pair: Pair) -> None:
    """Planted defect: a filter, or what is remembered, that hears of nobody's writes."""
    one, two = pair.judges
    for _ in range(2):
        with pytest.raises(ProblemNotFound):
            pair.run(two.problems.get(1))
        pair.benches[0].problem()
        assert pair.run(two.problems.get(1)).meta == meta()
        submitted = pair.run(two.submissions.submit(1, 2, b"x"))
        assert pair.get(submitted.submission_id).job_id == submitted.job_id
        assert pair.run(two.submissions.list(1, None, 1))[0].submission_id == submitted.submission_id
        pair.run(one.problems.delete(1))
        with pytest.raises(ProblemNotFound):
            pair.run(two.submissions.submit(1, 2, b"x"))


def test_what_one_takes_in_the_other_hands_out(pair: Pair) -> None:
    """Planted defect: sources and test data in a directory of each server's own."""
    one, two = pair.judges
    pair.run(pair.benches[0].put(1, meta(), zipped()))
    submitted = pair.run(one.submissions.submit(1, 2, b"#" * 2_000_000))
    _, file = pair.run(two.problems.open_testdata(1))
    with file:
        assert file.read() == zipped()
    digest, source = pair.run(two.submissions.open_source(submitted.submission_id))
    with source:
        assert len(source.read()) > 1000
    assert pair.dispatch.jobs[submitted.job_id].source == digest


def test_the_same_key_on_both_is_one_submission(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: whoever is second is told of a constraint, a 500."""
    pair.benches[0].problem()
    meet(pair, monkeypatch, submissions, "_known", before=False)
    asked = (judge.submissions.submit(1, 2, b"x", once=KEY) for judge in pair.judges)
    first, second = pair.both(*asked)
    assert first == second
    assert len(pair.dispatch.jobs) == 1
    other = Once(KEY.key, b"g" * 24)
    with pytest.raises(IdempotencyKeyReused):
        pair.run(pair.judges[1].submissions.submit(1, 2, b"y", once=other))


def test_an_expired_key_that_both_bring_is_one_submission(pair: Pair) -> None:
    """Planted defect: each waits for the other to forget it, or one finds what the other has forgotten."""
    pair.benches[0].problem()
    before = pair.run(pair.judges[0].submissions.submit(1, 2, b"x", once=KEY))
    for bench in pair.benches:
        bench.clock.advance(24 * 3600)
    first, second = pair.both(*(judge.submissions.submit(1, 2, b"x", once=KEY) for judge in pair.judges))
    assert first == second != before


def test_the_same_new_problem_on_both_is_two_versions(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: as above."""
    meet(pair, monkeypatch, problems_module, "current", before=False)
    made = pair.both(*(bench.put(1, meta(), zipped()) for bench in pair.benches))
    assert sorted((problem.version, new) for problem, new in made) == [(1, True), (2, False)]


async def create(judge: Judge) -> int:
    with judge.files.incoming() as incoming:
        incoming.write(zipped())
        return (await judge.problems.create(meta(), incoming)).id


def test_new_problems_on_both_have_numbers_of_their_own(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: as above."""
    meet(pair, monkeypatch, problems_module, "current", before=False)
    assert sorted(pair.both(*map(create, pair.judges))) == [1, 2]


def test_a_number_that_the_other_takes_meanwhile_is_the_others(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: the number is looked at before the other's commit, and the problem after it, which is
    then replaced."""
    made = []

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        with ThreadPoolExecutor(1) as pool:
            made.append(pool.submit(asyncio.run, create(pair.judges[1])).result(60))
        return current(*arguments, **options)

    monkeypatch.setattr(problems_module, "current", late)
    assert pair.run(create(pair.judges[0])) == 2
    assert made == [1]


@pytest.mark.parametrize("act", ["submit", "rejudge"])
def test_a_new_version_sees_what_the_old_one_is_about_to_judge(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """One submits while the other replaces the problem. Planted defect: no lock on the problem: the
    submission is judged by the old version, for good."""
    one, two = pair.judges
    pair.benches[0].problem()
    submission_id = pair.benches[0].submit()
    pair.benches[0].finish(submission_id, "AC", "AC")
    found, putting = current, list[Any]()

    def replaced(*arguments: Any, **options: Any) -> Any:
        """The other one's, as soon as this one has read the version."""
        problem = found(*arguments, **options)
        if not putting:
            putting.append(threading.Thread(target=asyncio.run, args=(put(),)))
            putting[0].start()
            until(lambda: pair.blocked() or not putting[0].is_alive(), what="the other one")
        return problem

    async def put() -> None:
        with two.files.incoming() as incoming:
            incoming.write(zipped((1,)))
            await two.problems.put(1, meta((1,)), incoming)

    monkeypatch.setattr(submissions, "current", replaced)
    if act == "submit":
        submission_id = pair.benches[0].submit()
    else:
        pair.run(one.submissions.rejudge(submission_id))
    putting[0].join(60)
    pair.sweep()
    living = [spec for spec in pair.dispatch.living.values() if spec.submission_id == submission_id]
    newest = max(living, key=lambda spec: spec.generation)
    assert [task.case_count for task in newest.tasks] == [1]
    assert newest.generation == pair.get(submission_id).generation


def test_a_problem_that_is_replaced_while_the_other_deletes_it_is_deleted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: the lock and the join in one statement: who waited finds the new version nowhere, and
    says that there is no such problem."""
    one, two = pair.judges
    pair.benches[0].problem()
    refer, deleting = one.files.refer, list[Any]()

    def late(*arguments: Any) -> None:
        """The other one comes when this one has the lock."""
        refer(*arguments)
        if not deleting:
            deleting.append(pool.submit(asyncio.run, two.problems.delete(1)))
            until(pair.blocked, what="the other one")

    monkeypatch.setattr(one.files, "refer", late)
    with ThreadPoolExecutor(1) as pool:
        pair.run(pair.benches[0].put(1, meta((1,)), zipped((1,))))
        deleting[0].result(60)
    with pytest.raises(ProblemNotFound):
        pair.run(one.problems.get(1))


# --- what comes of it -------------------------------------------------------------------------------


def test_an_outcome_that_both_bring_is_written_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: no lock on the submission: the second one writes over the first."""
    pair.benches[0].problem()
    submission_id = pair.benches[0].submit()
    meet(pair, monkeypatch, projection, "_write_down", before=True)
    writes = []
    write_down = projection._write_down

    def counted(*arguments: Any) -> None:
        writes.append(arguments)
        write_down(*arguments)

    monkeypatch.setattr(projection, "_write_down", counted)
    outcomes: Sequence[dict[str, Any]] = ({"failed": "x"}, {"failed": "y"})
    pair.both(
        *(
            judge.project("jb_1", submission_id, 1, outcome)
            for judge, outcome in zip(pair.judges, outcomes, strict=True)
        )
    )
    assert len(writes) == 1
    assert pair.get(submission_id).status == "done"


def test_who_waits_on_one_sees_what_the_other_writes(pair: Pair) -> None:
    """Planted defect: only this server's own changes are told."""
    one, two = pair.judges
    pair.benches[0].problem()
    submission_id = pair.benches[0].submit()

    async def scenario() -> Submission:
        waiting = asyncio.ensure_future(
            one.submissions.until(submission_id, lambda found: found.status == "done", 3600)
        )
        while not len(one.watches):  # noqa: ASYNC110 - turns, no time
            await asyncio.sleep(0)
        await two.project("jb_1", submission_id, 1, result(["AC", "AC"]))
        return await asyncio.wait_for(waiting, 60)

    assert pair.run(scenario()).verdict == "AC"


def test_who_is_stranded_is_judged_again_once(pair: Pair) -> None:
    """Planted defect: what was seen is not looked at again under the lock."""
    pair.benches[0].problem()
    submission_id = pair.benches[0].submit()
    pair.dispatch.ended.add("jb_1")
    for _ in range(2):
        looked = pair.both(*(judge.stranded.look() for judge in pair.judges))
    assert sum(looked) == 1
    assert pair.get(submission_id).generation == 2


# --- the outbox -------------------------------------------------------------------------------------


def waiting(pair: Pair, number: int) -> None:
    """As many submissions whose jobs are in the outbox."""
    pair.benches[0].problem()
    ids = [pair.benches[0].submit() for _ in range(number)]
    for each in ids:
        pair.benches[0].finish(each, "AC", "AC")
    assert pair.run(pair.judges[0].submissions.rejudge_all(1)) == number
    pair.dispatch.calls.clear()


def rows(pair: Pair) -> int:
    return pair.judges[0]._database.look(
        lambda c: c.execute(select(func.count()).select_from(outbox)).scalar_one()
    )


def test_two_that_sweep_do_no_work_twice(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: no claims: each job is sent by all servers there are."""
    monkeypatch.setattr(Sweeper, "wake", lambda _: None)
    monkeypatch.setattr(outboxes, "_AT_ONCE", 5)
    waiting(pair, 40)
    assert rows(pair) == 40
    while rows(pair):
        pair.both(*(judge.outbox.sweep() for judge in pair.judges))
    assert len(pair.dispatch.calls) == len(set(pair.dispatch.calls)) == 40


def test_what_a_dead_server_has_claimed_others_send(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: claims without an end."""
    monkeypatch.setattr(Sweeper, "wake", lambda _: None)
    waiting(pair, 3)
    one, two = pair.judges
    claimed = one._database.change(partial(outboxes._claim, [1, 2, 3, 4, 5, 6]))
    assert len(claimed) == 3
    assert pair.run(two.outbox.sweep())
    assert pair.dispatch.calls == []
    one._database.change(
        lambda c: (
            c.execute(update(outbox).values(claimed_until=outbox.c.claimed_until - outboxes.CLAIMED)) and None
        )
    )
    assert pair.run(two.outbox.sweep())
    assert len(pair.dispatch.calls) == 3


@pytest.mark.parametrize("how", ["stopped", "refused"])
def test_what_a_server_could_not_send_others_send_at_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Planted defect: claims that outlive a server that stops, or a dispatch that is away for a moment."""
    monkeypatch.setattr(Sweeper, "wake", lambda _: None)
    waiting(pair, 3)
    one, two = pair.judges

    async def scenario() -> None:
        begun = asyncio.Event()

        async def never(_: Any, /) -> str:
            begun.set()
            await asyncio.get_running_loop().create_future()
            raise AssertionError

        with monkeypatch.context() as patch:
            if how == "stopped":
                patch.setattr(pair.dispatch, "submit", never)
                sweeping = asyncio.ensure_future(one.outbox.sweep())
                await begun.wait()
                sweeping.cancel()
                await asyncio.gather(sweeping, return_exceptions=True)
            else:
                pair.dispatch.before = _away
                assert not await one.outbox.sweep()
                pair.dispatch.before = lambda _: None
        pair.dispatch.calls.clear()
        assert await two.outbox.sweep()

    pair.run(scenario())
    assert len(pair.dispatch.calls) == 3


def _away(_: str) -> None:
    raise StoreUnavailable


# --- again ------------------------------------------------------------------------------------------


def test_the_same_rejudge_on_both_leaves_one_living_job(pair: Pair) -> None:
    """Planted defect: two generations of the same number."""
    pair.benches[0].problem()
    submission_id = pair.benches[0].submit()
    pair.both(*(judge.submissions.rejudge(submission_id) for judge in pair.judges))
    pair.sweep()
    assert pair.get(submission_id).generation == 3
    assert [spec.generation for spec in pair.dispatch.living.values()] == [3]


def test_a_rejudge_of_all_on_both_leaves_one_living_job_each(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: locks in another order at each server."""
    monkeypatch.setattr(submissions, "_STEP", 3)
    pair.benches[0].problem()
    ids = [pair.benches[0].submit() for _ in range(10)]
    assert pair.both(*(judge.submissions.rejudge_all(1) for judge in pair.judges)) == [10, 10]
    pair.sweep()
    assert {pair.get(each).generation for each in ids} == {3}
    assert Counter(spec.submission_id for spec in pair.dispatch.living.values()) == dict.fromkeys(ids, 1)


def test_files_are_collected_by_one_of_them(pair: Pair) -> None:
    """Planted defect: each server goes through all files each hour."""
    one, two = pair.judges
    collected = []

    async def collect(which: int) -> int:
        collected.append(which)
        return 0

    def an_hour_later() -> None:
        at = installation.c.collected_at
        one._database.change(
            lambda c: c.execute(update(installation).values(collected_at=at - 3_600_000)) and None
        )

    for number, judge in enumerate(pair.judges):
        judge.collect = partial(collect, number)  # type: ignore[method-assign]
    for _ in range(3):
        pair.both(one._collect_in_turn(), two._collect_in_turn())
    assert len(collected) == 1
    an_hour_later()
    pair.both(one._collect_in_turn(), two._collect_in_turn())
    assert len(collected) == 2


# --- everything at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_whatever_crosses_in_the_end_each_submission_has_its_one_job(pair: Pair, seed: int) -> None:
    """Four on each server do what comes to their minds. Then each submission is done, or its newest
    generation has one living job, by the problem's present measure, and no older one has any.

    Planted defects: a submission that reads its problem without a lock; an outbox row that is noted as sent
    before the submission is locked.
    """
    fate = random.Random(seed)
    benches = pair.benches
    ids: list[str] = []
    ended: list[Any] = []
    for problem in (1, 2):
        benches[0].problem(problem)

    async def act(bench: Bench) -> None:
        judge, problem = bench.judge, fate.choice((1, 2))
        known = fate.choice(ids) if ids else None
        what = fate.choice(
            ("submit", "submit", "put", "delete", "rejudge", "all", "outcome", "sweep", "collect")
        )
        if what == "submit":
            key = Once(bytes([fate.randrange(40)]) * 24, b"f" * 24)
            ids.append((await judge.submissions.submit(problem, 2, b"x", once=key)).submission_id)
        elif what == "put":
            counts = (fate.randrange(1, 4),)
            await bench.put(problem, meta(counts), zipped(counts))
        elif what == "delete" and fate.random() < 0.2:
            await judge.problems.delete(problem)
        elif what == "rejudge" and known:
            await judge.submissions.rejudge(known)
        elif what == "all":
            await judge.submissions.rejudge_all(problem)
        elif what == "outcome" and pair.dispatch.living:
            job_id, spec = fate.choice([*pair.dispatch.living.items()])
            ended.append(spec)
            outcome = result(["AC"] * spec.tasks[0].case_count)
            await judge.project(job_id, spec.submission_id, spec.generation, outcome)
        elif what == "sweep":
            await judge.outbox.sweep()
        elif what == "collect":
            await judge.collect()

    async def somebody(bench: Bench) -> None:
        for _ in range(12):
            try:
                await act(bench)
            except StoreUnavailable:
                raise
            except WindlassError:
                pass  # there is no such problem now

    pair.both(*(somebody(bench) for bench in benches for _ in range(4)))
    pair.sweep()
    assert rows(pair) == 0
    jobs = [(spec.submission_id, spec.generation) for spec in pair.dispatch.living.values()]
    assert len(jobs) == len(set(jobs))
    for submission_id in set(ids):
        found = pair.get(submission_id)
        if found.status == "done":
            continue
        alive = [spec for spec in pair.dispatch.living.values() if spec.submission_id == submission_id]
        alive = [spec for spec in alive if spec not in ended]
        assert [spec.generation for spec in alive] == [found.generation], found
        present = pair.run(pair.judges[0].problems.get(found.problem_id))
        assert [task.case_count for task in alive[0].tasks] == present.meta.counts, found
        assert found.job_id is not None
