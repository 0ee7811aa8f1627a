"""One call of an action, whichever protocol it came in, and how its handler answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from windlass.server.lane import Request

Result = dict[str, Any]
"""An answer as the JSON protocol has it; bytes stand for base64."""
Begun = tuple["asyncio.Future[Any]", Callable[[Any], Result]]
"""What a hot action waits for, and how its answer is made of it; either may raise SqsError, WindlassError."""


class Call(msgspec.Struct, gc=False):
    """What a handler is given."""

    action: str
    body: Any
    """An instance of the action's class in requests.py: parameters that are there have the right type."""
    request: Request
    """Who asks (`principal`), from where, how the client came (`origin`), with all headers."""
    queue: str
    """The name of the queue that it is about, checked to be one; "" where the action is about none."""
    query: bool
    """True in the query protocol, whose answers are XML."""


def as_it_is(result: Result) -> Result:
    """How an answer is made of what is one."""
    return result


Hot = Callable[[Call], Begun]
Slow = Callable[[Call], Awaitable[Result]]
