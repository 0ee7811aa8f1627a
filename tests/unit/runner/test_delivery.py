"""Handing over: what is tried again, what is not, and how often. Invariant 4 of the runner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.runner.server import DROP, HANG, LOSE, SECRET, Fault, Server
from tests.unit.runner.times import jumping
from windlass.runner.delivery import Delivery, End, Handed
from windlass.runner.link import Link
from windlass.runner.registration import Registration


def hand_over(
    server: Server, *doing: Callable[[Delivery], Coroutine[object, object, Handed]]
) -> list[Handed]:
    async def scenario() -> list[Handed]:
        link = Link(server.url, httpx_transport=server.transport)
        registration = Registration(link, None, name="r", token=SECRET)
        await registration.identity()
        server.leased.setdefault("jb_1", ("rn_1", {"job_id": "jb_1"}))
        delivery = Delivery(link, registration, refill=lambda _: 0, arrived=lambda _: False)
        return [await each(delivery) for each in doing]

    return jumping(scenario())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "result.json"
    path.write_bytes(b'{"tasks": [[{"status": "AC"}]]}')
    return path


def pauses(server: Server, route: str) -> list[int]:
    moments = [request.at for request in server.asked(route)]
    return [round(later - earlier) for earlier, later in pairwise(moments)]


def test_a_result_is_brought_as_it_is(file: Path) -> None:
    server = Server()
    assert hand_over(server, lambda d: d.result("jb_1", file)) == [Handed(End.TAKEN)]
    [request] = server.asked("complete")
    assert (request.path, request.body) == ("/runners/rn_1/jobs/jb_1/complete", file.read_bytes())
    assert request.token == "rk_1"


@pytest.mark.parametrize("fault", [DROP, LOSE, 500, 502, 503, 200, 202, 302, 429, 408])
def test_it_is_tried_again_on_what_may_pass(file: Path, fault: Fault) -> None:
    """Planted defect: any 2xx taken for a yes; a lost answer taken for the end."""
    server = Server()
    server.fail("complete", *[fault] * 5)
    assert hand_over(server, lambda d: d.result("jb_1", file)) == [Handed(End.TAKEN)]
    assert pauses(server, "complete") == [1, 2, 4, 8, 16]
    assert server.results == {"jb_1": {"tasks": [[{"status": "AC"}]]}}


@pytest.mark.parametrize("fault", [DROP, 500, 202])
def test_it_ends_after_five_more_tries(file: Path, fault: Fault) -> None:
    server = Server()
    server.fail("complete", *[fault] * 10)
    [handed] = hand_over(server, lambda d: d.result("jb_1", file))
    assert (handed.end, len(server.asked("complete"))) == (End.FAILED, 6)


@pytest.mark.parametrize("fault", [404, 409])
def test_what_is_no_longer_ours_ends_quietly(file: Path, fault: int) -> None:
    """Planted defect: a superseded result that is brought again and again."""
    server = Server()
    server.fail("complete", fault)
    server.fail("abort", fault)
    handed = hand_over(server, lambda d: d.result("jb_1", file), lambda d: d.abort("jb_1", "x"))
    assert [each.end for each in handed] == [End.NOT_OURS] * 2
    assert (len(server.asked("complete")), len(server.asked("abort"))) == (1, 1)


@pytest.mark.parametrize("fault", [400, 413, 422, 403])
def test_a_refusal_is_one(file: Path, fault: int) -> None:
    """Planted defect: a malformed result that is sent until the retries are used up."""
    server = Server()
    server.fail("complete", (fault, b'{"detail": "tasks is no list"}'))
    [handed] = hand_over(server, lambda d: d.result("jb_1", file))
    assert handed.end is End.REFUSED
    assert "tasks is no list" in handed.why
    assert len(server.asked("complete")) == 1


def test_401_twice_registers_anew_and_the_result_is_brought_by_the_new_one(file: Path) -> None:
    server = Server()
    server.fail("complete", 401, 401)
    [handed] = hand_over(server, lambda d: d.result("jb_1", file))
    assert handed.end is End.NOT_OURS  # the lease is the old one's
    assert [request.token for request in server.asked("complete")] == ["rk_1", "rk_1", "rk_2"]


@pytest.mark.parametrize("fault", [DROP, LOSE, 500, 200, 204, 401])
def test_an_abort_is_tried_again_until_it_is_accepted_by_202(fault: Fault) -> None:
    """Planted defect: 204 taken for the abort's yes."""
    server = Server()
    server.fail("abort", fault)
    [handed] = hand_over(server, lambda d: d.abort("jb_1", "no \ud800 compiler"))
    assert handed.end in (End.TAKEN, End.NOT_OURS)  # after LOSE it was done already
    assert server.aborts == [("jb_1", "no ? compiler")]


def test_a_reason_has_an_end() -> None:
    server = Server()
    hand_over(server, lambda d: d.abort("jb_1", "x" * 100_000))
    assert len(server.aborts[0][1]) == 1000


def test_a_hanging_server_is_given_up(file: Path) -> None:
    server = Server()
    server.fail("complete", HANG)
    server.fail("abort", HANG)

    async def timed(delivery: Delivery) -> Handed:
        async with asyncio.timeout(610):
            return await delivery.result("jb_1", file)

    [handed] = hand_over(server, timed)
    assert handed.end is End.TAKEN


def test_a_job_id_stays_one_part_of_the_path(file: Path) -> None:
    """Planted defect: an id with a slash or a question mark in it that addresses something else."""
    server = Server()
    hand_over(server, lambda d: d.result("../x?y#z", file))
    assert [request.path for request in server.requests[1:]] == ["/runners/rn_1/jobs/..%2Fx%3Fy%23z/complete"]
