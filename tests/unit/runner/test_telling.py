"""Progress: told soon and together, lost rather than in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.runner.server import DROP, HANG, SECRET, Fault, Server
from tests.unit.runner.times import jumping, now
from windlass.runner import telling as tellings
from windlass.runner.link import Link
from windlass.runner.registration import Registration
from windlass.runner.telling import Telling


def tell(server: Server, scenario: Callable[[Telling], Awaitable[None]]) -> float:
    """The seconds that finish() took after the scenario."""

    async def main() -> float:
        link = Link(server.url, httpx_transport=server.transport)
        registration = Registration(link, None, name="r", token=SECRET)
        telling = Telling(link, registration, "jb_1", heard="events" in server.features)
        await scenario(telling)
        began = now()
        await telling.finish()
        return now() - began

    return jumping(main())


def told(server: Server) -> list[list[Any]]:
    return [request.json["events"] for request in server.asked("events")]


def test_what_happens_together_is_told_together_and_the_rest_at_the_end() -> None:
    server = Server(features=("events",))

    async def scenario(telling: Telling) -> None:
        await asyncio.sleep(1)
        for number in range(3):
            telling.tell({"event": "case", "case": number})
        await asyncio.sleep(0.01)
        telling.tell({"event": "case", "case": 3})
        telling.tell({"event": "case", "case": 4})
        await asyncio.sleep(1)
        telling.tell({"event": "case", "case": 5})

    tell(server, scenario)
    assert [[event["case"] for event in batch] for batch in told(server)] == [[0, 1, 2], [3, 4], [5]]
    [request, *_] = server.asked("events")
    assert (request.path, request.token) == ("/runners/rn_1/jobs/jb_1/events", "rk_1")


def test_a_server_without_the_feature_hears_nothing() -> None:
    """Planted defect: a request that the fixed contract does not have."""
    server = Server()

    async def scenario(telling: Telling) -> None:
        telling.tell({"event": "early"})
        await asyncio.sleep(1)
        telling.tell({"event": "late"})

    tell(server, scenario)
    assert server.asked("events") == []


@pytest.mark.parametrize("fault", [DROP, 500, 401, 200])
def test_a_failure_loses_events_and_nothing_else(fault: Fault) -> None:
    """Planted defect: whoever watches is not told that something is missing."""
    server = Server(features=("events",))
    server.fail("events", fault)

    async def scenario(telling: Telling) -> None:
        for number in range(3):
            telling.tell({"event": "case", "case": number})
            await asyncio.sleep(2)

    tell(server, scenario)
    told_of = [[event.get("case", event["event"]) for event in batch] for batch in told(server)]
    assert told_of == [[0], ["lost", 1], [2]]


@pytest.mark.parametrize("status", [404, 409])
def test_a_job_that_is_no_longer_ours_is_told_of_no_more(status: int) -> None:
    server = Server(features=("events",))
    server.fail("events", status)

    async def scenario(telling: Telling) -> None:
        for _ in range(3):
            telling.tell({"event": "case"})
            await asyncio.sleep(2)

    tell(server, scenario)
    assert len(told(server)) == 1


def test_a_hanging_server_holds_the_result_up_for_two_seconds() -> None:
    """Planted defect: the delivery waits until all that was printed has been told."""
    server = Server(features=("events",))
    server.fail("events", HANG)

    async def scenario(telling: Telling) -> None:
        telling.tell({"event": "case"})
        await asyncio.sleep(0.01)
        telling.tell({"event": "case"})
        server.fail("events", HANG)

    assert tell(server, scenario) == pytest.approx(2, abs=0.1)


def test_what_waits_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a program that prints without end fills the memory of a runner whose server is away."""
    monkeypatch.setattr(tellings, "LONGEST_LINE", 1000)
    monkeypatch.setattr(tellings, "LARGEST", 300)
    server = Server(features=("events",))

    async def scenario(telling: Telling) -> None:
        telling.tell({"event": "output", "text": "x" * 400})
        telling.tell({"event": "output", "text": "\ud800"})
        telling.tell({"event": object()})
        for number in range(100):
            telling.tell({"number": number, "text": "x" * 73})

    tell(server, scenario)
    lost, *events = [event for batch in told(server) for event in batch]
    assert lost == {"event": "lost"}
    assert [event["number"] for event in events] == list(range(90, 100))
    assert [len(batch) for batch in told(server)] == [4, 3, 3, 1]


def test_a_request_under_way_at_the_end_is_not_broken_off() -> None:
    """Planted defect: the end of the work cancels the request that carries what was printed last."""
    server = Server(features=("events",))
    server.delays["events"] = 0.5
    heard: list[float] = []

    async def scenario(telling: Telling) -> None:
        telling.tell({"event": "case"})
        await asyncio.sleep(0.1)
        server.delays["events"] = 0.0
        heard.append(len(told(server)))

    assert tell(server, scenario) == pytest.approx(0.4, abs=0.1)
    assert (heard, len(told(server))) == ([1], 1)
