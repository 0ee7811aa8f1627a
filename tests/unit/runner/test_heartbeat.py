"""Heartbeats: their cadence, what they say, and what comes of the answer: invariant 1 of the runner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from tests.unit.runner.server import DROP, HANG, LOSE, SECRET, Fault, Server
from tests.unit.runner.times import jumping
from windlass.errors import RegistrationRefused
from windlass.runner.heartbeat import Heartbeat
from windlass.runner.link import Link
from windlass.runner.registration import Registration


def beat(
    server: Server,
    seconds: float,
    held: Callable[[], list[str]] = list,
    stop: Callable[[str, str, float], None] = lambda _id, _why, _at: None,
    early: float | None = None,
) -> list[int]:
    """When heartbeats came within so many seconds."""

    async def scenario() -> list[int]:
        link = Link(server.url, httpx_transport=server.transport)
        heartbeat = Heartbeat(link, Registration(link, None, name="r", token=SECRET), held, stop)
        began = asyncio.get_running_loop().time()
        if early is not None:
            asyncio.get_running_loop().call_later(early, heartbeat.soon)
        try:
            async with asyncio.timeout(seconds):
                await heartbeat.run()
        except TimeoutError:
            pass
        return [round(request.at - began) for request in server.asked("heartbeat")]

    return jumping(scenario())


@pytest.mark.parametrize("delay", [0, 6, 9.5])
def test_the_cadence_subtracts_the_time_of_the_request(delay: float) -> None:
    """Planted defect: the interval is slept after each answer, so that slow answers stretch it."""
    server = Server(heartbeat=15, delays={"heartbeat": delay})
    assert beat(server, 50) == [0, 15, 30, 45]


@pytest.mark.parametrize("fault", [DROP, LOSE, 500, 503, 200, 202, 302, 404, (200, b"{}")])
def test_a_failed_one_is_tried_again_after_a_second(fault: Fault) -> None:
    """Planted defect: any 2xx taken for success, or the next try only after an interval."""
    server = Server(heartbeat=15)
    server.fail("heartbeat", fault, fault)
    assert beat(server, 20) == [0, 1, 2, 17]


def test_a_hanging_one_takes_ten_seconds_and_the_next_tries_five() -> None:
    """Planted defect: one time-out for all: three such heartbeats would cost the leases."""
    server = Server(heartbeat=15)
    server.fail("heartbeat", HANG, HANG, HANG)
    assert beat(server, 30) == [0, 10 + 1, 10 + 1 + 5 + 1, 10 + 1 + 5 + 1 + 5 + 1]


def test_it_names_the_jobs_held_at_that_moment() -> None:
    server, jobs = Server(heartbeat=1), iter([[], ["jb_1"], ["jb_1", "jb_2"], []])
    beat(server, 3.5, held=lambda: next(jobs))
    assert [request.json for request in server.asked("heartbeat")] == [
        {"active_job_ids": ids} for ids in ([], ["jb_1"], ["jb_1", "jb_2"], [])
    ]


def test_a_fault_of_its_own_does_not_end_it() -> None:
    """Invariant 6. Planted defect: an exception in the making of a heartbeat ends the loop."""
    server, faults = Server(heartbeat=10), iter([ZeroDivisionError()])

    def held() -> list[str]:
        for error in faults:
            raise error
        return []

    assert beat(server, 15, held=held) == [1, 11]


def test_one_may_come_early() -> None:
    assert beat(Server(heartbeat=10), 15, early=3) == [0, 3, 13]


def test_control_stops_work_at_once() -> None:
    server, stopped = Server(features=("control",)), list[str]()
    server.control = {"lost": ["jb_1"], "cancelled": ["jb_2"], "superseded": ["jb_3"], "else": ["jb_4"]}
    assert beat(server, 1, stop=lambda job_id, _why, _at: stopped.append(job_id)) == [0]
    assert stopped == ["jb_1", "jb_2", "jb_3"]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"data": {"lost": [1]}}', b'{"data": {"lost": null}}', b"\xff"]
)
def test_malformed_control_stops_nothing_and_is_a_failure(body: bytes) -> None:
    server, stopped = Server(features=("control",), heartbeat=15), list[str]()
    server.fail("heartbeat", (200, body))
    assert beat(server, 10, stop=lambda job_id, _why, _at: stopped.append(job_id)) == [0, 1]
    assert stopped == []


def test_control_may_answer_204_too() -> None:
    server = Server(features=("control",), heartbeat=15)
    server.fail("heartbeat", 204)
    assert beat(server, 10) == [0]


def test_one_401_is_forgiven_and_two_in_a_row_register_anew() -> None:
    """Planted defect: registers at the first one, or counts them over all time."""
    server = Server(heartbeat=15)
    server.fail("heartbeat", 401, 204, 401, 401)
    assert beat(server, 40) == [0, 1, 16, 17, 18, 33]
    assert [request.path for request in server.asked("heartbeat")][-2:] == ["/runners/rn_2/heartbeat"] * 2
    assert len(server.names) == 2


def test_it_ends_only_when_the_server_refuses_to_register_it_anew() -> None:
    server = Server(heartbeat=15)
    server.fail("heartbeat", 401, 401)
    server.fail("register", (201, json.dumps(
        {"data": {"runner_id": "rn_1", "token": "rk_1", "config": {}}}).encode()), 503, 401)  # fmt: skip
    with pytest.raises(RegistrationRefused):
        beat(server, 100)
