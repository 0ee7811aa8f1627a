"""Every error of the tree as a problem document."""

from __future__ import annotations

import json

import pytest

from windlass.errors import Invalid, QueueFull, RequestTimeout, Unauthenticated, WindlassError, tree
from windlass.server import problems


@pytest.mark.parametrize("kind", tree())
def test_every_error_is_a_problem(kind: type[WindlassError]) -> None:
    status, headers, body = problems.response(kind())
    told = dict(headers)
    assert told[b"content-type"] == b"application/problem+json"
    assert int(told[b"content-length"]) == len(body)
    assert told[b"cache-control"] == b"no-store"
    problem = json.loads(body)
    assert problem["status"] == status == kind.status
    assert 400 <= status <= 599
    assert problem["type"] == f"urn:windlass:problem:{kind.code}"
    assert problem["title"]
    assert problem["detail"]
    assert "field" not in problem


def test_a_field_and_the_headers_that_some_bring() -> None:
    assert json.loads(problems.response(Invalid("no", field="a.b"))[2])["field"] == "a.b"
    assert (b"retry-after", b"3") in problems.response(QueueFull("full", retry_after=3))[1]
    assert (b"connection", b"close") in problems.response(RequestTimeout())[1]
    assert any(name == b"www-authenticate" for name, _ in problems.response(Unauthenticated())[1])
