"""Problems over HTTP: put, looked at, read by runners, deleted; and whatever a stranger may send instead."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import httpx
import pytest

from tests.contract.http.served import Caller, Served, refused, settled
from tests.judging import archive, meta_json, zipped
from windlass.server.auth import new_key


def put(
    api: Served, data: bytes | None = None, wanted: Any = None, problem_id: object = 1, **more: Any
) -> httpx.Response:
    """Put a problem with its test data."""
    text = wanted if isinstance(wanted, bytes) else json.dumps(wanted or meta_json()).encode()
    files = {"meta": (None, text), "testdata": ("data.zip", zipped() if data is None else data)}
    return api("PUT", f"/problems/{problem_id}", files=files, **more)


def test_a_problem_is_put_looked_at_and_put_again(api: Served) -> None:
    answer = put(api, wanted={**meta_json(), "statement": "Add them.", "checker": "tokens"})
    assert answer.status_code == 201, answer.text
    problem = answer.json()
    assert (problem["problem_id"], problem["title"], problem["version"]) == (1, "A+B", 1)
    assert problem["checksum"] == sha256(zipped()).hexdigest()
    assert (problem["testdata_size"], problem["max_score"]) == (len(zipped()), 10)
    assert api("GET", "/problems/1").json() == problem
    again = put(api, zipped((1,)), meta_json((1,)))
    assert (again.status_code, again.json()["version"]) == (200, 2)
    assert api("GET", "/problems/1/checksum").json() == {"checksum": sha256(zipped((1,))).hexdigest()}


def test_meta_comes_back_as_it_was_put(api: Served) -> None:
    wanted = {**meta_json(), "statement": "\u00e9\u0000", "checker": "floats:1e-9", "interactor": ""}
    wanted["tasks"][0]["scoring"] = "partial"
    put(api, wanted=wanted)
    assert api("GET", "/problems/1/meta").json() == wanted


def test_as_json_the_meta_changes_alone(api: Served) -> None:
    put(api)
    answer = api("PUT", "/problems/1", {**meta_json(), "title": "Other"})
    assert (answer.status_code, answer.json()["title"]) == (200, "Other")
    assert api("GET", "/problems/1/testdata").content == zipped()
    refused(api("PUT", "/problems/1", meta_json((3,))), 422, "invalid", "tasks")
    refused(api("PUT", "/problems/2", meta_json()), 422, "invalid", "testdata")


def test_test_data_is_a_file_with_an_etag(api: Served) -> None:
    put(api)
    answer = api("GET", "/problems/1/testdata")
    assert (answer.content, answer.headers["content-type"]) == (zipped(), "application/zip")
    assert answer.headers["content-length"] == str(len(zipped()))
    assert answer.headers["cache-control"] == "no-store"
    etag = answer.headers["etag"]
    assert etag == f'"{sha256(zipped()).hexdigest()}"'
    same = api("GET", "/problems/1/testdata", headers={"if-none-match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    put(api, zipped((1,)), meta_json((1,)))
    assert api("GET", "/problems/1/testdata", headers={"if-none-match": etag}).status_code == 200


def test_problems_come_in_pages(api: Served) -> None:
    assert api("GET", "/problems").json() == {"problems": [], "next": None}
    for number in (7, 2, 5):
        put(api, problem_id=number)
    page = api("GET", "/problems?limit=2").json()
    assert ([one["problem_id"] for one in page["problems"]], page["next"]) == ([2, 5], 5)
    page = api("GET", "/problems?limit=2&after=5").json()
    assert ([one["problem_id"] for one in page["problems"]], page["next"]) == ([7], None)


def test_a_deleted_problem_is_gone(api: Served) -> None:
    put(api)
    assert api("DELETE", "/problems/1").status_code == 204
    for path in ("", "/meta", "/testdata", "/checksum"):
        refused(api("GET", "/problems/1" + path), 404, "problem_not_found")
    refused(api("DELETE", "/problems/1"), 404, "problem_not_found")
    refused(api("POST", "/problems/1/rejudge"), 404, "problem_not_found")


@pytest.mark.parametrize(
    "problem_id", ["0", "-1", "01", "1.0", "x", "2147483648", "9" * 400, "%F0%9F%98%80", "\u0661"]
)
def test_what_is_no_id_is_404_to_look_at_and_422_to_put(same: Served, problem_id: str) -> None:
    """Planted defect: int() of whatever comes, which takes other scripts' digits and falls over the rest."""
    for path in ("", "/meta", "/testdata", "/checksum"):
        refused(same("GET", f"/problems/{problem_id}{path}"), 404, "problem_not_found")
    refused(put(same, problem_id=problem_id), 422, "invalid", "problem_id")
    refused(same("PUT", f"/problems/{problem_id}", meta_json()), 422, "invalid", "problem_id")


# --- bad input --------------------------------------------------------------------------------------

TASK = meta_json()["tasks"][0]
BAD: dict[str, tuple[Any, int, str | None]] = {
    "broken JSON": (b"{", 400, None),
    "not UTF-8": (b'{"title": "\xff"}', 400, None),
    "a raw NUL": (b'{"title": "\0"}', 422, "body"),
    "a lone surrogate": (b'{"title": "\\ud800", "tasks": []}', 422, "body"),
    "nested too deep": (b"[" * 5000 + b"]" * 5000, 422, "body"),
    "an array": (b"[]", 422, "body"),
    "no title": ({"tasks": [TASK]}, 422, "title"),
    "an empty title": ({"title": "", "tasks": [TASK]}, 422, "title"),
    "a long title": ({"title": "x" * 201, "tasks": [TASK]}, 422, "title"),
    "a misspelt field": ({**meta_json(), "checkr": ""}, 422, "checkr"),
    "another checker": ({**meta_json(), "checker": "no"}, 422, "checker"),
    "no tasks": ({"title": "x", "tasks": []}, 422, "tasks"),
    "too many tasks": ({"title": "x", "tasks": [TASK] * 100}, 422, "tasks"),
    "no cases": ({"title": "x", "tasks": [{**TASK, "case_count": 0}]}, 422, "tasks[0].case_count"),
    "a hundred cases": ({"title": "x", "tasks": [{**TASK, "case_count": 100}]}, 422, "tasks[0].case_count"),
    "half a case": ({"title": "x", "tasks": [{**TASK, "case_count": 1.5}]}, 422, "tasks[0].case_count"),
    "no time": ({"title": "x", "tasks": [{**TASK, "time_limit": 0}]}, 422, "tasks[0].time_limit"),
    "much time": ({"title": "x", "tasks": [{**TASK, "time_limit": 10**30}]}, 422, "tasks[0].time_limit"),
    "no memory": ({"title": "x", "tasks": [{**TASK, "memory_limit": -1}]}, 422, "tasks[0].memory_limit"),
    "a text": ({"title": "x", "tasks": [{**TASK, "score": "10"}]}, 422, "tasks[0].score"),
    "infinite": (b'{"title": "x", "tasks": [{"score": 1e999}]}', 422, None),
    "another scoring": ({"title": "x", "tasks": [{**TASK, "scoring": "most"}]}, 422, "tasks[0].scoring"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_meta_is_a_problem_document_in_a_form_and_as_json(same: Served, kind: str) -> None:
    wanted, status, field = BAD[kind]
    body = wanted if isinstance(wanted, bytes) else json.dumps(wanted).encode()
    code = "invalid" if status == 422 else "broken_json"
    refused(put(same, wanted=body), status, code, field)
    refused(same("PUT", "/problems/1", body), status, code, field)
    assert same("GET", "/problems").json()["problems"] == []


@pytest.mark.parametrize(
    "data",
    [
        b"", b"PK", b"x" * 100_000, archive({}), zipped((1,)), zipped((3,)), zipped((2,), readme_txt=b"x"),
        archive({"../0101.in": b"", "../0101.out": b""}), zipped()[:-1],
    ],
)  # fmt: skip
def test_hostile_test_data_is_422_and_leaves_nothing(same: Served, data: bytes) -> None:
    refused(put(same, data), 422, "invalid", "testdata")
    assert same("GET", "/problems").json()["problems"] == []
    assert same.app.judge is not None
    assert same.app.judge.files.all() == []


BOUNDARY = b"--b\r\n"
FORMS: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no form": (b"{}", 400),
    "only an end": (b"--b--\r\n", 422),
    "cut off": (BOUNDARY + b'content-disposition: form-data; name="meta"\r\n\r\n{', 400),
    "no name": (BOUNDARY + b"content-disposition: form-data\r\n\r\nx\r\n--b--\r\n", 400),
    "no headers": (BOUNDARY + b"\r\nx\r\n--b--\r\n", 400),
    "another part": (BOUNDARY + b'content-disposition: form-data; name="x"\r\n\r\nx\r\n--b--\r\n', 422),
    "a part twice": (
        2 * (BOUNDARY + b'content-disposition: form-data; name="meta"\r\n\r\nx\r\n') + b"--b--\r\n",
        422,
    ),
    "no test data": (
        BOUNDARY
        + b'content-disposition: form-data; name="meta"\r\n\r\n'
        + json.dumps(meta_json()).encode()
        + b"\r\n--b--\r\n",
        422,
    ),
    "a long header": (BOUNDARY + b"x: " + b"y" * 10_000 + b"\r\n\r\nx\r\n--b--\r\n", 400),
    "a name of bytes": (
        BOUNDARY + b'content-disposition: form-data; name="\xff\0"\r\n\r\nx\r\n--b--\r\n',
        422,
    ),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_broken_form_is_a_problem_document(same: Served, kind: str) -> None:
    body, status = FORMS[kind]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = same("PUT", "/problems/1", body, headers=headers)
    refused(answer, status, "invalid" if status == 422 else "bad_request")


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=", "Multipart/Form-Data;;"]
)
def test_a_form_without_a_boundary_is_400(same: Served, content_type: str) -> None:
    refused(same("PUT", "/problems/1", b"x", headers={"content-type": content_type}), 400, "bad_request")


def test_a_form_anywhere_else_is_no_json(same: Served) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    refused(same("POST", "/queues", b"--b--\r\n", headers=headers), 400, "broken_json")


# --- large bodies -----------------------------------------------------------------------------------


def test_an_archive_that_is_too_large_is_413_while_it_arrives(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: looking at the size when all of it is on the disk."""
    monkeypatch.setattr("windlass.server.judge_api.MAX_TESTDATA", 100_000)
    with Served(api.app.settings.data_dir / "other", road=api.road) as small:
        answer = put(small, b"x" * 100_001)
        refused(answer, 413, "too_large", "testdata")
        assert put(small).status_code == 201


def test_a_large_archive_goes_to_the_disk_and_not_to_memory(api: Served) -> None:
    """Planted defect: reading the body first, as other routes do."""
    sizes: list[int] = []
    written = 0

    async def scenario() -> int | None:
        nonlocal written
        head = b'--b\r\ncontent-disposition: form-data; name="testdata"; filename="x"\r\n\r\n'
        chunks = [head, *[b"\0" * 65536] * 200]
        form = (b"content-type", b"multipart/form-data; boundary=b")
        caller = Caller(api, "PUT", "/problems/1", headers=[form], chunks=chunks)
        folder = api.app.settings.data_dir / "files" / "incoming"
        await settled(lambda: caller.status is None and not caller.chunks)
        sizes.extend(file.stat().st_size for file in folder.iterdir())
        caller.hang_up()
        await caller.task
        written = len(list(folder.iterdir()))
        return caller.status

    assert api.run(scenario()) == 400
    assert sizes
    assert sizes[0] > 10_000_000
    assert written == 0


# --- who may ----------------------------------------------------------------------------------------


def with_key(api: Served, *scopes: str) -> dict[str, str]:
    key, text = new_key("k", scopes, 0)
    api("GET", "/status")
    api.run(api.app.store.add_key(key))
    api.app.door.load(api.app.store.keys())
    return {"authorization": f"Bearer {text}"}


def test_scopes_tell_who_may_what(api: Served) -> None:
    """Planted defect: expected answers for whoever may submit."""
    put(api)
    student = with_key(api, "send:windlass.judge", "receive:windlass.judge")
    teacher = with_key(api, "admin:windlass.judge")
    other = with_key(api, "send:orders")
    for path in ("", "/meta", "/testdata", "/checksum"):
        assert api("GET", "/problems/1" + path, headers=teacher).status_code == 200
        expected = 200 if path == "" else 403
        assert api("GET", "/problems/1" + path, headers=student).status_code == expected
        refused(api("GET", "/problems/1" + path, headers=other), 403, "forbidden")
        refused(api("GET", "/problems/1" + path), 401, "unauthenticated")
    for headers in (student, other):
        refused(put(api, headers=headers), 403, "forbidden")
        refused(api("DELETE", "/problems/1", headers=headers), 403, "forbidden")
        refused(api("POST", "/problems/1/rejudge", headers=headers), 403, "forbidden")
    refused(put(api), 401, "unauthenticated")


def test_a_runner_reads_three_routes_and_no_others(api: Served) -> None:
    """Planted defect: a runner's token that opens the whole server."""
    put(api)
    with_key(api, "all")
    _, token = api.run(api.app.dispatch.runners.register("let me in", "r", [], []))
    good, bad = {"authorization": f"Bearer {token}"}, {"authorization": "Bearer rk_bad"}
    for path in ("/meta", "/testdata", "/checksum"):
        assert api("GET", "/problems/1" + path, headers=good).status_code == 200
        refused(api("GET", "/problems/2" + path, headers=good), 404, "problem_not_found")
        refused(api("GET", "/problems/1" + path, headers=bad), 401, "unauthenticated")
        refused(api("GET", "/problems/1" + path), 401, "unauthenticated")
    for path in ("/problems/1", "/problems", "/submissions", "/queues"):
        refused(api("GET", path, headers=good), 401, "unauthenticated")
    refused(api("DELETE", "/problems/1", headers=good), 401, "unauthenticated")
    page = {**good, "origin": "http://evil.example"}
    refused(api("GET", "/problems/1/testdata", headers=page), 403, "foreign_origin")
