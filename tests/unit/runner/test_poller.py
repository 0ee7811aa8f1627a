"""Polling: at once where there are more, as many a call as there is room for, and none lost on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.unit.runner.server import DROP, HANG, LOSE, SECRET, Fault, Request, Server
from tests.unit.runner.times import jumping, now
from windlass.errors import RegistrationRefused
from windlass.runner.link import Link
from windlass.runner.poller import Poller
from windlass.runner.registration import Registration
from windlass.runner.wire import Job, MalformedJob, Registered


class Polling:
    """A poller for some seconds, and what it brought."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.taken: list[Job] = []
        self.spoilt: list[str] = []
        self.refuse = False
        self.room: Callable[[Registered], Coroutine[Any, Any, int]] = self._room
        self.ended_after: float | None = None

    async def _room(self, _identity: Registered) -> int:
        return 1

    def arrived(self, job: Job | MalformedJob) -> bool:
        if isinstance(job, MalformedJob):
            self.spoilt.append(job.job_id)
            return False
        self.taken.append(job)
        return not self.refuse

    def run(self, seconds: float, stop_after: float | None = None) -> list[float]:
        """When requests for jobs came, rounded to a tenth."""

        async def scenario() -> list[float]:
            link = Link(self.server.url, httpx_transport=self.server.transport)
            poller = Poller(
                link,
                Registration(link, None, name="r", token=SECRET, chance=lambda: 0.0),
                room=lambda identity: self.room(identity),
                arrived=self.arrived,
            )
            if stop_after is not None:
                asyncio.get_running_loop().call_later(stop_after, poller.stop)
            began = now()
            try:
                async with asyncio.timeout(seconds):
                    await poller.run()
                self.ended_after = now() - began
            except TimeoutError:
                pass
            return [round(request.at - began, 1) for request in self.server.asked("next-job")]

        return jumping(scenario())

    @property
    def ids(self) -> list[str]:
        return [job.job_id for job in self.taken]

    @property
    def asked(self) -> list[Request]:
        return self.server.asked("next-job")


def test_without_features_it_asks_every_poll_interval_and_nothing_but_that() -> None:
    """Planted defect: a query that servers of the fixed contract do not know."""
    polling = Polling(Server(poll=3, delays={"next-job": 1}))
    assert polling.run(10) == [0, 3, 6, 9]
    assert all(request.query == {} and request.path == "/runners/rn_1/next-job" for request in polling.asked)


def test_after_a_job_it_asks_again_at_once() -> None:
    server = Server()
    for number in range(3):
        server.add(f"jb_{number}")
    polling = Polling(server)
    assert polling.run(5) == [0, 0, 0, 0, 3]
    assert polling.ids == ["jb_0", "jb_1", "jb_2"]


def test_it_waits_for_room() -> None:
    """Invariant 2. Planted defect: a job is asked for that nobody can take."""
    server, free = Server(), asyncio.Semaphore(2)
    for number in range(5):
        server.add(f"jb_{number}")
    polling = Polling(server)

    async def room(_identity: Registered) -> int:
        await free.acquire()
        return 1

    polling.room = room
    polling.run(100)
    assert polling.ids == ["jb_0", "jb_1"]
    assert len(polling.asked) == 2


def test_it_asks_for_as_many_jobs_as_there_is_room_for_where_the_server_knows_how() -> None:
    """Planted defects: more than there is room for; the first of them alone is taken."""
    server = Server(features=("wait", "batch"))
    for number in range(5):
        server.add(f"jb_{number}")
    rooms = iter([3, 2])
    polling = Polling(server)

    async def room(_identity: Registered) -> int:
        return next(rooms, None) or await asyncio.Event().wait()  # never

    polling.room = room
    polling.run(5)
    assert [request.query["max"] for request in polling.asked] == ["3", "2"]
    assert polling.ids == [f"jb_{number}" for number in range(5)]


def test_a_reply_with_several_jobs_that_is_lost_is_asked_for_again_by_its_claim() -> None:
    server = Server(features=("wait", "batch"))
    server.add("jb_1")
    server.add("jb_2")
    server.fail("next-job", LOSE)
    polling = Polling(server)

    async def room(_identity: Registered) -> int:
        return 2

    polling.room = room
    polling.run(5)
    assert polling.ids == ["jb_1", "jb_2"]


def test_one_of_several_jobs_that_nobody_can_read_is_not_in_the_way_of_the_others() -> None:
    """Planted defect: the array is malformed as a whole, and all its jobs wait for their leases' ends."""
    server = Server(features=("wait", "batch"))
    server.add("jb_1", tasks=17)
    server.add("jb_2")
    polling = Polling(server)

    async def room(_identity: Registered) -> int:
        return 2

    polling.room = room
    polling.run(5)
    assert (polling.spoilt, polling.ids) == (["jb_1"], ["jb_2"])


def test_a_job_that_is_held_already_is_no_reason_to_ask_at_once() -> None:
    """Planted defect: a server that gives one job again and again is asked without a pause."""
    server = Server(poll=3)
    for _ in range(3):
        server.add("jb_1")
    polling = Polling(server)
    polling.refuse = True
    assert polling.run(8) == [0, 3, 6]


def test_long_polling_has_a_claim_of_its_own_for_each_delivery() -> None:
    server = Server(features=("wait",))
    server.add("jb_1")
    server.add("jb_2")
    polling = Polling(server)
    assert polling.run(50) == [0, 0, 0, 20, 40]
    assert {request.query["wait"] for request in polling.asked} == {"20"}
    assert len({request.query["claim"] for request in polling.asked}) == 5


def test_a_long_poll_that_is_answered_at_once_does_not_spin() -> None:
    """Planted defect: a server that is stopping and answers 204 at once is asked without a pause."""
    server = Server(features=("wait",), poll=3)
    server.fail("next-job", *[204] * 100)
    assert Polling(server).run(10) == [0, 3, 6, 9]


def test_a_lost_reply_is_asked_for_under_the_same_claim() -> None:
    """Planted defect: a new claim for each request, so that the delivery waits until its lease is over."""
    server = Server(features=("wait",))
    server.add("jb_1")
    server.fail("next-job", LOSE, DROP)
    polling = Polling(server)
    assert polling.run(10)[:3] == [0, 1, 4]
    assert polling.ids == ["jb_1"]
    first, second, third, fourth = [request.query["claim"] for request in polling.asked]
    assert first == second == third != fourth


SOUND = b'{"data": {"job_id": "jb_wrong"}}'


@pytest.mark.parametrize("fault", [DROP, 500, 503, 404, 201, (201, SOUND), (202, SOUND), (302, SOUND)])
def test_any_other_answer_is_a_failure_and_asked_again(fault: Fault) -> None:
    """Planted defect: any 2xx taken for an answer."""
    server = Server(poll=3)
    server.add("jb_1")
    server.fail("next-job", fault, fault, fault)
    polling = Polling(server)
    assert polling.run(8)[:4] == [0, 1, 4, 7]
    assert polling.ids == ["jb_1"]


def test_a_hanging_server_is_given_up_after_ten_seconds_and_a_long_poll_after_thirty() -> None:
    plain, long = Server(), Server(features=("wait",))
    plain.fail("next-job", HANG)
    long.fail("next-job", HANG)
    assert Polling(plain).run(12) == [0, 11]
    assert Polling(long).run(32) == [0, 31]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'{"data": []}', b'{"data": {}}', b'{"data": {"job_id": 5}}', b"\xff",
     b'{"data": {"job_id": ""}}', b'{"data": {"job_id": ".."}}', b'{"data": {"job_id": "a\\u0000"}}',
     b'{"data": {"job_id": "' + b"x" * 300 + b'"}}', b"[" * 5000],
)  # fmt: skip
def test_what_is_no_job_at_all_is_a_failure(body: bytes) -> None:
    """Invariant 6. Planted defect: the decoder's error ends the loop."""
    server = Server(poll=3)
    server.fail("next-job", (200, body))
    server.add("jb_1")
    polling = Polling(server)
    polling.run(2)
    assert (polling.ids, polling.spoilt) == (["jb_1"], [])


@pytest.mark.parametrize(
    "fields",
    [{"tasks": 5}, {"tasks": []}, {"problem_id": "one"}, {"code_url": 7}, {"problem_id": 1, "tasks": None},
     {"problem_id": 1, "tasks": [{"case_count": 0}]}, {"problem_id": 1, "tasks": [{"case_count": "1"}]},
     {"problem_id": 1, "tasks": [{}]}, {"problem_id": 1.5}, {"problem_id": True}],
)  # fmt: skip
def test_a_malformed_job_is_handed_back(fields: dict[str, object]) -> None:
    """Invariant 3. Planted defect: a job with zero cases, or without shape, that is taken and never ends."""
    server = Server(poll=3)
    body = json.dumps({"data": {"job_id": "jb_1"} | fields}).encode()
    server.fail("next-job", (200, body))
    polling = Polling(server)
    assert polling.run(5) == [0, 3]
    assert (polling.ids, polling.spoilt) == ([], ["jb_1"])


def test_the_whole_payload_reaches_the_executor() -> None:
    server = Server()
    job = server.add("jb_1", payload={"argv": ["true"]}, extra=[1])
    polling = Polling(server)
    polling.run(1)
    assert polling.taken[0].payload == job


def test_401_twice_registers_anew() -> None:
    server = Server(poll=3)
    server.fail("next-job", 401, 401)
    polling = Polling(server)
    assert polling.run(5) == [0, 1, 4]
    assert polling.asked[-1].path == "/runners/rn_2/next-job"


def test_a_refused_registration_ends_it() -> None:
    server = Server()
    server.fail("register", 401)
    with pytest.raises(RegistrationRefused):
        Polling(server).run(5)


def test_a_fault_of_its_own_does_not_end_it() -> None:
    """Invariant 6. Planted defect: an exception in the taking of a job ends the loop."""
    server = Server()
    server.add("jb_1")
    server.add("jb_2")
    polling, faults = Polling(server), iter([ZeroDivisionError()])

    async def room(_identity: Registered) -> int:
        for error in faults:
            raise error
        return 1

    polling.room = room
    polling.run(3)
    assert polling.ids == ["jb_1", "jb_2"]


@pytest.mark.parametrize("features", [(), ("wait",)])
def test_it_stops_at_once_while_it_waits(features: tuple[str, ...]) -> None:
    """Invariant 5. Planted defect: a long poll, a pause or a registration that a stop does not interrupt."""
    polling = Polling(Server(features=features))
    polling.run(60, stop_after=1)
    assert polling.ended_after is not None
    assert polling.ended_after < 1.1
    away = Server()
    away.fail("register", *[DROP] * 20)
    polling = Polling(away)
    polling.run(600, stop_after=100)
    assert polling.ended_after is not None
    assert polling.ended_after < 100.1


def test_a_stop_asks_once_whether_the_long_poll_got_a_job() -> None:
    """Planted defect: a delivery that crosses the stop is left to the end of its lease."""
    server = Server(features=("wait",))
    server.add("jb_1")
    server.delays["next-job"] = 0.5
    inner = server._next_job

    async def slow(request: Request, runner: str) -> tuple[int, bytes]:
        reply = await inner(request, runner)
        await asyncio.sleep(0 if request.query["wait"] == "0" else 3)  # chosen, and not yet sent
        return reply

    server._next_job = slow  # type: ignore[method-assign]  # the same, but late
    polling = Polling(server)
    polling.run(60, stop_after=1)
    assert polling.ids == ["jb_1"]
    assert [request.query["wait"] for request in polling.asked] == ["20", "0"]
    assert len({request.query["claim"] for request in polling.asked}) == 1


def test_a_plain_poll_under_way_is_awaited_when_it_stops() -> None:
    """Planted defect: the request is broken off, and the job that it brought waits for its lease to end."""
    server = Server(delays={"next-job": 2})
    server.add("jb_1")
    polling = Polling(server)
    polling.run(60, stop_after=1)
    assert (polling.ids, len(polling.asked)) == (["jb_1"], 1)
