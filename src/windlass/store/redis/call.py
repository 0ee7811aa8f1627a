"""A call of one function, on its way to a server. Those of one verb and one queue travel as one command."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from windlass.store.operation import Operation

R = TypeVar("R")

Argument = str | bytes | int

_STRUCTURAL = frozenset({"configure", "purge", "destroy", "register", "unregister", "readdress"})

ORDER = (
    "attend", "send", "send_with", "arrive", "acknowledge", "extend", "release", "cancel",
    "expire", "note_due", "set_due", "claim_due", "receive", *_STRUCTURAL,
)  # fmt: skip
"""In which order verbs that come together are done: they are all under way at once, so any is right. What
brings messages goes before what takes them."""

REGISTRY = 0
"""The number of what all queues share, where others have a queue's."""
TOLD = -1
"""... and of what servers tell each other."""


class Call(Operation[Any]):
    """One call. `decode` makes its result of the answer, or its part of a common one."""

    __slots__ = (
        "abandoned", "args", "decode", "elsewhere", "label", "number", "parts", "size", "tries", "verb",
    )  # fmt: skip

    def __init__(
        self,
        future: Future[Any],
        verb: str,
        number: int,
        args: Sequence[Argument],
        decode: Callable[[Any], Any],
        *,
        parts: int = 0,
        label: Argument | None = None,
        size: int = 0,
        abandoned: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(future)
        self.verb = verb
        self.number = number
        self.args = args
        self.decode = decode
        self.parts = parts
        """How many parts of a common answer are its own; 0: it travels alone."""
        self.label = label
        """What stands for it at the front of a common command."""
        self.size = size
        """Bytes."""
        self.abandoned = abandoned
        """Whether its caller is gone."""
        self.elsewhere: Callable[[Any], Awaitable[Any]] | None = None
        """What makes its result whole where some of its messages were moved to other queues."""
        self.tries = 0


class Bundle(msgspec.Struct, gc=False):
    """Calls that travel as one command."""

    verb: str
    number: int
    calls: list[Call]
    parts: int = 0
    size: int = 0

    def args(self) -> Iterable[Argument]:
        calls = self.calls
        if calls[0].label is not None:
            return [len(calls), *(call.label for call in calls), *_chained(calls)]  # type: ignore[list-item]
        return calls[0].args if len(calls) == 1 else _chained(calls)

    def settle(self, answer: Any) -> None:
        """Give each call its part."""
        if not self.parts:
            self.calls[0].result = self.calls[0].decode(answer)
            return
        at = 0
        for call in self.calls:
            call.result = call.decode(answer[at : at + call.parts])
            at += call.parts


def _chained(calls: Sequence[Call]) -> list[Argument]:
    return [argument for call in calls for argument in call.args]


_MOST_PARTS = 1_000
_MOST_BYTES = 8 * 1024 * 1024
_RANK = {verb: rank for rank, verb in enumerate(ORDER)}


def bundles(calls: Iterable[Call]) -> list[Bundle]:
    """Calls put together, and in ORDER; those of one verb and queue stay in the order in which they came.

    What changes a queue itself stays where it is: what came before it is done before it.
    """
    made: list[Bundle] = []
    run: list[Call] = []
    for call in calls:
        run.append(call)
        if call.verb in _STRUCTURAL:
            made += _run(run)
            run = []
    return made + _run(run)


def _run(calls: Sequence[Call]) -> list[Bundle]:
    open_ones: dict[tuple[str, int], Bundle] = {}
    made: list[Bundle] = []
    for call in calls:
        key = call.verb, call.number
        bundle = open_ones.get(key) if call.parts else None
        if bundle is None or bundle.parts + call.parts > _MOST_PARTS or bundle.size + call.size > _MOST_BYTES:
            bundle = Bundle(call.verb, call.number, [])
            made.append(bundle)
            if call.parts:
                open_ones[key] = bundle
        bundle.calls.append(call)
        bundle.parts += call.parts
        bundle.size += call.size
    made.sort(key=lambda bundle: _RANK.get(bundle.verb, 5))
    return made


def new_future() -> Future[Any]:
    return asyncio.get_running_loop().create_future()


def whole(answer: Any) -> Any:
    """`decode` of a call whose result is the answer as it is."""
    return answer


def failed(error: Exception) -> Future[Any]:
    """What stands for a call that is not made."""
    future = new_future()
    future.set_exception(error)
    return future


def optional(value: str | bytes | None) -> Argument:
    """An argument that may be None, as the functions read it."""
    if value is None:
        return "-"
    return b"+" + value if isinstance(value, bytes) else "+" + value
