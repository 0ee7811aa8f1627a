"""Submissions over HTTP: sent in, followed to their verdict, judged again; and whatever else may be sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.http.served import Caller, Served, refused, settled
from tests.contract.http.test_problems import put, with_key
from tests.judging import archive, once, result
from windlass.errors import QueueFull, StoreUnavailable
from windlass.judge.languages import LANGUAGES
from windlass.judge.source import MAX_SOURCE, read_source

BODY = {"problem_id": 1, "language": 2, "source": "print(1)"}


@pytest.fixture
def judge(api: Served) -> Served:
    """A server with problem 1."""
    put(api)
    return api


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, road: str) -> Iterator[Served]:
    """The same for tests that leave it as it was."""
    with Served(tmp_path_factory.mktemp("kept") / "data", road=road) as served:
        put(served)
        yield served


def submit(api: Served, **changes: Any) -> dict[str, Any]:
    answer = api("POST", "/submissions", BODY | changes)
    assert answer.status_code == 202, answer.text
    accepted: dict[str, Any] = answer.json()
    return accepted


def form(api: Served, source: bytes, **fields: str) -> httpx.Response:
    data = {"problem_id": "1", "language": "2"} | fields
    return api("POST", "/submissions", files={"source": ("x", source)}, data=data)


def finish(api: Served, submission_id: str, *statuses: str, generation: int = 1) -> None:
    assert api.app.judge is not None
    api.run(api.app.judge.project(f"jb_{generation}", submission_id, generation, result(statuses)))


def source_of(api: Served, submission_id: str) -> bytes:
    assert api.app.judge is not None
    _, file = api.run(api.app.judge.submissions.open_source(submission_id))
    with file:
        return read_source(file, LANGUAGES[2])


# --- in ---------------------------------------------------------------------------------------------


def test_a_submission_is_accepted_judged_and_shown(judge: Served) -> None:
    accepted = submit(judge)
    assert accepted == {"submission_id": accepted["submission_id"], "job_id": "jb_1", "status": "pending"}
    path = f"/submissions/{accepted['submission_id']}"
    shown = judge("GET", path).json()
    assert (shown["status"], shown["verdict"], shown["score"], shown["tasks"]) == ("pending", None, None, [])
    assert judge.app.judge is not None
    judge.run(judge.app.judge.started(accepted["submission_id"], 1))
    assert judge("GET", path).json()["status"] == "judging"
    finish(judge, accepted["submission_id"], "AC", "TLE")
    shown = judge("GET", path).json()
    assert (shown["status"], shown["verdict"], shown["score"], shown["max_score"]) == ("done", "TLE", 0, 10)
    assert shown["tasks"][0]["cases"][0] == {
        "case": 1, "verdict": "AC", "time_ms": 12, "memory_kib": 1024, "exit_code": 0, "stdout": "1\n",
        "stderr": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    "source", [b"\0\xff\xfe", b"x" * MAX_SOURCE, "\u202e\ufeff".encode(), b"\r\n--b\r\n", b"PK not quite"]
)
def test_a_form_submits_any_bytes(judge: Served, source: bytes) -> None:
    answer = form(judge, source)
    assert answer.status_code == 202, answer.text
    assert source_of(judge, answer.json()["submission_id"]) == source


def test_a_zip_is_the_file_that_is_in_it(judge: Served) -> None:
    answer = form(judge, archive({"main.py": b"print(2)"}), priority="9", labels="gpu, big")
    assert source_of(judge, answer.json()["submission_id"]) == b"print(2)"
    (spec,) = judge.dispatch.jobs.values()
    assert (spec.priority, spec.labels) == (9, ["gpu", "big"])


def test_json_submits_what_text_allows(judge: Served) -> None:
    accepted = submit(judge, source="\0 \u00e9")
    assert source_of(judge, accepted["submission_id"]) == "\0 \u00e9".encode()


BAD: dict[str, tuple[Any, int, str, str | None]] = {
    "broken": (b"{", 400, "broken_json", None),
    "empty": (b"", 400, "broken_json", None),
    "an array": (b"[]", 422, "invalid", "body"),
    "a lone surrogate": (b'{"source": "\\udfff"}', 422, "invalid", "body"),
    "no problem": ({"language": 2, "source": "x"}, 422, "invalid", "problem_id"),
    "another problem": (BODY | {"problem_id": 2}, 404, "problem_not_found", None),
    "problem zero": (BODY | {"problem_id": 0}, 422, "invalid", "problem_id"),
    "a huge problem": (BODY | {"problem_id": 2**70}, 422, "invalid", "problem_id"),
    "a problem of text": (BODY | {"problem_id": "1"}, 422, "invalid", "problem_id"),
    "true": (BODY | {"problem_id": True}, 422, "invalid", "problem_id"),
    "another language": (BODY | {"language": 3}, 422, "invalid", "language"),
    "a negative language": (BODY | {"language": -1}, 422, "invalid", "language"),
    "no source": ({"problem_id": 1, "language": 2}, 422, "invalid", "source"),
    "an empty source": (BODY | {"source": ""}, 422, "invalid", "source"),
    "a source of bytes": (BODY | {"source": [1]}, 422, "invalid", "source"),
    "a large source": (BODY | {"source": "x" * (MAX_SOURCE + 1)}, 413, "too_large", "source"),
    "a priority": (BODY | {"priority": 10}, 422, "invalid", "priority"),
    "labels of numbers": (BODY | {"labels": [1]}, 422, "invalid", "labels[0]"),
    "a label with a line": (BODY | {"labels": ["a\n"]}, 422, "invalid", "labels[0]"),
    "many labels": (BODY | {"labels": ["a"] * 17}, 422, "invalid", "labels"),
    "another field": (BODY | {"sorce": ""}, 422, "invalid", "sorce"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_a_problem_document_and_changes_nothing(kept: Served, kind: str) -> None:
    body, status, code, field = BAD[kind]
    refused(kept("POST", "/submissions", body), status, code, field)
    assert kept("GET", "/submissions").json() == {"submissions": [], "next": None}
    assert kept.dispatch.jobs == {}


BAD_FORMS: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no number": (b"x", {"problem_id": "one"}, 422, "problem_id"),
    "other digits": (b"x", {"problem_id": "\u0661"}, 422, "problem_id"),
    "a long number": (b"x", {"problem_id": "9" * 20}, 422, "problem_id"),
    "a longer number": (b"x", {"problem_id": "9" * 21}, 413, "problem_id"),
    "another language": (b"x", {"language": "77"}, 422, "language"),
    "an empty source": (b"", {}, 422, "source"),
    "a large source": (b"x" * (MAX_SOURCE + 1), {}, 413, "source"),
    "zip-slip": (archive({"../main.py": b"x"}), {}, 422, "source"),
    "another name": (archive({"main.c": b"x"}), {}, 422, "source"),
    "two files": (archive({"main.py": b"x", "b.py": b"x"}), {}, 422, "source"),
    "an empty zip": (archive({}), {}, 422, "source"),
    "a broken zip": (b"PK\3\4" + b"x" * 100, {}, 422, "source"),
    "a bomb": (archive({"main.py": b"\0" * (MAX_SOURCE + 1)}), {}, 413, "source"),
    "a bad label": (b"x", {"labels": "a b"}, 422, "labels[0]"),
    "a priority": (b"x", {"priority": "-1"}, 422, "priority"),
    "another field": (b"x", {"lang": "1"}, 422, "lang"),
}


@pytest.mark.parametrize("kind", BAD_FORMS)
def test_a_bad_form_is_a_problem_document_and_changes_nothing(kept: Served, kind: str) -> None:
    source, fields, status, field = BAD_FORMS[kind]
    answer = form(kept, source, **fields)
    refused(answer, status, "invalid" if status == 422 else "too_large", field)
    assert kept("GET", "/submissions").json() == {"submissions": [], "next": None}
    assert kept.dispatch.jobs == {}


@pytest.mark.parametrize(("error", "status"), [(QueueFull(retry_after=1), 429), (StoreUnavailable(), 503)])
def test_a_refusal_of_the_dispatch_is_told_and_nothing_was_done(
    judge: Served, error: Any, status: int
) -> None:
    judge.dispatch.before = once("submit", error)
    refused(judge("POST", "/submissions", BODY), status, error.code)
    assert judge("GET", "/submissions").json()["submissions"] == []
    assert submit(judge)["job_id"] == "jb_1"


# --- Idempotency-Key --------------------------------------------------------------------------------


def keyed(api: Served, key: str, body: Any = None) -> httpx.Response:
    return api("POST", "/submissions", body or BODY, headers={"idempotency-key": key})


def test_the_first_answer_is_given_again_and_nothing_is_submitted_twice(judge: Served) -> None:
    first = keyed(judge, "k")
    finish(judge, first.json()["submission_id"], "AC", "AC")
    again = keyed(judge, "k")
    assert (again.status_code, again.content) == (202, first.content)
    assert len(judge.dispatch.jobs) == 1
    for other in ({"source": "x"}, {"problem_id": 2}):  # there is no problem 2
        refused(keyed(judge, "k", BODY | other), 422, "idempotency_key_reused", "Idempotency-Key")
    assert keyed(judge, "l").json()["job_id"] == "jb_2"


def test_it_survives_a_restart_and_lasts_a_day(judge: Served) -> None:
    first = keyed(judge, "k")
    judge.run(judge.app.close())
    judge.clock.advance(24 * 3600 - 1)
    assert keyed(judge, "k").content == first.content
    judge.clock.advance(1)
    assert keyed(judge, "k").content != first.content


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\u00e9"])
def test_a_key_has_1_to_255_printable_ascii_characters(kept: Served, key: str) -> None:
    headers = [(b"idempotency-key", key.encode())]
    answer = kept("POST", "/submissions", BODY, headers=headers)
    refused(answer, 422, "invalid")
    assert answer.json()["field"].lower().endswith("idempotency-key")


def test_a_form_with_another_boundary_is_the_same_submission(judge: Served) -> None:
    """Planted defect: comparing bodies byte for byte, though each repeat of a form has another boundary."""
    fields = {"problem_id": "1", "language": "2"}
    answers = [
        judge(
            "POST",
            "/submissions",
            files={"source": ("x", b"x")},
            data=fields,
            headers={"idempotency-key": "k"},
        )
        for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    assert answers[0].status_code == 202


# --- looking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("submission_id", ["x", "sb_x", "sb_" + "A" * 24, "%00", "%F0%9F%98%80", "x" * 5000])
def test_an_id_that_was_never_issued_is_404_without_a_look_up(
    kept: Served, submission_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Any:
        raise AssertionError

    assert kept.app.judge is not None
    monkeypatch.setattr(kept.app.judge._database, "read", never)
    monkeypatch.setattr(kept.app.judge._database, "write", never)
    path = f"/submissions/{submission_id}"
    for method, what in (("GET", path), ("GET", path + "?wait=1"), ("GET", path + "/events")):
        refused(kept(method, what), 404, "submission_not_found")
    refused(kept("POST", path + "/rejudge"), 404, "submission_not_found")
    refused(kept("GET", f"/submissions?after={submission_id[:60]}"), 404, "submission_not_found")


def test_submissions_come_in_pages_newest_first(judge: Served) -> None:
    put(judge, problem_id=2)
    mine = [submit(judge)["submission_id"] for _ in range(3)]
    submit(judge, problem_id=2)
    page = judge("GET", "/submissions?problem_id=1&limit=2").json()
    assert [one["submission_id"] for one in page["submissions"]] == mine[:0:-1]
    page = judge("GET", f"/submissions?problem_id=1&limit=2&after={page['next']}").json()
    assert ([one["submission_id"] for one in page["submissions"]], page["next"]) == (mine[:1], None)
    assert len(judge("GET", "/submissions").json()["submissions"]) == 4
    assert "tasks" not in page["submissions"][0]


def test_wait_answers_when_it_is_done(judge: Served) -> None:
    submission_id = submit(judge)["submission_id"]

    async def scenario() -> httpx.Response:
        assert judge.app.judge is not None
        asked = asyncio.ensure_future(judge.ask("GET", f"/submissions/{submission_id}?wait=30"))
        watches = judge.app.judge.watches
        await settled(lambda: len(watches))
        await judge.app.judge.project("jb_1", submission_id, 1, result(["AC", "AC"]))
        return await asked

    assert judge.run(scenario()).json()["verdict"] == "AC"
    assert judge("GET", f"/submissions/{submission_id}?wait=30").json()["verdict"] == "AC"


def test_wait_ends_with_its_time(judge: Served) -> None:
    submission_id = submit(judge)["submission_id"]
    assert judge("GET", f"/submissions/{submission_id}?wait=0.01").json()["status"] == "pending"
    for wrong in ("-1", "61", "x", "nan", "inf"):
        refused(judge("GET", f"/submissions/{submission_id}?wait={wrong}"), 422, "invalid", "wait")


def test_whoever_hangs_up_is_not_waited_for(judge: Served) -> None:
    """Planted defect: a wait that outlives its client by its whole time."""
    submission_id = submit(judge)["submission_id"]

    async def scenario() -> None:
        assert judge.app.judge is not None
        watches = judge.app.judge.watches
        for path, query in (
            (f"/submissions/{submission_id}", b"wait=60"),
            (f"/submissions/{submission_id}/events", b""),
        ):
            caller = Caller(judge, "GET", path, query=query)
            await settled(lambda: len(watches))
            caller.hang_up()
            await asyncio.wait_for(caller.task, 60)
            assert len(watches) == 0

    judge.run(scenario())


def test_a_stop_answers_those_who_wait(judge: Served) -> None:
    submission_id = submit(judge)["submission_id"]

    async def scenario() -> list[int | None]:
        assert judge.app.judge is not None
        watches = judge.app.judge.watches
        callers = [
            Caller(judge, "GET", f"/submissions/{submission_id}", query=b"wait=60"),
            Caller(judge, "GET", f"/submissions/{submission_id}/events"),
        ]
        await settled(lambda: len(watches) == 2)
        judge.app.release_waiters()
        await asyncio.wait_for(asyncio.gather(*(caller.task for caller in callers)), 60)
        return [caller.status for caller in callers]

    assert judge.run(scenario()) == [200, 200]


# --- events -----------------------------------------------------------------------------------------


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(id, data) of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            assert fields["event"] == "submission"
            found.append((fields["id"], json.loads(fields["data"])))
    return found


def test_events_tell_every_change_and_end_when_it_is_done(judge: Served) -> None:
    submission_id = submit(judge)["submission_id"]

    async def scenario() -> httpx.Response:
        served = judge.app.judge
        assert served is not None
        caller = Caller(judge, "GET", f"/submissions/{submission_id}/events")
        await settled(lambda: b"id: 1.0\n" in caller.body)
        await served.started(submission_id, 1)
        await settled(lambda: b"id: 1.1\n" in caller.body)
        await served.project("jb_1", submission_id, 1, result(["AC", "WA"]))
        await caller.task
        return httpx.Response(caller.status or 0, content=caller.body)

    answer = judge.run(scenario())
    told = events(answer.text)
    assert [(one, data["status"]) for one, data in told] == [
        ("1.0", "pending"),
        ("1.1", "judging"),
        ("1.2", "done"),
    ]
    assert told[-1][1] == judge("GET", f"/submissions/{submission_id}").json()


def test_events_go_on_after_the_last_that_was_seen(judge: Served) -> None:
    """Planted defect: telling from the beginning whenever a connection broke."""
    submission_id = submit(judge)["submission_id"]
    path = f"/submissions/{submission_id}/events"
    finish(judge, submission_id, "AC", "AC")
    answer = judge("GET", path, headers={"last-event-id": "1.0"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert [one for one, _ in events(answer.text)] == ["1.2"]
    assert judge("GET", path, headers={"last-event-id": "1.2"}).status_code == 204
    assert [one for one, _ in events(judge("GET", path, headers={"last-event-id": "x~"}).text)] == ["1.2"]
    judge("POST", f"/submissions/{submission_id}/rejudge")
    answer = judge("GET", path + "?wait=0", headers={"last-event-id": "1.2"})
    assert [(one, data["status"]) for one, data in events(answer.text)] == [("2.0", "pending")]
    assert events(judge("GET", path + "?wait=0", headers={"last-event-id": "2.0"}).text) == []


def test_silence_is_broken_by_a_comment(judge: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.server.following.KEEP_ALIVE", 0.01)
    submission_id = submit(judge)["submission_id"]

    async def scenario() -> bytes:
        caller = Caller(judge, "GET", f"/submissions/{submission_id}/events", query=b"wait=60")
        await settled(lambda: caller.body.count(b": still here") >= 2)
        caller.hang_up()
        await asyncio.wait_for(caller.task, 60)
        return caller.body

    said = judge.run(scenario()).decode()
    assert [one for one, _ in events(said)] == ["1.0"]


# --- again ------------------------------------------------------------------------------------------


def test_a_rejudge_is_202_and_the_old_result_is_too_late(judge: Served) -> None:
    submission_id = submit(judge)["submission_id"]
    answer = judge("POST", f"/submissions/{submission_id}/rejudge")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["generation"], answer.json()["job_id"]) == (
        "pending",
        2,
        "jb_2",
    )
    assert judge.dispatch.superseded == ["jb_1"]
    finish(judge, submission_id, "AC", "AC", generation=1)
    assert judge("GET", f"/submissions/{submission_id}").json()["status"] == "pending"


def test_a_problems_submissions_are_judged_again(judge: Served) -> None:
    several = [submit(judge)["submission_id"] for _ in range(3)]
    answer = judge("POST", "/problems/1/rejudge")
    assert (answer.status_code, answer.json()) == (202, {"submissions": 3})
    assert {judge("GET", f"/submissions/{one}").json()["generation"] for one in several} == {2}


def test_a_submission_of_a_deleted_problem_is_not_judged_again(judge: Served) -> None:
    submission_id = submit(judge)["submission_id"]
    judge("DELETE", "/problems/1")
    shown = judge("GET", f"/submissions/{submission_id}").json()
    assert (shown["status"], shown["verdict"], shown["reason"]) == ("done", "JE", "The problem was deleted.")
    refused(judge("POST", f"/submissions/{submission_id}/rejudge"), 404, "problem_not_found")


def test_scopes_tell_who_may_what(judge: Served) -> None:
    submission_id = submit(judge)["submission_id"]
    sender, reader = with_key(judge, "send:windlass.judge"), with_key(judge, "receive:windlass.*")
    path = f"/submissions/{submission_id}"
    assert judge("POST", "/submissions", BODY, headers=sender).status_code == 202
    refused(judge("POST", "/submissions", BODY, headers=reader), 403, "forbidden")
    refused(judge("POST", "/submissions", BODY), 401, "unauthenticated")
    for what in (path, "/submissions", path + "/events?wait=0"):
        assert judge("GET", what, headers=reader).status_code == 200
        refused(judge("GET", what, headers=sender), 403, "forbidden")
    for headers in (sender, reader):
        refused(judge("POST", path + "/rejudge", headers=headers), 403, "forbidden")


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with Served(tmp_path / "data") as first:
        put(first)
        submission_id = submit(first)["submission_id"]
        finish(first, submission_id, "AC", "AC")
        before = first("GET", f"/submissions/{submission_id}").json()
    with Served(tmp_path / "data") as second:
        assert second("GET", f"/submissions/{submission_id}").json() == before
        assert second("GET", "/problems/1").json()["title"] == "A+B"
