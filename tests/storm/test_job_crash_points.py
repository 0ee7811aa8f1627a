"""A server that crashes between any two steps of a job, and is started again at once.

The points are those of tests/crashing.py. The runner is this test, so that what it was told, and how often,
is known; whoever submits and whoever runs asks again until the server is back.
"""

from __future__ import annotations

import io
import itertools
import sys
import threading
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.crashing import ANSWERED, ahead_of
from tests.harness import ServerProcess, until
from tests.installation import PYTHON, TOKEN, Caller, Judge, ends, server_environment

pytestmark = pytest.mark.storm

LEASE = 60  # longer than a crash and a start: no attempt is lost to time


class Hand(Caller):
    """A runner by hand. A program that prints N is accepted where the test data wants N."""

    def __init__(self, server: ServerProcess, label: str = "") -> None:
        super().__init__(server)
        body = {"registration_token": TOKEN, "name": "hand", "labels": [label] if label else []}
        identity = self.call("POST", "/runners/register", json=body).json()["data"]
        self._path = f"/runners/{identity['runner_id']}"
        self._bearer = {"authorization": f"Bearer {identity['token']}"}
        self._claims = (str(uuid.uuid4()) for _ in itertools.count())

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.call(method, path, headers=self._bearer, **request)

    def take(self) -> dict[str, Any]:
        """The next job, as soon as there is one; a lost reply is asked for again."""
        claim = next(self._claims)

        def asked() -> Any:
            answer = self.ask("GET", f"{self._path}/next-job", params={"claim": claim})
            return answer.json()["data"] if answer.status_code == 200 else None

        job: dict[str, Any] = until(asked, 60, "a job")
        return job

    def nothing(self) -> bool:
        return self.ask("GET", f"{self._path}/next-job").status_code == 204

    def beat(self, job: dict[str, Any]) -> None:
        answer = self.ask("POST", f"{self._path}/heartbeat", json={"active_job_ids": [job["job_id"]]})
        assert answer.status_code == 204

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Fetch what the job needs, and its result."""
        code = self.call("GET", job["code_url"])
        assert code.status_code == 200, code.text
        data = self.ask("GET", f"/problems/{job['problem_id']}/testdata")
        printed = _read(code.content, "main.py").removeprefix("print(").removesuffix(")")
        status = "AC" if printed == _read(data.content, "0101.out") else "WA"
        return {"tasks": [[_CASE | {"stdout": printed, "status": status}]]}

    def bring(self, job: dict[str, Any], result: dict[str, Any]) -> int:
        return self.ask("PUT", f"{self._path}/jobs/{job['job_id']}/complete", json=result).status_code

    def exchange(self, brought: dict[str, dict[str, Any]], most: int) -> tuple[list[int], list[Any]]:
        """Bring results by job, for up to `most` jobs: what became of each, and the jobs."""
        results = [{"job_id": job_id, "result": result} for job_id, result in brought.items()]
        query = {"claim": next(self._claims), "max": most}
        answer = self.ask("POST", f"{self._path}/results", params=query, json={"results": results})
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        assert [each["job_id"] for each in data["results"]] == list(brought)
        return [each["status"] for each in data["results"]], data["jobs"]

    def abort(self, job: dict[str, Any]) -> int:
        body = {"reason": "it broke"}
        return self.ask("PUT", f"{self._path}/jobs/{job['job_id']}/abort", json=body).status_code


_CASE = {"stderr": "", "exitCode": 0, "execTime": 1, "memoryUsage": 1}


def _read(archive: bytes, name: str) -> str:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(name).decode()


class Site:
    """A server that is started again whenever it has ended, and who uses it. One for the whole module."""

    def __init__(self, folder: Path) -> None:
        self._fuse = folder / "fuse"
        self._fuse.mkdir()
        self.server = ServerProcess(
            folder / "data",
            environment=server_environment(LEASE, heartbeat=LEASE / 2),
            program=(sys.executable, "-m", "tests.crashing", str(self._fuse)),
        )
        self.server.start()
        self.judge = Judge(self.server)
        self.hand = Hand(self.server)
        self._problems = itertools.count(1)
        self._labels = (f"label-{n}" for n in itertools.count(1))
        self._knocks = itertools.count(1)
        self.judge.call("POST", "/queues", json={"name": "knock"})
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._supervisor.start()

    def _supervise(self) -> None:
        while not self._over.wait(0.01):
            if not self.server.running:
                self.server.start()

    def close(self) -> None:
        self._over.set()
        self._supervisor.join()
        assert self.server.terminate() == 0
        self.judge.close()
        self.hand.close()

    def arm(self, point: str) -> None:
        """The server ends when it comes to this point."""
        (self._fuse / point).touch()

    def crashed(self) -> bool:
        """Whether it has come there."""
        return not list(self._fuse.iterdir())

    def see_crash(self) -> None:
        """Wait until it has come there, which may be after its client was answered. Wherever it has not, a
        test has shown nothing."""
        until(self.crashed, 60, "the crash")

    def silence(self) -> None:
        """No runner speaks until its lease is over: the server's clock moves, and commits look at it."""
        assert self.hand.nothing()  # after a start: what it found leased has a whole lease again by now
        armed = not self.crashed()
        with ahead_of(self._fuse).open("ab") as file:
            file.write(bytes(LEASE + 1))

        def over() -> bool:
            knock = {"lease_seconds": next(self._knocks)}  # a commit, whose upkeep may find no time
            assert self.judge.call("PATCH", "/queues/knock", json=knock).status_code == 200
            return (armed and self.crashed()) or not self.judge.jobs("running")

        until(over, what="the end of the lease, or the crash")

    def problem(self, wanted: int = 1) -> int:
        number = next(self._problems)
        self.change(number, wanted)
        return number

    def change(self, problem: int, wanted: int) -> None:
        self.judge.put_problem(problem, [("", str(wanted))])

    def label(self) -> str:
        return next(self._labels)

    def died(self, submission_id: str, reason: str) -> list[str]:
        """What happened to its job, once its submission knows that it failed, and nothing is left to do."""
        self.see_crash()
        found = self.judge.done(submission_id, 60)
        assert (found["generation"], found["verdict"], found["reason"]) == (1, "JE", reason), found
        until(lambda: ends(self.server.data_dir)[1:] == (0, 0, 0), 60, "everything told")
        assert ends(self.server.data_dir).verdicts[submission_id, 1] == 0
        assert self.hand.nothing()
        job = self.judge.get(f"/jobs/{found['job_id']}")
        return [each["event"] for each in job["events"]]

    def settled(self, submission_id: str, generation: int, verdict: str) -> dict[str, Any]:
        """Its last job, once everything has ended, right, by exactly one job, and nothing is left to do."""
        self.see_crash()
        found = self.judge.done(submission_id, 60)
        assert (found["generation"], found["verdict"]) == (generation, verdict), found
        until(lambda: ends(self.server.data_dir)[1:] == (0, 0, 0), 60, "everything told, and sent")
        assert ends(self.server.data_dir).verdicts[submission_id, generation] == 1
        assert self.hand.nothing()
        job: dict[str, Any] = self.judge.get(f"/jobs/{found['job_id']}")
        assert (job["state"], job["submission_id"]) == ("done", submission_id)
        return job


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


def submit(site: Site, problem: int, printed: int = 1) -> str:
    return site.judge.submit(problem, f"print({printed})", key=str(uuid.uuid4()))


# --- in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks_again", [True, False])
@pytest.mark.parametrize("point", ["before-submit", "after-submit"])
def test_a_submission_that_was_written_is_sent_once(site: Site, point: str, asks_again: bool) -> None:
    """Planted: before: a job that only its request sends; after: a sweeper that sends a second one."""
    problem, key = site.problem(), str(uuid.uuid4())
    site.arm(point)
    if not asks_again:
        body = {"problem_id": problem, "language": PYTHON, "source": "print(1)"}
        headers = {"idempotency-key": key}
        assert site.judge.call_once("POST", "/submissions", json=body, headers=headers) is None
    else:
        site.judge.submit(problem, "print(1)", key=key)
    job = site.hand.take()
    assert site.hand.nothing()
    assert site.hand.bring(job, site.hand.run(job)) == 204
    (found,) = site.judge.submissions(problem)
    assert site.settled(found["submission_id"], 1, "AC")["attempts"] == 1
    assert site.judge.submit(problem, "print(1)", key=key) == found["submission_id"]


@pytest.mark.parametrize("point", ["before-create_queue", "after-create_queue"])
def test_a_queue_of_its_own_for_labels_has_the_settings_of_jobs(site: Site, point: str) -> None:
    """Planted: a queue that is made first and set up then, so that attempts have no end where that is cut."""
    problem, label = site.problem(), site.label()
    site.arm(point)
    name = site.judge.submit(problem, "print(1)", key=label, labels=[label])
    hand = Hand(site.server, label)
    for _ in range(3):
        assert hand.abort(hand.take()) == 202
    found = site.judge.done(name)
    assert (found["verdict"], found["reason"]) == ("JE", "The last attempt was handed back: it broke")
    site.see_crash()
    assert hand.nothing()
    hand.close()


# --- out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point", ["after-claim", "before-confirm", "after-confirm", "before-heartbeat", "after-heartbeat"]
)
def test_a_job_on_its_way_to_a_runner_arrives_and_costs_one_attempt(site: Site, point: str) -> None:
    """Planted: claims that a restart forgets; a repeated claim that is given another job; a lease that a
    confirmation begins before it is kept."""
    name = submit(site, site.problem())
    site.arm(point)
    job = site.hand.take()
    result = site.hand.run(job)
    site.hand.beat(job)
    assert site.hand.bring(job, result) == 204
    assert site.settled(name, 1, "AC")["attempts"] == 1


# --- back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point", ["before-complete", "after-complete", ANSWERED, "after-project", "after-told"]
)
def test_a_result_is_taken_once_and_reaches_its_submission(site: Site, point: str) -> None:
    """Planted: before-complete: an outcome kept in memory until it is told. after-complete: a repeated result
    that is refused. answered: an outcome that only the request which brought it tells. after-project: a
    second telling that is an error. after-told: one that counts as told before it is heard."""
    name = submit(site, site.problem(), printed=2)
    job = site.hand.take()
    result = site.hand.run(job)
    site.arm(point)
    assert site.hand.bring(job, result) == 204
    site.see_crash()
    assert site.settled(name, 1, "WA")["attempts"] == 1
    assert site.hand.bring(job, result) == 204


@pytest.mark.parametrize(
    "point", ["before-exchange", "after-exchange", ANSWERED, "after-project", "after-told"]
)
def test_results_in_exchange_are_taken_once_and_bring_jobs_once(site: Site, point: str) -> None:
    """Planted: jobs given in exchange that a repeat does not bring again, or brings others in their place; a
    repeated result that is refused."""
    problem = site.problem()
    names = [submit(site, problem) for _ in range(4)]
    held = [site.hand.take() for _ in range(2)]
    brought = {job["job_id"]: site.hand.run(job) for job in held}
    site.arm(point)
    statuses, jobs = site.hand.exchange(brought, 2)
    assert statuses == [204, 204]
    assert [job["submission_id"] for job in jobs] == names[2:]
    site.see_crash()
    statuses, more = site.hand.exchange({job["job_id"]: site.hand.run(job) for job in jobs}, 2)
    assert (statuses, more) == ([204, 204], [])
    for name in names:
        assert site.settled(name, 1, "AC")["attempts"] == 1


@pytest.mark.parametrize("point", ["before-abort", "after-abort"])
def test_a_job_that_is_handed_back_counts_once(site: Site, point: str) -> None:
    """Planted: an abort that only memory knows of, so that the job waits for its lease to run out."""
    name = submit(site, site.problem())
    first = site.hand.take()
    site.hand.run(first)
    site.arm(point)
    assert site.hand.abort(first) == (202 if point == "before-abort" else 409)
    second = site.hand.take()
    assert second["job_id"] == first["job_id"]
    assert site.hand.bring(second, site.hand.run(second)) == 204
    assert site.settled(name, 1, "AC")["attempts"] == 2


@pytest.mark.parametrize(
    "point", ["before-abort", "after-abort", "before-project", "after-project", "after-told"]
)
def test_the_end_of_a_job_that_died_reaches_its_submission(site: Site, point: str) -> None:
    """Planted: a death that only the process which saw it tells; one that is told before it is heard."""
    name = submit(site, site.problem())
    for _ in range(2):
        assert site.hand.abort(site.hand.take()) == 202
    last = site.hand.take()
    site.arm(point)
    # A repeat is late; and it is one where the crash overtakes the answer, as it may beside the request.
    late = {"before-abort": {202}, "after-abort": {409}}
    assert site.hand.abort(last) in late.get(point, {202, 409})
    events = site.died(name, "The last attempt was handed back: it broke")
    assert events == ["sent", *["leased", "given_back"] * 3, "dead"]
    assert site.hand.bring(last, {"tasks": [[_CASE | {"stdout": "1", "status": "AC"}]]}) == 409


@pytest.mark.parametrize("point", ["before-cancel", "after-cancel", "after-project", "after-told"])
def test_a_job_that_was_cancelled_never_runs_again(site: Site, point: str) -> None:
    """Planted: a job that is cancelled first and has its outcome written then."""
    name = submit(site, site.problem())
    job = site.hand.take()
    result = site.hand.run(job)
    site.arm(point)
    cancelled = site.judge.call("DELETE", f"/jobs/{job['job_id']}")
    assert cancelled.status_code in {"before-cancel": {204}, "after-cancel": {410}}.get(point, {204, 410})
    events = site.died(name, "The job was cancelled.")
    assert (events[0], events[-1]) == ("sent", "cancelled")
    assert site.hand.bring(job, result) == 409


# --- silence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before-expire", "after-expire"])
def test_a_lease_that_runs_out_costs_one_attempt(site: Site, point: str) -> None:
    """Planted: an attempt that a start counts too; a lease that memory alone ends."""
    name = submit(site, site.problem())
    first = site.hand.take()
    site.hand.run(first)
    site.arm(point)
    site.silence()
    site.see_crash()
    if point == "before-expire":
        site.silence()
    second = site.hand.take()
    assert second["job_id"] == first["job_id"]
    assert site.hand.bring(second, site.hand.run(second)) == 204
    assert site.settled(name, 1, "AC")["attempts"] == 2


@pytest.mark.parametrize("point", ["before-expire", "after-expire"])
def test_the_last_lease_that_runs_out_is_the_end(site: Site, point: str) -> None:
    """Planted: a death that only the process which saw it tells."""
    name = submit(site, site.problem())
    for _ in range(2):
        assert site.hand.abort(site.hand.take()) == 202
    site.hand.run(site.hand.take())
    site.arm(point)
    site.silence()
    site.see_crash()
    if point == "before-expire":
        site.silence()
    events = site.died(name, "The last runner fell silent.")
    assert events == ["sent", *["leased", "given_back"] * 2, "leased", "lease_expired", "dead"]


# --- again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before-submit", "after-submit"])
def test_a_rejudgement_of_what_is_done_is_by_the_problem_as_it_is_then(site: Site, point: str) -> None:
    """Planted: a generation that begins without its job; two jobs of one; the older verdict that stays."""
    problem = site.problem(wanted=1)
    name = submit(site, problem)
    job = site.hand.take()
    assert site.hand.bring(job, site.hand.run(job)) == 204
    assert site.judge.done(name)["verdict"] == "AC"
    site.change(problem, wanted=2)
    site.arm(point)
    assert site.judge.call_once("POST", f"/submissions/{name}/rejudge") is None
    again = site.hand.take()
    assert again["job_id"] != job["job_id"]
    assert site.hand.bring(again, site.hand.run(again)) == 204
    site.settled(name, 2, "WA")


@pytest.mark.parametrize("point", ["before-supersede", "after-supersede", "before-submit", "after-submit"])
@pytest.mark.parametrize("asked", ["rejudge", "change"])
def test_a_rejudgement_supersedes_the_job_that_runs(site: Site, point: str, asked: str) -> None:
    """Planted: an older job whose result is taken after the crash, or that runs again; a generation whose
    job nobody sends."""
    problem = site.problem(wanted=1)
    name = submit(site, problem)
    old = site.hand.take()
    stale = site.hand.run(old)
    site.arm(point)
    if asked == "rejudge":
        assert site.judge.call_once("POST", f"/submissions/{name}/rejudge") is None
    else:
        site.change(problem, wanted=2)
    site.see_crash()
    new = site.hand.take()
    assert new["job_id"] != old["job_id"]
    until(lambda: site.judge.get(f"/jobs/{old['job_id']}")["state"] == "superseded", 60, "its end")
    assert site.hand.bring(old, stale) == 409
    assert site.hand.bring(new, site.hand.run(new)) == 204
    site.settled(name, 2, "AC" if asked == "rejudge" else "WA")
    assert ends(site.server.data_dir).verdicts[name, 1] == 0
