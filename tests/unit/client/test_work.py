"""What the client says of jobs, problems and submissions, and how it follows their events."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx
import pytest
from python_multipart.multipart import MultipartParser, parse_options_header

from tests.unit.client.script import SENT_AT, Script, ok, problem
from windlass.client import Retry, errors
from windlass.client.events import ServerEvent, read_events

JOB = {
    "job_id": "jb_1", "state": "running", "labels": [], "priority": 0, "attempts": 1, "events": [],
    "runner": "rn_1", "submission_id": None, "command": {"argv": ["true"]}, "result": None,
}  # fmt: skip
DONE = JOB | {"state": "done", "runner": None, "command": None}
SUBMISSION = {
    "submission_id": "sb_1", "job_id": "jb_1", "problem_id": 1, "language": 2, "status": "pending",
    "generation": 1, "verdict": None, "score": None, "max_score": 10, "submitted_at": SENT_AT,
    "judged_at": None, "reason": None, "attempts": None, "tasks": [],
}  # fmt: skip
PROBLEM = {
    "problem_id": 1, "title": "A+B", "max_score": 10, "version": 1, "updated_at": SENT_AT,
    "statement": "Add.", "checker": "", "interactor": "", "tasks": [], "checksum": "00",
    "testdata_size": 3, "created_at": SENT_AT,
}  # fmt: skip


def parts(request: httpx.Request) -> dict[str, bytes]:
    """The parts of a form, as another program reads it."""
    _, options = parse_options_header(request.headers["content-type"])
    found: dict[str, bytes] = {}
    state = {"header": b"", "name": ""}

    def value(data: bytes, start: int, end: int) -> None:
        _, said = parse_options_header(data[start:end])
        if b"name" in said:
            state["name"] = said[b"name"].decode()

    def body(data: bytes, start: int, end: int) -> None:
        found[str(state["name"])] = found.get(str(state["name"]), b"") + data[start:end]

    MultipartParser(options[b"boundary"], {"on_header_value": value, "on_part_data": body}).write(
        request.content
    )
    return found


def test_a_problem_goes_out_as_a_form_and_tells_how_far_it_is() -> None:
    script = Script(ok(PROBLEM, 201))
    data = b"PK\r\n--" * 50_000
    sent: list[int] = []
    with script.client() as client:
        made = client.judge.create_problem({"title": "A+B"}, data, sent=sent.append)
    [request] = script.requests
    assert parts(request) == {"meta": b'{"title":"A+B"}', "testdata": data}
    assert request.headers["content-length"] == str(len(request.content))
    assert (sum(sent), len(sent) > 1, made.problem_id) == (len(data), True, 1)


def test_creating_a_problem_is_never_repeated_and_putting_one_is() -> None:
    """Planted defect: a repeat after a lost answer, and there are two problems."""
    script = Script(httpx.ReadError("gone"))
    with script.client() as client, pytest.raises(errors.AnswerLost):
        client.judge.create_problem({}, b"x")
    script = Script(httpx.ReadError("gone"), ok(PROBLEM))
    with script.client() as client:
        client.judge.put_problem(1, {}, b"x")
    assert script.asked == ["PUT /problems/1"] * 2
    assert parts(script.requests[0]) == parts(script.requests[1])


def test_submitting_is_repeated_under_one_key() -> None:
    script = Script(httpx.ReadError("gone"), ok({"submission_id": "sb_1", "job_id": "jb_1"}, 202))
    source = b"\x00\xff any bytes"
    with script.client() as client:
        assert client.judge.submit(3, 2, source, labels=["a", "b"]).submission_id == "sb_1"
    first, second = script.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert parts(second) == {
        "problem_id": b"3", "language": b"2", "priority": b"0", "labels": b"a,b", "source": source,
    }  # fmt: skip


def test_cancelling_again_after_a_lost_answer_is_done() -> None:
    script = Script(httpx.ReadError("gone"), problem(410, "message_gone"))
    with script.client() as client:
        client.jobs.cancel("jb_1")
    with Script(problem(410, "message_gone")).client() as client, pytest.raises(errors.Gone):
        client.jobs.cancel("jb_1")


def test_pages_are_followed() -> None:
    summary = {name: PROBLEM[name] for name in ("problem_id", "title", "max_score", "version", "updated_at")}
    script = Script(
        ok({"problems": [summary], "next": 1}), ok({"problems": [summary | {"problem_id": 2}], "next": None})
    )
    with script.client() as client:
        assert [found.problem_id for found in client.judge.problems()] == [1, 2]
    assert script.asked[1] == "GET /problems?limit=1000&after=1"
    pages = [{"submissions": [SUBMISSION] * 2, "next": "sb_2"}, {"submissions": [SUBMISSION], "next": "sb_3"}]
    script = Script(*map(ok, pages))
    with script.client() as client:
        assert len(client.judge.submissions(7, most=3)) == 3
    assert script.asked == [
        "GET /submissions?problem_id=7&limit=3",
        "GET /submissions?problem_id=7&limit=1&after=sb_2",
    ]


# --- events -----------------------------------------------------------------------------------------


def stream(*chunks: bytes, broken: bool = False) -> httpx.Response:
    def content() -> Iterator[bytes]:
        yield from chunks
        if broken:
            raise httpx.ReadError("gone")

    return httpx.Response(200, content=content())


def test_lines_become_events() -> None:
    text = ': still here\n\nevent: a\nid: 7\ndata: {"x": 1}\n\ndata:[]\n\nid: 9\n\nevent: b\ndata: 2\n'
    found = list(read_events(text.split("\n")[:-1]))
    assert found == [ServerEvent("a", {"x": 1}, "7"), ServerEvent("message", [])]
    with pytest.raises(errors.BadAnswer):
        list(read_events(["data: {", ""]))


def test_events_go_on_behind_the_last_after_a_broken_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Planted defect: a new stream that begins at the beginning, so that output is printed twice."""
    script = Script(
        stream(b"event: output\nid: 1\ndata: ", '{"text": "a\u2028"}\n\n'.encode(), b"data: 1", broken=True),
        httpx.ConnectError("no"),
        stream(b'event: output\nid: 2\ndata: {"text": "b"}\n\n'),
        ok(DONE),
    )
    with script.client() as client, caplog.at_level(logging.INFO):
        texts = [event.data["text"] for event in client.jobs.events("jb_1")]
    assert texts == ["a\u2028", "b"]
    assert [request.headers.get("last-event-id") for request in script.requests[:3]] == [None, "1", "1"]
    assert script.asked[3] == "GET /jobs/jb_1"


def test_a_stream_that_ends_before_the_job_is_asked_for_again() -> None:
    script = Script(stream(b": still here\n\n"), ok(JOB), stream(), ok(DONE))
    with script.client() as client:
        assert list(client.jobs.events("jb_1")) == []
    assert script.asked[::2] == ["GET /jobs/jb_1/events"] * 2


def test_events_are_not_waited_for_for_ever() -> None:
    script = Script(*[httpx.ConnectError("no")] * 20)
    with script.client(Retry(limit=2)) as client, pytest.raises(errors.Unreachable):
        list(client.judge.events("sb_1"))
    assert sum(script.pauses) < 3


def test_a_refused_stream_is_the_error_that_it_is() -> None:
    script = Script(problem(404, "submission_not_found", "There is no such submission"))
    with script.client() as client, pytest.raises(errors.NotFound, match="no such submission"):
        list(client.judge.events("sb_1"))


def test_an_id_that_would_change_the_path_is_not_sent() -> None:
    with Script().client() as client, pytest.raises(errors.NotSent):
        client.jobs.show("..")
    script = Script(ok(JOB))
    with script.client() as client:
        client.jobs.show("a/b")
    assert script.asked == ["GET /jobs/a%2Fb"]
