"""When to ask again, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from windlass.client.call import Answer, Call
from windlass.client.errors import (
    AnswerLost,
    ConnectionFailed,
    IdempotencyFull,
    Problem,
    Unreachable,
    WindlassError,
    from_answer,
)

T = TypeVar("T")

_PASSING = frozenset({429, 502, 503, 504})
"""Statuses that may be better in a moment: too many requests, a gateway, a store that does not answer."""


@dataclass(frozen=True)
class Retry:
    """How long to keep trying, where trying again can do no harm.

    `limit`: seconds after the first failure beyond which no new try begins; 0 never tries again,
    `float("inf")` never gives up. The pause begins at `first` seconds, doubles, and stops growing at
    `longest`; each is shortened at random by up to half, so that many clients do not come back at once.
    A server's Retry-After is honoured when it is longer. `wait_for_server`: False makes a server that
    cannot be reached at the very first try an error at once.
    """

    limit: float = 30.0
    first: float = 0.1
    longest: float = 5.0
    wait_for_server: bool = True


class Attempts(Generic[T]):
    """The tries of one call: reads answers, and decides about the next try. No IO, no sleeping."""

    def __init__(
        self,
        call: Call[T],
        retry: Retry,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.call = call
        self._retry = retry
        self._clock = clock
        self._chance = chance
        self._pause = retry.first
        self._give_up: float | None = None
        self._may_be_done = False

    def read(self, answer: Answer) -> T:
        """The result of the call; raises the error that the answer stands for."""
        if 200 <= answer.status < 300:
            return self.call.parse(answer)
        error = from_answer(answer.status, answer.headers, answer.body)
        if isinstance(error, Problem):
            done = self.call.done_on | (self.call.done_on_repeat if self._may_be_done else frozenset())
            if error.code in done:
                return self.call.parse(Answer(204, {}, b""))
        raise error

    def pause_after(self, error: WindlassError) -> float:
        """Seconds to wait before the next try of `self.call`; raises `error` when there must be none."""
        if isinstance(error, IdempotencyFull) and self.call.spare_key:
            # The server took nothing and cannot keep another key. The message matters more than the
            # key: send it bare, and from now on let a lost answer be the caller's to judge.
            self.call = self.call.without_key()
            return 0.0
        refused = isinstance(error, Problem) and error.status < 500
        if isinstance(error, AnswerLost) or (isinstance(error, Problem) and not refused):
            self._may_be_done = True
        error.in_doubt = self._may_be_done and not refused
        passing = isinstance(error, ConnectionFailed) or (
            isinstance(error, Problem) and error.status in _PASSING
        )
        if not passing or not self.call.repeatable:
            raise error
        now = self._clock()
        if self._give_up is None:
            if isinstance(error, Unreachable) and not self._retry.wait_for_server:
                raise error
            self._give_up = now + self._retry.limit
        pause = self._pause * (1 - self._chance() / 2)
        if isinstance(error, Problem) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        if now + pause > self._give_up:
            raise error
        self._pause = min(self._pause * 2, self._retry.longest)
        return pause
