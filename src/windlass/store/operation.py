"""An operation: one call of a verb, on its way through a store, and the way back of its answer."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from typing import Generic, TypeVar

from windlass.message import Acknowledgement, Extension, Message, Once, Options, Sent, Settled
from windlass.store.base import Caller

R = TypeVar("R")


class Operation(Generic[R]):
    """What is asked, and where the answer goes. A verb fills in `result` or `error`."""

    __slots__ = ("error", "future", "result")

    def __init__(self, future: Future[R]) -> None:
        self.future = future
        self.result: R | None = None
        self.error: BaseException | None = None


class Send(Operation[Sent]):
    __slots__ = ("contents", "once", "options", "queue")

    def __init__(
        self,
        future: Future[Sent],
        queue: str,
        contents: Sequence[bytes],
        options: Sequence[Options] | None,
        once: Once | None,
    ) -> None:
        self.future = future
        self.result = self.error = None
        self.queue = queue
        self.contents = contents
        self.options = options
        self.once = once


class Receive(Operation[list[Message]]):
    __slots__ = ("caller", "claim", "holder", "lease", "limit", "queue", "whole_groups")

    def __init__(
        self,
        future: Future[list[Message]],
        queue: str,
        limit: int,
        lease: int | None,
        holder: str,
        caller: Caller | None,
        claim: str | None,
        whole_groups: bool,
    ) -> None:
        self.future = future
        self.result = self.error = None
        self.queue = queue
        self.claim = claim
        self.whole_groups = whole_groups
        self.limit = limit
        self.lease = lease
        self.holder = holder
        self.caller = caller

    @property
    def abandoned(self) -> bool:
        return self.future.cancelled() or (self.caller is not None and self.caller.disconnected)


class Acknowledge(Operation[list[Settled]]):
    __slots__ = ("acknowledgements", "queue")

    def __init__(
        self, future: Future[list[Settled]], queue: str, acknowledgements: Sequence[Acknowledgement]
    ) -> None:
        self.future = future
        self.result = self.error = None
        self.queue = queue
        self.acknowledgements = acknowledgements


class Extend(Operation[list[int | Settled]]):
    __slots__ = ("extensions", "queue")

    def __init__(
        self, future: Future[list[int | Settled]], queue: str | None, extensions: Sequence[Extension]
    ) -> None:
        self.future = future
        self.result = self.error = None
        self.queue = queue
        self.extensions = extensions
