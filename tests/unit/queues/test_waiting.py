"""The lines of long polls, with attempts that the test answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from tests.harness import Jumping, until
from windlass.message import Message
from windlass.queues.waiting import Lines

MESSAGE = Message(1, 1, b"1", 0, 1, 0, None, None)
Attempt = asyncio.Future[list[Message]]


class Line:
    """Waiters on one queue, each with the attempts it has made."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.attempts: dict[str, list[Attempt]] = {}

    async def join(
        self, name: str, seconds: float = 60, gone: asyncio.Future[None] | None = None
    ) -> asyncio.Task[list[Message]]:
        made = self.attempts[name] = []

        def attempt() -> Attempt:
            made.append(asyncio.get_running_loop().create_future())
            return made[-1]

        task = asyncio.create_task(self.lines.wait("q", seconds, attempt, gone))
        await turns()
        return task

    async def answer(self, name: str, *messages: Message) -> None:
        self.attempts[name][-1].set_result(list(messages))
        await turns()

    async def crowd(self, names: str) -> None:
        """All in line, and none with an attempt on its way."""
        for name in names:
            await self.join(name)
            if self.attempts[name]:
                await self.answer(name)

    def tried(self) -> dict[str, int]:
        return {name: len(made) for name, made in self.attempts.items()}


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def test_the_first_tries_at_once_and_those_behind_it_do_not() -> None:
    """Planted defect: a look into the store for everybody who comes."""

    async def scenario() -> None:
        line = Line()
        await line.join("a")
        await line.answer("a")
        await line.join("b")
        assert line.tried() == {"a": 1, "b": 0}
        assert len(line.lines) == 2

    run(scenario())


def test_who_comes_while_all_are_busy_tries_too() -> None:
    async def scenario() -> None:
        line = Line()
        await line.join("a")
        await line.join("b")
        assert line.tried() == {"a": 1, "b": 1}

    run(scenario())


def test_who_waits_does_nothing_until_something_comes() -> None:
    """Planted defect: polling, at whatever pace."""

    async def scenario() -> None:
        line = Line()
        await line.crowd("abc")
        before = line.tried()
        await asyncio.sleep(50)  # of the loop's time
        assert line.tried() == before

    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(scenario())


def test_as_many_are_woken_as_messages_came_in_order_and_the_busy_are_passed_by() -> None:
    async def scenario() -> None:
        line = Line()
        await line.crowd("abcd")
        line.lines.wake("q", 2)
        await turns()
        assert line.tried() == {"a": 2, "b": 1, "c": 0, "d": 0}
        line.lines.wake("q", 1)
        await turns()
        assert line.tried() == {"a": 2, "b": 1, "c": 1, "d": 0}

    run(scenario())


def test_an_attempt_that_finds_nothing_leaves_the_waiter_in_its_place() -> None:
    """Planted defect: sending it to the end of the line."""

    async def scenario() -> None:
        line = Line()
        first = await line.join("a")
        await line.answer("a")
        await line.join("b")
        line.lines.wake("q", 1)
        await line.answer("a")
        assert line.lines.idle("q")
        line.lines.wake("q", 1)
        assert line.tried() == {"a": 3, "b": 0}
        await line.answer("a", MESSAGE)
        assert await first == [MESSAGE]
        assert len(line.lines) == 1

    run(scenario())


def test_who_hung_up_while_woken_passes_it_on_and_who_is_merely_late_does_not() -> None:
    """Planted defects: a wake-up that is lost; a chain of looks into the store as polls run out."""

    async def scenario() -> None:
        line = Line()
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        first = await line.join("a", gone=gone)
        await line.answer("a")
        second = await line.join("b", seconds=0.01)
        await line.join("c")
        line.lines.wake("q", 1)
        gone.set_result(None)
        await line.answer("a")
        assert await first == []
        assert line.tried() == {"a": 2, "b": 1, "c": 0}
        await line.answer("b")
        assert await second == []
        assert line.tried()["c"] == 0

    run(scenario())


def test_who_is_cancelled_while_its_attempt_is_under_way_leaves_the_line() -> None:
    async def scenario() -> None:
        line = Line()
        first = await line.join("a")
        first.cancel()
        await turns()
        assert len(line.lines) == 0
        await line.answer("a", MESSAGE)  # for nobody, as a plain GET that is cut off

    run(scenario())


def test_an_attempt_that_fails_is_told() -> None:
    async def scenario() -> None:
        line = Line()
        task = await line.join("a")
        line.attempts["a"][0].set_exception(OSError("disk"))
        await turns()
        assert isinstance(task.exception(), OSError)
        assert len(line.lines) == 0

    run(scenario())


def test_a_stop_lets_everybody_go_and_nobody_wait_again() -> None:
    async def scenario() -> None:
        line = Line()
        first = await line.join("a")
        await line.answer("a")
        second = await line.join("b")
        line.lines.stop()
        assert (await first, await second) == ([], [])
        third = await line.join("c")
        await line.answer("c")
        assert await third == []

    run(scenario())


def test_a_deleted_queue_wakes_everybody() -> None:
    async def scenario() -> None:
        line = Line()
        await line.crowd("abc")
        line.lines.wake_all("q")
        line.lines.wake_all("another")
        assert line.tried() == {"a": 2, "b": 1, "c": 1}

    run(scenario())


def test_a_wake_up_that_overtakes_an_empty_answer_on_its_way_to_another_loop_is_not_lost() -> None:
    """Planted defect: passing by a waiter that only looks busy, because its own loop has not heard yet."""
    lines = Lines()
    made: list[Attempt] = []
    there = asyncio.new_event_loop()
    busy, free = threading.Event(), threading.Event()

    def attempt() -> Attempt:
        made.append(there.create_future())
        return made[-1]

    async def wait() -> list[Message]:
        return await lines.wait("q", 20, attempt, None)

    def hold() -> None:
        busy.set()
        free.wait(60)

    async def here() -> None:
        lines.wake("q", 1)

    thread = threading.Thread(target=there.run_forever)
    thread.start()
    try:
        waiting = asyncio.run_coroutine_threadsafe(wait(), there)
        until(lambda: made, what="the first attempt")
        there.call_soon_threadsafe(hold)
        assert busy.wait(60)
        there.call_soon_threadsafe(made[0].set_result, [])  # on its way; then a message comes
        asyncio.run(here())
        free.set()
        until(lambda: len(made) == 2, what="the second attempt")
        there.call_soon_threadsafe(made[1].set_result, [MESSAGE])
        assert waiting.result(60) == [MESSAGE]
    finally:
        there.call_soon_threadsafe(there.stop)
        thread.join(60)
        there.close()
