"""Results that go together, and the jobs that come in exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.unit.runner.server import DROP, LOSE, SECRET, Fault, Server
from tests.unit.runner.times import jumping
from windlass.client.errors import AnswerLost, BadAnswer
from windlass.runner.delivery import Delivery, End, Handed
from windlass.runner.gathering import Gathering
from windlass.runner.link import Answer, Link
from windlass.runner.registration import Registration
from windlass.runner.wire import Job, MalformedJob, Registered

BODY = b'{"tasks": [[{"status": "AC"}]]}'


class Bringing:
    """A runner that holds jobs jb_0 to jb_N, and brings their results."""

    def __init__(self, held: int = 8, **server: Any) -> None:
        self.server = Server(features=("batch",), **server)
        for number in range(held):
            self.server.leased[f"jb_{number}"] = ("rn_1", {"job_id": f"jb_{number}"})
        self.arrived: list[str] = []
        self.wanted: Callable[[int], int] = lambda places: places
        self.answers: list[Answer | BaseException | None] = []

    def begin(self, job: Job | MalformedJob) -> bool:
        self.arrived.append(job.job_id)
        return True

    def run(self, scenario: Callable[[Bringing, Gathering, Registered], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            link = Link(self.server.url, httpx_transport=self.server.transport)
            registration = Registration(
                link, None, name="r", token=SECRET, features=("batch",), chance=lambda: 0
            )
            gathering = Gathering(link, refill=lambda places: self.wanted(places), arrived=self.begin)
            await scenario(self, gathering, await registration.identity())

        jumping(main())

    async def bring(self, gathering: Gathering, identity: Registered, *numbers: int) -> None:
        """Of these jobs, at the same time."""
        each = [gathering.put(identity, f"jb_{number}", BODY) for number in numbers]
        self.answers += await asyncio.gather(*each, return_exceptions=True)

    @property
    def together(self) -> list[list[str]]:
        """The jobs of each request."""
        return [
            [each["job_id"].removeprefix("jb_") for each in request.json["results"]]
            for request in self.server.asked("results")
        ]


async def eight(bringing: Bringing, gathering: Gathering, identity: Registered) -> None:
    await bringing.bring(gathering, identity, *range(8))


def test_what_ends_together_goes_together() -> None:
    """Planted defect: a request for each."""
    bringing = Bringing()
    bringing.run(eight)
    assert bringing.together == [[str(number) for number in range(8)]]
    assert bringing.answers == [Answer(204, b"")] * 8
    assert len(bringing.server.results) == 8


def test_what_ends_while_two_requests_are_under_way_goes_in_the_next() -> None:
    """Planted defect: as many requests as there are jobs; a job that waits for the answer to others."""
    bringing = Bringing(delays={"results": 1})

    async def scenario(bringing: Bringing, gathering: Gathering, identity: Registered) -> None:
        async def later(number: int) -> None:
            await asyncio.sleep(0.1 * number)
            await bringing.bring(gathering, identity, number)

        await asyncio.gather(*map(later, range(4)))

    bringing.run(scenario)
    assert bringing.together == [["0"], ["1"], ["2", "3"]]


def test_new_jobs_are_there_before_the_old_ones_are_let_go() -> None:
    """Invariant 2. Planted defect: a place that is free for a moment, for which the poller asks, too."""
    bringing = Bringing(held=2)
    for number in (20, 21, 22):
        bringing.server.add(f"jb_{number}")

    async def scenario(bringing: Bringing, gathering: Gathering, identity: Registered) -> None:
        async def one(number: int) -> None:
            await gathering.put(identity, f"jb_{number}", BODY)
            assert bringing.arrived == ["jb_20", "jb_21"]

        await asyncio.gather(one(0), one(1))

    bringing.run(scenario)
    assert [request.query["max"] for request in bringing.server.asked("results")] == ["2"]


def test_nothing_is_asked_for_where_nothing_is_wanted() -> None:
    """Invariant 5. Planted defect: a runner that stops and takes jobs."""
    bringing = Bringing(held=1)
    bringing.wanted = lambda _: 0
    bringing.server.add("jb_20")
    bringing.run(eight)
    assert all(request.query == {} for request in bringing.server.asked("results"))
    assert (bringing.arrived, len(bringing.server.ready)) == ([], 1)


def test_a_lost_answer_is_asked_for_again_by_its_claim() -> None:
    """Invariant 7 of the server. Planted defect: a new name, so that the jobs wait for their leases' ends."""
    bringing = Bringing(held=1)
    bringing.server.add("jb_20")
    bringing.server.add("jb_21")
    bringing.server.fail("results", LOSE, DROP)

    async def scenario(bringing: Bringing, gathering: Gathering, identity: Registered) -> None:
        for _ in range(4):
            await bringing.bring(gathering, identity, 0)

    bringing.run(scenario)
    assert [type(answer) for answer in bringing.answers] == [AnswerLost, AnswerLost, Answer, Answer]
    claims = [request.query["claim"] for request in bringing.server.asked("results")]
    assert claims[0] == claims[1] == claims[2] != claims[3]
    assert bringing.arrived == ["jb_20", "jb_21"]


@pytest.mark.parametrize("fault", [502, (200, b"{}")])
def test_a_claim_is_kept_until_its_answer_has_come(fault: Fault) -> None:
    """Planted defects: an answer of somebody in between, or one that nobody can read, taken for the server's;
    a claim that is dropped by a request for no jobs."""
    bringing = Bringing(held=1)
    bringing.server.add("jb_20")
    bringing.server.fail("results", LOSE, fault)
    wanted = [1, 1, 0, 1]
    bringing.wanted = lambda _: wanted.pop(0)

    async def scenario(bringing: Bringing, gathering: Gathering, identity: Registered) -> None:
        for _ in range(4):
            await bringing.bring(gathering, identity, 0)

    bringing.run(scenario)
    claims = [request.query.get("claim") for request in bringing.server.asked("results")]
    assert claims[0] == claims[1] == claims[3]
    assert claims[2] is None
    assert bringing.arrived == ["jb_20"]


@pytest.mark.parametrize("status", [400, 413, 422, 404])
def test_a_request_that_is_refused_is_brought_one_by_one(status: int) -> None:
    """Planted defect: one result that makes the request malformed takes seven others with it."""
    bringing = Bringing()
    bringing.server.fail("results", status)
    bringing.run(eight)
    assert bringing.answers == [None] * 8


@pytest.mark.parametrize("status", [401, 429, 500, 503, 204, 202])
def test_what_may_pass_is_said_to_each(status: int) -> None:
    bringing = Bringing()
    bringing.server.fail("results", status)
    bringing.run(eight)
    assert bringing.answers == [Answer(status, b"")] * 8


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"data": {"results": []}}', b'{"data": {"results": [{"job_id": "jb_1", "status": 204}]}}',
     b'{"data": {"results": [{"job_id": "jb_0", "status": 204}], "jobs": [{}]}}'],
)  # fmt: skip
def test_an_answer_about_other_jobs_is_none(body: bytes) -> None:
    """Planted defect: a 204 that was another job's."""
    bringing = Bringing()
    bringing.server.fail("results", (200, body))

    async def scenario(bringing: Bringing, gathering: Gathering, identity: Registered) -> None:
        await bringing.bring(gathering, identity, 0)

    bringing.run(scenario)
    assert [type(answer) for answer in bringing.answers] == [BadAnswer]
    assert bringing.arrived == []


def test_one_that_is_cancelled_disturbs_no_other() -> None:
    bringing = Bringing(delays={"results": 1})

    async def scenario(bringing: Bringing, gathering: Gathering, identity: Registered) -> None:
        gone = asyncio.create_task(gathering.put(identity, "jb_0", BODY))
        others = asyncio.create_task(bringing.bring(gathering, identity, 1, 2))
        await asyncio.sleep(0.5)
        gone.cancel()
        await others
        with pytest.raises(asyncio.CancelledError):
            await gone
        await bringing.bring(gathering, identity, 3)

    bringing.run(scenario)
    assert bringing.answers == [Answer(204, b"")] * 3


def test_each_is_handed_over_as_if_it_came_alone() -> None:
    """Invariant 4. Planted defect: what is said of the request taken for what is said of the result."""
    server = Server(features=("batch",))
    server.leased |= {f"jb_{n}": (f"rn_{n}", {"job_id": f"jb_{n}"}) for n in (1, 2)}
    server.fail("results", DROP, 503)
    ends: dict[str, Handed] = {}

    async def scenario() -> None:
        link = Link(server.url, httpx_transport=server.transport)
        registration = Registration(link, None, name="r", token=SECRET, features=("batch",))
        await registration.identity()
        delivery = Delivery(link, registration, refill=lambda _: 0, arrived=lambda _: False)

        async def hand_over(job_id: str) -> None:
            ends[job_id] = await delivery.result(job_id, BODY)

        await asyncio.gather(*map(hand_over, ("jb_1", "jb_2", "jb_3")))

    jumping(scenario())
    assert {job_id: handed.end for job_id, handed in ends.items()} == {
        "jb_1": End.TAKEN, "jb_2": End.NOT_OURS, "jb_3": End.NOT_OURS,
    }  # fmt: skip
    assert server.asked("complete") == []
