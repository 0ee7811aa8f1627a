"""Long polls: in order of arrival, one message one waiter, at no cost while nothing happens."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from tests.contract.http.served import Caller, Served, TestClient, refused, settled
from tests.harness import until
from windlass.message import Message


class Crowd:
    """Long polls on one queue, in line one after the other."""

    def __init__(self, q: Served) -> None:
        self._q = q
        self.lines = q.app.queues.lines
        self.callers: list[Caller] = []

    async def join(self, **wanted: Any) -> Caller:
        body = {"wait": 60, **wanted}
        before = len(self.lines)
        caller = Caller(self._q, "POST", "/queues/q/receive", json.dumps(body).encode())
        self.callers.append(caller)
        await settled(lambda: len(self.lines) > before)
        await self.calm()
        return caller

    async def calm(self) -> None:
        """Wait until nobody's attempt is on its way."""
        await settled(lambda: all(w.idle for line in self.lines._lines.values() for w in line))

    async def send(self, *contents: Any) -> None:
        body = {"messages": [{"content": content} for content in contents]}
        assert (await self._q.ask("POST", "/queues/q/messages", body)).status_code == 201

    async def leave(self) -> None:
        for caller in self.callers:
            caller.hang_up()
        await asyncio.wait_for(asyncio.gather(*(caller.task for caller in self.callers)), 60)


def content(caller: Caller) -> Any:
    return json.loads(caller.body)["content"] if caller.status == 200 else None


def test_a_long_poll_is_answered_when_a_message_comes(q: Served) -> None:
    async def scenario() -> Any:
        crowd = Crowd(q)
        caller = await crowd.join(lease=30)
        await crowd.send("x")
        await asyncio.wait_for(caller.task, 60)
        return caller

    caller = q.run(scenario())
    assert content(caller) == "x"
    assert b'"receipt"' in caller.body


def test_what_is_ready_is_taken_without_waiting(q: Served) -> None:
    q.send("x")
    assert q.receive(wait=60)["content"] == "x"


@pytest.mark.parametrize("wait", ["0.0001", "0.0304", "0.05"])
def test_a_long_poll_ends_empty_when_its_time_is_over(q: Served, wait: str) -> None:
    """Planted defect: comparing the time with the deadline, which a timer may miss by a hair."""
    answer = q("GET", f"/queues/q/messages?wait={wait}", timeout=10)
    assert (answer.status_code, answer.content) == (204, b"")


def test_waiters_are_served_in_order_of_arrival(q: Served) -> None:
    """Planted defect: waking the last one first."""

    async def scenario() -> list[Any]:
        crowd = Crowd(q)
        callers = [await crowd.join() for _ in range(5)]
        for n in range(5):
            await crowd.send(n)
            await asyncio.wait_for(asyncio.wait([caller.task for caller in callers[: n + 1]]), 60)
        return [content(caller) for caller in callers]

    assert q.run(scenario()) == [0, 1, 2, 3, 4]


def test_a_batch_goes_to_as_many_waiters_in_order(q: Served) -> None:
    async def scenario() -> list[Any]:
        crowd = Crowd(q)
        callers = [await crowd.join() for _ in range(3)]
        await crowd.send("a", "b", "c", "d")
        await asyncio.wait_for(asyncio.gather(*(caller.task for caller in callers)), 60)
        return [content(caller) for caller in callers]

    assert q.run(scenario()) == ["a", "b", "c"]
    assert q.contents() == ["d"]


def test_nobody_in_line_is_overtaken_by_a_plain_get(q: Served) -> None:
    """Planted defect: letting a GET without wait go straight to the store."""

    async def scenario() -> tuple[Any, int]:
        crowd = Crowd(q)
        caller = await crowd.join()
        plain = (await asyncio.gather(crowd.send("x"), q.ask("GET", "/queues/q/messages")))[1]
        await asyncio.wait_for(caller.task, 60)
        return content(caller), plain.status_code

    assert q.run(scenario()) == ("x", 204)


def test_one_message_wakes_one_waiter_and_idle_ones_cost_the_store_nothing(q: Served) -> None:
    """Planted defect: polling, or waking everybody for each message."""

    async def scenario() -> tuple[int, int]:
        crowd = Crowd(q)
        for _ in range(20):
            await crowd.join()
        calls = q.app.store.calls
        before = calls["receive"]
        await crowd.calm()  # that nobody asks later either, tests/unit/queues/test_waiting.py sees
        idle = calls["receive"] - before
        await crowd.send("x")
        await asyncio.wait_for(crowd.callers[0].task, 60)
        await crowd.calm()
        woken = calls["receive"] - before
        assert sum(caller.task.done() for caller in crowd.callers) == 1
        await crowd.leave()
        return idle, woken

    assert q.run(scenario()) == (0, 1)


def test_the_first_look_of_many_waiters_is_one_call(q: Served) -> None:
    async def scenario() -> int:
        crowd = Crowd(q)
        for _ in range(20):
            await crowd.join()
        calls = q.app.store.calls["receive"]
        await crowd.leave()
        return calls

    assert q.run(scenario()) == 1


def test_status_counts_who_waits_and_the_stores_calls(q: Served) -> None:
    async def scenario() -> Any:
        crowd = Crowd(q)
        await crowd.join()
        await crowd.join()
        first = (await q.ask("GET", "/status")).json()
        second = (await q.ask("GET", "/status")).json()
        await crowd.leave()
        return first, second

    first, second = q.run(scenario())
    assert first["waiting"] == 2
    assert first["store_calls"]["receive"] == second["store_calls"]["receive"] == 1
    assert q("GET", "/status").json()["waiting"] == 0


def test_who_hung_up_leaves_the_line_and_takes_nothing(q: Served) -> None:
    async def scenario() -> Any:
        crowd = Crowd(q)
        first, second = await crowd.join(), await crowd.join()
        first.hang_up()
        await asyncio.wait_for(first.task, 60)
        await crowd.send("x")
        await asyncio.wait_for(second.task, 60)
        return content(second)

    assert q.run(scenario()) == "x"


def test_who_hangs_up_while_it_is_woken_passes_the_wake_up_on_before_anything_is_taken(q: Served) -> None:
    """Planted defects: no wake-up passed on; the store not asking, before it commits, who is still there."""
    receive = q.app.store.receive

    async def scenario() -> list[Any]:
        crowd = Crowd(q)
        first, second = await crowd.join(), await crowd.join()

        async def hanging_up(*wanted: Any, **how: Any) -> list[Message]:
            caller = wanted[-1]
            if not first.disconnected:  # it is woken, its attempt is on its way: now it goes
                first.hang_up()
                await settled(lambda: caller.disconnected)
            return await receive(*wanted, **how)

        q.app.store.receive = hanging_up  # type: ignore[method-assign]
        await crowd.send("x")
        await asyncio.wait_for(asyncio.gather(first.task, second.task), 60)
        return [content(first), content(second)]

    assert q.run(scenario()) == [None, "x"]


def test_a_lease_that_runs_out_wakes_a_waiter(q: Served) -> None:
    q.send("x")
    q.receive(lease=10)

    async def scenario() -> Any:
        crowd = Crowd(q)
        caller = await crowd.join()
        await q.pass_time(10)
        await asyncio.wait_for(caller.task, 60)
        return content(caller)

    assert q.run(scenario()) == "x"


def test_a_delay_that_is_over_wakes_a_waiter_by_the_clock_alone(q: Served) -> None:
    """Planted defect: looking at what is due only when the next request comes. The reaper does it."""
    q.send("x", delay=0.05)
    moved = threading.Timer(0.02, q.clock.advance, (0.05,))
    moved.start()
    answer = q("GET", "/queues/q/messages?wait=20", timeout=30)
    assert answer.json()["content"] == "x"


def test_resuming_wakes_those_who_wait_on_a_paused_queue(q: Served) -> None:
    """Planted defect: resume changes a flag and tells nobody."""
    q.send("x")
    q("POST", "/queues/q/pause")

    async def scenario() -> Any:
        crowd = Crowd(q)
        caller = await crowd.join()
        await crowd.send("y")
        await crowd.calm()
        assert not caller.task.done()
        await q.ask("POST", "/queues/q/resume")
        await asyncio.wait_for(caller.task, 60)
        return content(caller)

    assert q.run(scenario()) == "x"
    assert q.contents() == ["y"]


def test_redrive_and_giving_back_wake_a_waiter(api: Served) -> None:
    api.queue("q", max_deliveries=1)
    api.send("dead")
    api.receive(lease=1)
    api.advance(1)
    api.send("back")
    api("PATCH", "/queues/q", {"max_deliveries": None})
    receipt = api.receive(lease=60)["receipt"]

    async def scenario() -> list[Any]:
        crowd = Crowd(api)
        first, second = await crowd.join(), await crowd.join()
        await api.ask("POST", "/queues/q/redrive")
        await asyncio.wait_for(first.task, 60)
        await api.ask("PATCH", f"/queues/q/receipts/{receipt}", {"lease": 0})
        await asyncio.wait_for(second.task, 60)
        return [content(first), content(second)]

    assert api.run(scenario()) == ["dead", "back"]


def test_a_deleted_queue_lets_its_waiters_go_with_404(q: Served) -> None:
    """Planted defect: leaving them asleep until their time is over."""

    async def scenario() -> list[Any]:
        crowd = Crowd(q)
        callers = [await crowd.join() for _ in range(3)]
        await q.ask("DELETE", "/queues/q")
        await asyncio.wait_for(asyncio.gather(*(caller.task for caller in callers)), 60)
        return [caller.status for caller in callers]

    assert q.run(scenario()) == [404] * 3
    refused(q("GET", "/queues/q/messages"), 404, "queue_not_found")


def test_a_stop_lets_everybody_go_with_204(q: Served) -> None:
    async def scenario() -> list[Any]:
        crowd = Crowd(q)
        callers = [await crowd.join() for _ in range(3)]
        q.app.release_waiters()
        await asyncio.wait_for(asyncio.gather(*(caller.task for caller in callers)), 60)
        late = await q.ask("GET", "/queues/q/messages?wait=60")
        return [*(caller.status for caller in callers), late.status_code]

    assert q.run(scenario()) == [204] * 4


def test_lines_of_two_queues_are_strangers(q: Served) -> None:
    q.queue("other")

    async def scenario() -> None:
        crowd = Crowd(q)
        caller = await crowd.join()
        await q.ask("POST", "/queues/other/messages", {"content": 1})
        assert (await q.ask("GET", "/queues/other/messages")).status_code == 200
        assert not caller.task.done()
        await crowd.leave()

    q.run(scenario())


def test_a_wait_with_max_takes_what_is_there_when_it_is_woken(q: Served) -> None:
    async def scenario() -> bytes:
        crowd = Crowd(q)
        caller = await crowd.join(max=10)
        await crowd.send("a", "b")
        await asyncio.wait_for(caller.task, 60)
        return caller.body

    assert q.run(scenario()).count(b'"content"') == 2


# --- other loops ----------------------------------------------------------------------------------


def test_a_message_sent_on_one_loop_wakes_a_waiter_on_another(q: Served) -> None:
    """Planted defect: making the waiter's attempt on the loop of whoever woke it."""
    client = TestClient(q.app, base_url="http://localhost")  # a thread and a loop for each request
    for n in range(3):
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(client.get("/queues/q/messages?wait=20")))  # noqa: B023
        waiting.start()
        until(lambda: len(q.app.queues.lines) > 0, 60, "a waiter")
        q.send(n)
        waiting.join(60)
        assert answers[0].json()["content"] == n
    assert not len(q.app.queues.lines)


def test_many_threads_with_a_loop_each_lose_nothing(q: Served) -> None:
    client = TestClient(q.app, base_url="http://localhost")
    taken: list[Any] = []

    def consume() -> None:
        while (answer := client.get("/queues/q/messages?wait=5")).status_code == 200:
            if (content := answer.json()["content"]) is None:
                return
            taken.append(content)

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(40):
        assert client.post("/queues/q/messages", json={"content": n}).status_code == 201
    for _ in threads:
        client.post("/queues/q/messages", json={"content": None})
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sorted(taken) == list(range(40))
