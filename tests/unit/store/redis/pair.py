"""Two servers' stores on one Redis, driven step by step; one may be ended between two steps of a verb."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.redis_server import shared_redis
from windlass.clock import ManualClock
from windlass.message import Message
from windlass.store.redis.address import parse
from windlass.store.redis.store import RedisStore

R = TypeVar("R")

Ask = Callable[[str, int, Sequence[Any]], Awaitable[Any]]


class Cut(Exception):  # noqa: N818 - a server that ends is no error
    """The server ended here."""


class Pair:
    """`one` and `other`, and the loop and the clock that both go by."""

    def __init__(self) -> None:
        shared_redis().empty()
        self.clock = ManualClock()
        self.loop = asyncio.new_event_loop()
        self.one = self.open()
        self.other = self.open()

    def open(self) -> RedisStore:
        return RedisStore(parse(shared_redis().url), clock=self.clock)

    def close(self) -> None:
        self.one.close()
        self.other.close()
        self.loop.close()

    def run(self, call: Callable[[], Awaitable[R]]) -> R:
        async def run() -> R:
            return await call()

        return self.loop.run_until_complete(run())

    def create(self, name: str, **settings: Any) -> int:
        """A queue that both know; its number."""
        self.run(lambda: self.one.create_queue(name, settings))
        self.run(self.other.refresh)
        return self.one.queue_number(name)

    def send(self, queue: str, *contents: bytes) -> list[int]:
        return list(self.run(lambda: self.one.send(queue, contents)).numbers)

    def take(self, queue: str, limit: int = 1, lease: int | None = None) -> list[Message]:
        return self.run(lambda: self.one.receive(queue, limit, lease))

    def give_back(self, queue: str, message: Message, store: RedisStore | None = None) -> None:
        store = store or self.one
        self.run(lambda: store.release(queue, message.number, message.delivery))

    def ready(self, queue: str) -> int:
        return self.run(lambda: self.one.queue(queue)).ready

    def settle(self, store: RedisStore) -> None:
        """Let one server do what is due."""
        while (due := self.run(store.expire)) is not None and due <= self.clock.now():
            pass


@contextmanager
def interposed(store: RedisStore, make: Callable[[Ask], Ask]) -> Iterator[None]:
    """What a store's steps go through meanwhile: whatever `make` makes of the way there."""
    parts: tuple[Any, ...] = (store._upkeep, store._administration)
    before = [part._ask for part in parts]
    for part in parts:
        part._ask = make(part._ask)
    try:
        yield
    finally:
        for part, ask in zip(parts, before, strict=True):
            part._ask = ask


def raising(verb: str, error: Exception, *, done: bool = False) -> Callable[[Ask], Ask]:
    """A step that raises before it is done, or behind that."""

    def make(ask: Ask) -> Ask:
        async def asked(wanted: str, number: int, args: Sequence[Any]) -> Any:
            if wanted == verb and not done:
                raise error
            reply = await ask(wanted, number, args)
            if wanted == verb:
                raise error
            return reply

        return asked

    return make
