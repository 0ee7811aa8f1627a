"""Move tasks driven from plain test code, on any store, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import msgspec
import pytest

from tests.contract.bench import Bench
from tests.contract.http.served import settled
from windlass.errors import StoreClosed
from windlass.message import Message
from windlass.queues import Queues
from windlass.server.auth import ANYBODY, Principal
from windlass.server.lane import Request
from windlass.server.sqs.call import Call
from windlass.server.sqs.errors import SqsError
from windlass.server.sqs.moves import Moves
from windlass.server.sqs.names import arn_of
from windlass.server.sqs.requests import ACTIONS

TURN = 60.0
"""Seconds: longer than time stands still in a test."""
_VERBS = (
    "send", "receive", "acknowledge", "release", "redrive", "find", "queue", "queues", "update_queue", "turn",
)  # fmt: skip


def _never(_: object) -> NoReturn:
    raise AssertionError


class Mill:
    """The move tasks of one server on a bench's store."""

    def __init__(self, bench: Bench, turn: float = TURN) -> None:
        self.bench = bench
        self.clock = bench.clock
        self.principal = ANYBODY
        self.turn = turn
        self.open()

    def open(self) -> None:
        self.queues = Queues(self.bench.store, self.clock)
        self.moves = Moves(self.queues, self.turn)
        self.run(self.moves.start())

    def run(self, work: Any) -> Any:
        return self.bench.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.moves.stop())
        self.run(self.queues.stop())

    def reopen(self) -> None:
        """Stop as one should, and start again."""
        self.close()
        self.bench.reopen()
        self.open()

    def crash(self) -> None:
        """Go on with what a kill at this moment leaves."""
        self.close()
        self.bench.crash()
        self.open()

    # --- asking -----------------------------------------------------------------------------------

    def call(self, action: str, principal: Principal | None = None, **parameters: Any) -> Any:
        """Ask, with parameters as the JSON protocol has them."""
        return self.run(self.asked(action, principal, **parameters))

    async def asked(self, action: str, principal: Principal | None = None, **parameters: Any) -> Any:
        body = msgspec.convert(parameters, ACTIONS[action])
        request = Request(_never, "", "POST", "/", "", "", b"", {}, {}, _Client())
        request.principal = principal or self.principal
        return await self.moves.actions[action](Call(action, body, request, "", False))

    def begin(self, source: str = "dlq", destination: str | None = None, rate: int | None = None) -> str:
        """Start a task; its handle."""
        more: dict[str, Any] = {}
        if destination is not None:
            more["DestinationArn"] = arn_of(destination)
        if rate is not None:
            more["MaxNumberOfMessagesPerSecond"] = rate
        handle: str = self.call("StartMessageMoveTask", SourceArn=arn_of(source), **more)["TaskHandle"]
        return handle

    def tasks(self, source: str = "dlq", most: int = 10) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call(
            "ListMessageMoveTasks", SourceArn=arn_of(source), MaxResults=most
        )["Results"]
        return found

    def status(self, source: str = "dlq") -> tuple[str, int]:
        """Of the newest task: its status, and how many messages it has moved."""
        newest = self.tasks(source)[0]
        return newest["Status"], newest["ApproximateNumberOfMessagesMoved"]

    def refused(self, name: str, words: str, action: str, **parameters: Any) -> None:
        with pytest.raises(SqsError, match=words) as caught:
            self.call(action, **parameters)
        assert caught.value.name == name

    # --- letting it work --------------------------------------------------------------------------

    def until(self, condition: Callable[[], object]) -> None:
        self.run(settled(condition))

    def finish(self) -> None:
        """Until no task is worked on."""
        self.until(lambda: not self.moves.moving.running)

    def moved(self, amount: int, source: str = "dlq") -> None:
        """Assert that the task that runs has moved so many, and no more at this moment of the clock."""
        self.until(lambda: self.moves.moving.at_rest)
        assert self.status(source) == ("RUNNING", amount)

    def advance(self, seconds: float) -> None:
        """Move the clock, and let the work do what it does then."""
        self.bench.advance(seconds)

        async def wake() -> None:
            self.moves.moving.wake()
            await settled(lambda: self.moves.moving.at_rest)

        self.run(wake())

    # --- queues -----------------------------------------------------------------------------------

    def pipe(self, source: str = "orders", letters: str = "dlq") -> None:
        """A queue, and the one that its dead letters go to."""
        self.bench.create(letters)
        self.bench.create(source, max_deliveries=1, dead_letter=letters)

    def die(self, *contents: bytes, queue: str = "orders", **options: Any) -> list[int]:
        """Send messages, and let each fail; their numbers."""
        numbers = [*self.bench.send(queue, *contents, **options).numbers]
        for _ in numbers:
            (message,) = self.bench.receive(queue, 1, 60_000)
            self.bench.release(queue, message)
        return numbers

    def drain(self, queue: str) -> list[Message]:
        """Take all that is ready, group by group as it becomes so."""
        taken: list[Message] = []
        while messages := self.bench.receive(queue, 100):
            taken += messages
        return taken


class _Client:
    disconnected = False

    def gone(self) -> asyncio.Future[None]:
        raise NotImplementedError

    def forget(self) -> None:
        """Nobody is watched."""


class Killer:
    """Lets a server die at its nth call of the store: that one is not made, nor any after it."""

    def __init__(self, store: Any, at: int) -> None:
        self.left = at
        self._store = store
        self._original = {verb: getattr(store, verb) for verb in _VERBS}
        for verb in _VERBS:
            setattr(store, verb, self._wrapped(verb))

    @property
    def dead(self) -> bool:
        return self.left <= 0

    def _wrapped(self, verb: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            self.left -= 1
            if self.dead:
                failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                failed.set_exception(StoreClosed())
                return failed
            return self._original[verb](*args, **more)

        return call

    def leave(self) -> None:
        for verb in _VERBS:
            delattr(self._store, verb)


def texts(messages: Sequence[Message]) -> Iterator[bytes]:
    return (message.content for message in messages)
