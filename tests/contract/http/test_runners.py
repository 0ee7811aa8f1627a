"""The runners' wire, as clients have spoken it from the beginning, and what a runner may ask for besides."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.http.served import Served, refused, settled
from windlass.server import control

SECRET = "let me in"
CASE = {"stdout": "3\n", "stderr": "", "exitCode": 0, "execTime": 3, "memoryUsage": 900, "status": "AC"}
RESULT = {"tasks": [[CASE]]}
META = {
    "title": "a+b",
    "statement": "Add.",
    "checker": "",
    "tasks": [{"score": 100, "case_count": 1, "time_limit": 1_000, "memory_limit": 65_536}],
}


class Runner:
    """A runner of the oldest kind, or with what it asks for."""

    def __init__(self, api: Served, **more: Any) -> None:
        answer = api("POST", "/runners/register", {"registration_token": SECRET, "name": "r", **more})
        assert answer.status_code == 201, answer.text
        self.api = api
        self.data = answer.json()["data"]
        self.id = self.data["runner_id"]
        self.headers = {"authorization": f"Bearer {self.data['token']}"}

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.api(method, f"/runners/{self.id}{path}", body, headers=self.headers, **more)

    def take(self) -> Any:
        answer = self("GET", "/next-job")
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@pytest.fixture
def court(tmp_path: Path, road: str) -> Iterator[Served]:
    """A server with problem 1, whose submissions become jobs."""
    with Served(tmp_path / "data", road=road, judged=True, registration_token=SECRET) as served:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("0101.in", "1 2\n")
            archive.writestr("0101.out", "3\n")
        form = {"meta": (None, json.dumps(META), "application/json"), "testdata": ("t.zip", data.getvalue())}
        made = served("PUT", "/problems/1", files=form)
        assert made.status_code == 201, made.text
        yield served


def submit(api: Served) -> Any:
    answer = api("POST", "/submissions", {"problem_id": 1, "language": 2, "source": "print(3)"})
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_registering_answers_who_one_is_and_how_to_behave(court: Served) -> None:
    data = Runner(court).data
    assert data["runner_id"].startswith("rn_")
    assert data["token"].startswith("rk_")
    assert data["config"] == {
        "heartbeat_interval_sec": 15,
        "poll_interval_sec": 3,
        "max_concurrent_jobs": 8,
    }
    asked = Runner(court, features=["control", "telepathy"], labels=["gpu"]).data
    assert asked["config"]["features"] == ["control"]


@pytest.mark.parametrize(
    "body",
    [
        None, {}, {"registration_token": "wrong", "name": "r"}, {"registration_token": 5, "name": "r"},
        {"registration_token": None, "name": "r"}, {"registration_token": [], "name": "r"}, {"name": "r"},
        {"registration_token": SECRET + "x", "name": 5}, {"registration_token": {}, "name": {}},
        {"registration_token": "x" * 100_000, "name": "r"}, {"labels": 5, "features": "x", "name": "r"},
        [], 5, SECRET, [SECRET], b"{", b"\xff", b"\0", b"[" * 5_000 + b"]" * 5_000,
    ],
)  # fmt: skip
def test_whatever_is_no_registration_token_is_401(court: Served, body: Any) -> None:
    """Planted defects: a type that makes the comparison raise: 500; labels that are looked at first."""
    refused(court("POST", "/runners/register", body), 401, "registration_denied")


@pytest.mark.parametrize(
    "body",
    [
        b'{"registration_token": "\\ud800", "name": "r"}',
        b'{"registration_token": ["\\udfff"], "name": "r"}',
        b'{"registration_token": "\xed\xa0\x80", "name": "r"}',
        b'{"registration_token": "x", "name": "\\ud800"}',
        b'{"registration_token": "let me in", "name": "\\ud800"}', b'{"\\ud800": 1}', b'"\\udc00\\ud800"',
    ],
)  # fmt: skip
def test_a_lone_surrogate_is_nobodys_token(court: Served, body: bytes) -> None:
    """Planted defect: the general check of bodies, which says 422."""
    refused(court("POST", "/runners/register", body), 401, "registration_denied")


@pytest.mark.parametrize("name", [None, 5, "", "x" * 201, "a\nb", ["r"]])
def test_a_runner_without_a_proper_name_is_refused(court: Served, name: Any) -> None:
    body = {"registration_token": SECRET, "name": name}
    refused(court("POST", "/runners/register", body), 422, "invalid", "name")


def test_registration_is_off_without_a_token(tmp_path: Path) -> None:
    """Planted defect: a default secret."""
    with Served(tmp_path) as served:
        for token in ("", SECRET, None):
            body = {"registration_token": token, "name": "r"}
            refused(served("POST", "/runners/register", body), 401, "registration_denied")


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": ""}, {"authorization": "Bearer "}, {"authorization": "Bearer rk_x"},
     {"authorization": "Basic cms6"}, {"authorization": "Bearer " + "x" * 10_000}, {"authorization": "é"}],
)  # fmt: skip
def test_every_route_wants_the_runners_own_token(court: Served, headers: dict[str, str]) -> None:
    """Planted defects: a route that forgets to ask; another runner's token that will do."""
    first, second = Runner(court), Runner(court)
    submit(court)
    job = first.take()
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    for method, path, body in (
        ("GET", "/next-job", None),
        ("POST", "/heartbeat", {}),
        ("PUT", f"/jobs/{job['job_id']}/complete", RESULT),
        ("POST", "/results", {"results": [{"job_id": job["job_id"], "result": RESULT}]}),
        ("PUT", f"/jobs/{job['job_id']}/abort", {"reason": "x"}),
        ("POST", f"/jobs/{job['job_id']}/events", {"events": []}),
    ):
        for wrong in (raw, second.headers):
            answer = court(method, f"/runners/{first.id}{path}", body, headers=wrong)
            refused(answer, 401, "runner_unknown")
    for part in ("meta", "testdata", "checksum"):
        assert court("GET", f"/problems/1/{part}", headers=first.headers).status_code == 200
    assert first("PUT", f"/jobs/{job['job_id']}/complete", RESULT).status_code == 204


def test_a_job_from_submission_to_verdict(court: Served) -> None:
    """The whole wire, status by status and field by field."""
    runner = Runner(court)
    empty = runner("GET", "/next-job")
    assert (empty.status_code, empty.content) == (204, b"")
    submission = submit(court)
    job = runner.take()
    url = job.pop("code_url")
    assert job == {
        "job_id": submission["job_id"],
        "submission_id": submission["submission_id"],
        "problem_id": 1,
        "language": 2,
        "checker": "",
        "tasks": [{"task_id": 1, "case_count": 1, "memory_limit": 65_536, "time_limit": 1_000}],
    }
    assert url.startswith("http://localhost/")
    code = court("GET", url)
    assert (code.status_code, code.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(code.content)) as archive:
        assert archive.read("main.py") == b"print(3)"
    for body in ({"active_job_ids": [job["job_id"]]}, {}, None):
        beat = runner("POST", "/heartbeat", body)
        assert (beat.status_code, beat.content) == (204, b"")
    for _ in range(2):  # the same runner may repeat it
        done = runner("PUT", f"/jobs/{job['job_id']}/complete", RESULT)
        assert (done.status_code, done.content) == (204, b"")
    path = f"/submissions/{submission['submission_id']}"
    judged = court("GET", path + "?wait=5").json()
    assert (judged["status"], judged["verdict"], judged["score"]) == ("done", "AC", 100)
    shown = court("GET", f"/jobs/{job['job_id']}").json()
    assert (shown["state"], shown["attempts"], shown["result"]) == ("done", 1, RESULT)


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({}, "http://localhost"),
        ({"host": "judge.example:9"}, "http://judge.example:9"),
        ({"host": "[::1]:8000"}, "http://[::1]:8000"),
        ({"host": "judge.example", "x-forwarded-proto": "https"}, "https://judge.example"),
        ({"x-forwarded-proto": "HTTPS, http"}, "https://localhost"),
        ({"x-forwarded-proto": "http"}, "http://localhost"),
        ({"x-forwarded-proto": "javascript"}, "http://localhost"),
        ({"x-forwarded-proto": "é"}, "http://localhost"),
        ({"x-forwarded-proto": ""}, "http://localhost"),
    ],
)
def test_the_link_to_the_source_is_as_the_runner_reached_the_server(
    court: Served, headers: dict[str, str], origin: str
) -> None:
    """Planted defect: a link that is http behind a proxy that speaks TLS."""
    runner = Runner(court, features=["batch"])
    first = submit(court)["job_id"]
    raw = {name: value.encode() for name, value in headers.items()} | runner.headers
    answer = court("GET", f"/runners/{runner.id}/next-job", headers=raw)
    second = submit(court)["job_id"]
    brought = {"results": [{"job_id": first, "result": RESULT}]}
    more = court("POST", f"/runners/{runner.id}/results?max=1", brought, headers=raw)
    jobs = [answer.json()["data"], *more.json()["data"]["jobs"]]
    assert [job["job_id"] for job in jobs] == [first, second]
    for job in jobs:
        path = job["code_url"].removeprefix(origin)
        assert path.startswith(f"/jobs/{job['job_id']}/code?")
    assert court("GET", path).status_code == 200


@pytest.mark.parametrize(
    ("scope", "origin"),
    [
        ({"server": ("10.0.0.5", 8000)}, "http://10.0.0.5:8000"),
        ({"server": ("::1", 80)}, "http://[::1]:80"),
        ({"server": ("localhost", None), "scheme": "https"}, "https://localhost"),
        ({"server": None}, "http://localhost"),
    ],
)
def test_a_link_for_who_names_no_host(court: Served, scope: dict[str, Any], origin: str) -> None:
    """As of HTTP/1.0; and where another ASGI server speaks TLS itself."""
    runner = Runner(court)
    job_id = submit(court)["job_id"]

    async def changed(given: Any, receive: Any, send: Any) -> None:
        headers = [header for header in given["headers"] if header[0] != b"host"]
        await court.app(given | scope | {"headers": headers}, receive, send)

    async def ask() -> httpx.Response:
        async with court.new_client(changed) as client:
            return await client.get(f"/runners/{runner.id}/next-job", headers=runner.headers)

    url = court.run(ask()).json()["data"]["code_url"]
    assert url.startswith(f"{origin}/jobs/{job_id}/code?")


def test_results_in_exchange_for_jobs(court: Served) -> None:
    """What the feature `batch` adds to complete and next-job."""
    runner = Runner(court, features=["batch"])
    jobs = [submit(court)["job_id"] for _ in range(3)]
    held = runner("GET", "/next-job?max=2").json()["data"]
    assert [job["job_id"] for job in held] == jobs[:2]
    brought = [{"job_id": job_id, "result": RESULT} for job_id in (jobs[0], "jb_x", jobs[1])]
    brought[2]["result"] = {"tasks": []}
    answer = runner("POST", "/results?claim=c1&max=8", {"results": brought})
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert [(each["job_id"], each["status"]) for each in data["results"]] == [
        (jobs[0], 204), ("jb_x", 404), (jobs[1], 400),
    ]  # fmt: skip
    assert [sorted(each) for each in data["results"]] == [["job_id", "status"]] + [
        ["detail", "job_id", "status"]
    ] * 2
    (new,) = data["jobs"]
    assert new["job_id"] == jobs[2]
    assert court("GET", new["code_url"]).status_code == 200
    assert runner("POST", "/results", {"results": []}).json() == {"data": {"results": [], "jobs": []}}
    assert court("GET", f"/jobs/{jobs[0]}").json()["result"] == RESULT


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), ({}, 422), ([], 422), ({"results": None}, 422), ({"results": [1]}, 422),
     ({"results": [{"job_id": 1, "result": {}}]}, 422), ({"results": [{"job_id": "jb_x"}]}, 422),
     ({"results": [{"job_id": "jb_x", "result": 1}] * 101}, 422),
     (b'{"results": [{"job_id": "\\ud800"}]}', 422)],
)  # fmt: skip
def test_results_of_the_wrong_shape(court: Served, body: Any, status: int) -> None:
    assert Runner(court)("POST", "/results", body).status_code == status


@pytest.mark.parametrize("query", ["max=0", "max=101", "max=x", "claim=", "claim=%00"])
def test_an_exchange_that_is_wrongly_asked_for_changes_nothing(court: Served, query: str) -> None:
    """Planted defect: results that are taken before the query is read."""
    runner = Runner(court)
    submit(court)
    job_id = runner.take()["job_id"]
    brought = {"results": [{"job_id": job_id, "result": RESULT}]}
    refused(runner("POST", f"/results?{query}", brought), 422, "invalid")
    assert court("GET", f"/jobs/{job_id}").json()["state"] == "running"


def test_links_to_source_end_and_cannot_be_made_up(court: Served) -> None:
    """Planted defects: the signature not looked at; an expiry that is not signed; a link that outlives it."""
    runner = Runner(court)
    submit(court)
    url = httpx.URL(runner.take()["code_url"])
    given = dict(url.params)
    other = Runner(court)
    for change in (
        {"signature": "0" * 32}, {"signature": ""}, {"expires": str(int(given["expires"]) + 1)},
        {"expires": "soon"}, {"expires": "9" * 50}, {"runner": other.id}, {"runner": ""},
    ):  # fmt: skip
        refused(court("GET", str(url.copy_with(params=given | change))), 403, "code_link_invalid")
    refused(court("GET", url.path), 403, "code_link_invalid")
    assert court("GET", str(url)).status_code == 200
    court.advance(29)
    assert court("GET", str(url)).status_code == 200
    court.advance(3600)
    refused(court("GET", str(url)), 403, "code_link_invalid")


def test_aborts_and_late_results(court: Served) -> None:
    first, second = Runner(court), Runner(court)
    submission = submit(court)
    job_id = first.take()["job_id"]
    complete, abort = f"/jobs/{job_id}/complete", f"/jobs/{job_id}/abort"
    refused(second("PUT", complete, RESULT), 409, "job_lost")
    refused(second("PUT", abort, {"reason": "x"}), 409, "job_lost")
    shapes: list[Any] = [
        {"tasks": []},
        {},
        {"tasks": [[CASE, CASE]]},
        {"tasks": [[{**CASE, "status": "OK"}]]},
    ]
    for wrong in shapes:
        refused(first("PUT", complete, wrong), 400, "result_malformed")
    refused(first("PUT", "/jobs/jb_nonsense/complete", RESULT), 404, "job_not_found")
    refused(first("PUT", "/jobs/jb_nonsense/abort", {"reason": ""}), 404, "job_not_found")
    aborted = first("PUT", abort, {"reason": "no compiler"})
    assert (aborted.status_code, aborted.content) == (202, b"")
    assert second.take()["job_id"] == job_id
    refused(first("PUT", complete, RESULT), 409, "job_lost")
    court("POST", f"/submissions/{submission['submission_id']}/rejudge")
    refused(second("PUT", complete, RESULT), 409, "job_lost")
    newer = second.take()["job_id"]
    assert newer != job_id
    assert second("PUT", f"/jobs/{newer}/complete", RESULT).status_code == 204
    assert court("GET", f"/jobs/{job_id}").json()["state"] == "superseded"


_HOSTILE = {
    "half a pair": b'"stdout": "\\ud800"',
    "half a pair, raw": b'"stdout": "\xed\xa0\x80"',
    "a raw NUL": b'"stdout": "\0"',
    "not UTF-8": b'"stdout": "\xff"',
    "deep": b'"more": ' + b"[" * 5_000 + b"]" * 5_000 + b', "stdout": ""',
    "not JSON": b"\"stdout\": ''",
}


@pytest.mark.parametrize("part", _HOSTILE.values(), ids=_HOSTILE)
def test_what_no_store_may_hold_is_no_result(court: Served, part: bytes) -> None:
    """Planted defects: the general check of bodies, which says 422 and is asked again for ever; results
    beside it that are taken."""
    runner = Runner(court)
    jobs = [submit(court)["job_id"], submit(court)["job_id"]]
    assert [runner.take()["job_id"], runner.take()["job_id"]] == jobs
    result = json.dumps(RESULT).encode().replace(b'"stdout": "3\\n"', part)
    assert part in result
    refused(runner("PUT", f"/jobs/{jobs[0]}/complete", result), 400, "result_malformed", "tasks")
    good = b'{"job_id": "%b", "result": %b}' % (jobs[1].encode(), json.dumps(RESULT).encode())
    several = b'{"results": [%b, {"job_id": "%b", "result": %b}]}' % (good, jobs[0].encode(), result)
    assert runner("POST", "/results", several).status_code in (400, 422)
    assert [court("GET", f"/jobs/{job_id}").json()["state"] for job_id in jobs] == ["running"] * 2
    assert runner("PUT", f"/jobs/{jobs[0]}/complete", RESULT).status_code == 204


@pytest.mark.parametrize("body", [b"", b" ", b"\0", b"{", b"[" * 5_000 + b"]" * 5_000, b"null", b"5", b"[]"])
def test_whatever_is_no_result_is_400(court: Served, body: bytes) -> None:
    runner = Runner(court)
    submit(court)
    job_id = runner.take()["job_id"]
    refused(runner("PUT", f"/jobs/{job_id}/complete", body), 400, "result_malformed", "tasks")
    assert court("GET", f"/jobs/{job_id}").json()["state"] == "running"


@pytest.mark.parametrize(
    ("reason", "kept"),
    [(b"\\ud800", "?"), (b"a\\udfffb", "a?b"), (b"\\ud83d\\ude00", "\U0001f600"), (b"\xff", "\ufffd"),
     (b"\xed\xa0\x80", "\ufffd" * 3), (b"a\0b", "a\0b"), (b"a\nb", "a\nb"), ("é".encode(), "é")],
)  # fmt: skip
def test_a_job_is_taken_back_whatever_its_reason_is_made_of(court: Served, reason: bytes, kept: str) -> None:
    """Planted defect: the general check of bodies: the job stays with a runner that cannot do it."""
    runner = Runner(court)
    submit(court)
    job_id = runner.take()["job_id"]
    body = b'{"reason": "%b"}' % reason
    assert runner("PUT", f"/jobs/{job_id}/abort", body).status_code == 202
    events = court("GET", f"/jobs/{job_id}").json()["events"]
    assert [event["reason"] for event in events if "reason" in event] == [kept]
    assert runner.take()["job_id"] == job_id


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\0", b'"drain"', b'{"reason": 5}', b"[" * 100_000, b'{"reason": null}']
)
def test_an_abort_without_a_reason_that_is_a_text_is_400(court: Served, body: bytes) -> None:
    runner = Runner(court)
    submit(court)
    job_id = runner.take()["job_id"]
    assert runner("PUT", f"/jobs/{job_id}/abort", body).status_code == 400
    assert court("GET", f"/jobs/{job_id}").json()["state"] == "running"


def test_control_tells_what_to_stop(court: Served) -> None:
    runner = Runner(court, features=["control"])
    job_id = submit(court)["job_id"]
    assert runner.take()["job_id"] == job_id
    body = {"active_job_ids": [job_id]}
    beat = runner("POST", "/heartbeat", body)
    assert (beat.status_code, beat.json()) == (200, {"data": {"lost": [], "cancelled": [], "superseded": []}})
    assert court("DELETE", f"/jobs/{job_id}").status_code == 204
    refused(court("DELETE", f"/jobs/{job_id}"), 410, "message_gone")
    assert runner("POST", "/heartbeat", body).json()["data"]["cancelled"] == [job_id]


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"active_job_ids": 5}', b'{"active_job_ids": {"a": 1}}', b"\xff"]
)
def test_a_malformed_heartbeat_is_refused(court: Served, body: bytes) -> None:
    refused(Runner(court)("POST", "/heartbeat", body), 400, "bad_request", "active_job_ids")


def test_a_heartbeat_with_hostile_ids_is_a_heartbeat(court: Served) -> None:
    runner = Runner(court, features=["control"])
    beat = runner("POST", "/heartbeat", {"active_job_ids": [5, None, [], "x" * 10_000, "jb_", "jb_é"]})
    assert beat.json()["data"]["lost"] == ["x" * 10_000, "jb_", "jb_é"]


@pytest.mark.parametrize(
    "query", ["wait=61", "wait=-1", "wait=x", "wait=nan", "claim=", "claim=" + "x" * 129]
)
def test_parameters_of_next_job_have_bounds(court: Served, query: str) -> None:
    refused(Runner(court)("GET", "/next-job?" + query), 422, "invalid")


def test_a_long_poll_gets_the_job_that_comes(court: Served) -> None:
    """Planted defect: a poll that waits for its time although there is a job."""
    runner = Runner(court, features=["wait"])

    async def scenario() -> httpx.Response:
        waiting = court.ask("GET", f"/runners/{runner.id}/next-job?wait=20&claim=a", headers=runner.headers)
        task = asyncio.ensure_future(waiting)
        await settled(lambda: len(court.app.dispatch._lines))
        await court.ask("POST", "/jobs", {"command": {"argv": ["true"]}})
        return await asyncio.wait_for(task, 60)

    job = court.run(scenario()).json()["data"]
    assert job["command"]["argv"] == ["true"]
    assert runner("GET", "/next-job?claim=a").json()["data"]["job_id"] == job["job_id"]


def test_a_foreign_page_speaks_to_no_runner_route(court: Served) -> None:
    runner = Runner(court)
    for path in ("/next-job", "/heartbeat"):
        answer = court(
            "GET" if path == "/next-job" else "POST",
            f"/runners/{runner.id}{path}",
            headers=runner.headers | {"origin": "http://evil.example"},
        )
        refused(answer, 403, "foreign_origin")


def test_a_runner_needs_no_api_key_where_there_are_keys(court: Served) -> None:
    """Planted defects: the door asks runners for keys; a runner's token opens other doors."""
    submission = submit(court)
    made = control.act(court.app, {"do": "create_key", "name": "k", "scopes": ["all"]})
    key = {"authorization": f"Bearer {court.run(made)['key']}"}
    runner = Runner(court)
    job = runner.take()
    assert court("GET", job["code_url"]).status_code == 200
    assert runner("POST", "/heartbeat").status_code == 204
    assert court("GET", "/problems/1/testdata", headers=runner.headers).status_code == 200
    assert runner("PUT", f"/jobs/{job['job_id']}/complete", RESULT).status_code == 204
    for method, path in (
        ("GET", f"/submissions/{submission['submission_id']}"), ("GET", f"/jobs/{job['job_id']}"),
        ("GET", "/runners"), ("GET", "/queues"), ("GET", "/problems/1"), ("POST", "/jobs"),
    ):  # fmt: skip
        body: Any = {} if method == "POST" else None
        refused(court(method, path, body, headers=runner.headers), 401, "unauthenticated")
        refused(court(method, path, body), 401, "unauthenticated")
        assert court(method, path, body, headers=key).status_code in (200, 422)


def test_jobs_for_people(court: Served) -> None:
    job = {"command": {"argv": ["sh", "-c", "exit 3"]}, "labels": ["gpu"], "priority": 9}
    job_id = court("POST", "/jobs", job).json()["job_id"]
    assert [each["job_id"] for each in court("GET", "/jobs?state=queued").json()["jobs"]] == [job_id]
    assert court("GET", f"/jobs/{job_id}").json()["labels"] == ["gpu"]
    plain, gpu = Runner(court), Runner(court, labels=["gpu"])
    assert plain("GET", "/next-job").status_code == 204
    got = gpu.take()
    assert (got["job_id"], got["command"]["argv"]) == (job_id, ["sh", "-c", "exit 3"])
    runners = {each["runner_id"]: each for each in court("GET", "/runners").json()["runners"]}
    assert [runners[each.id]["jobs"] for each in (plain, gpu)] == [0, 1]
    told = {"events": [{"event": "output", "text": "hello"}]}
    assert gpu("POST", f"/jobs/{job_id}/events", told).status_code == 204
    assert plain("POST", f"/jobs/{job_id}/events", told).status_code == 204  # passed over: it is not its job
    result = {"tasks": [[{**CASE, "exitCode": 3, "status": "RE"}]]}
    assert gpu("PUT", f"/jobs/{job_id}/complete", result).status_code == 204
    assert court("GET", f"/jobs/{job_id}?wait=5").json()["result"] == result
    events = court("GET", f"/jobs/{job_id}/events").text
    assert events.count("hello") == 1
    assert [line for line in events.splitlines() if line.startswith("event:")] == [
        "event: started",
        "event: output",
        "event: done",
    ]


@pytest.mark.parametrize(
    "job",
    [{}, {"command": {}}, {"command": {"argv": []}}, {"command": {"argv": ["x"], "nonsense": 1}},
     {"command": {"argv": ["x"]}, "labels": ["A b"]}, {"command": {"argv": ["x"]}, "priority": 10},
     {"command": {"argv": ["x"]}, "max_seconds": 0}, {"command": {"argv": "x"}}],
)  # fmt: skip
def test_jobs_that_are_none_are_refused(court: Served, job: Any) -> None:
    refused(court("POST", "/jobs", job), 422, "invalid")
    assert court("GET", "/jobs?state=queued").json()["jobs"] == []


def test_forged_ids_do_not_reach_the_store(court: Served) -> None:
    """Planted defect: a look-up for each id that a stranger makes up."""
    runner = Runner(court)
    court("GET", "/jobs")
    before = court.calls()
    forged = "jb_AAAAAAAAAAAAAAAAAAAAAAAA"
    refused(court("GET", f"/jobs/{forged}"), 404, "job_not_found")
    refused(court("GET", f"/jobs/{forged}/events"), 404, "job_not_found")
    refused(court("DELETE", f"/jobs/{forged}"), 404, "job_not_found")
    refused(runner("PUT", f"/jobs/{forged}/complete", RESULT), 404, "job_not_found")
    refused(runner("PUT", f"/jobs/{forged}/abort", {}), 404, "job_not_found")
    refused(court("GET", f"/jobs/{forged}/code"), 403, "code_link_invalid")
    assert court.calls() == before
