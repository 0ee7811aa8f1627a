"""Calls that wait for their answers, one after the other: for a store that no server has open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from windlass.clock import Clock
from windlass.store.redis.address import Address
from windlass.store.redis.call import REGISTRY, Argument
from windlass.store.redis.clock import ServerClock
from windlass.store.redis.faults import unavailable
from windlass.store.redis.link import Link
from windlass.store.redis.topology import Topology

_PATIENCE = 60.0
"""Seconds for an answer: nobody waits behind it."""


class Direct:
    """A store's servers, spoken to by one caller."""

    def __init__(self, address: Address, clock: Clock | None = None) -> None:
        """`clock` None: the servers' own. Raises StartError, StoreUnavailable; blocks."""
        self.address = address
        topology = Topology(address, patience=_PATIENCE)
        try:
            self.link = Link(topology, address.prefix, clock or ServerClock(), "copy")
        except redis.RedisError as error:
            topology.close()
            raise unavailable(error) from error

    def ask(self, verb: str, number: int, args: Sequence[Argument]) -> Any:
        """What a function answers. Raises QueueNotFound, StoreUnavailable."""
        return self.link.ask_now(verb, number, *args)

    def do(self, number: int, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """The answers to plain commands about one queue, sent together. Raises StoreUnavailable."""
        if not commands:
            return []
        try:
            with self.node(number).pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                answers: list[Any] = pipeline.execute()
                return answers
        except redis.RedisError as error:
            raise unavailable(error) from error

    def node(self, number: int) -> redis.Redis:
        """Whoever serves a queue."""
        return self.link.topology.node(self.link.key_of(number)[0].encode()).client

    def key(self, number: int, name: str) -> str:
        """A key of a queue, or of the registry."""
        return self.link.key_of(number)[0][:-1] + name

    def now(self) -> int:
        """The time by which the store goes, ms."""
        if not isinstance(self.link.clock, ServerClock):
            return self.link.clock.now()
        try:
            seconds, micros = self.node(REGISTRY).time()
        except redis.RedisError as error:
            raise unavailable(error) from error
        return int(seconds) * 1000 + int(micros) // 1000

    def close(self) -> None:
        self.link.close()
