"""The actions about queues on one store, called as whichever protocol would call them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.contract.bench import Bench
from windlass.errors import WindlassError
from windlass.queues import Queues
from windlass.server.auth import ANYBODY, Principal
from windlass.server.lane import Request
from windlass.server.sqs import errors, names
from windlass.server.sqs.call import Call, Result
from windlass.server.sqs.errors import SqsError
from windlass.server.sqs.queues import QueueActions
from windlass.server.sqs.requests import ACTIONS

BASE = "http://localhost:8000"


class Nobody:
    """Who asks, and stays."""

    disconnected = False

    def gone(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def forget(self) -> None:
        """There is nothing to forget."""


class Face:
    """The actions of one server."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.queues = Queues(bench.store, bench.clock)
        self.changed: list[str] = []
        self._actions = QueueActions(self.queues, self.changed.append).actions

    async def ask(self, action: str, principal: Principal = ANYBODY, **parameters: Any) -> Result:
        """Raises SqsError, and nothing else on purpose."""
        body = msgspec.convert(parameters, ACTIONS[action])
        queue = names.name_of_url(parameters["QueueUrl"]) if "QueueUrl" in parameters else ""
        request = Request(
            handler=_no_handler,
            face="sqs",
            method="POST",
            path="/",
            queue=queue,
            rest="",
            query=b"",
            headers={b"host": BASE.removeprefix("http://").encode()},
            where={},
            client=Nobody(),
            principal=principal,
        )
        try:
            return await self._actions[action](Call(action, body, request, queue, False))
        except WindlassError as error:
            raise errors.of(error) from error

    def __call__(self, action: str, principal: Principal = ANYBODY, **parameters: Any) -> Result:
        return self.bench.loop.run_until_complete(self.ask(action, principal, **parameters))

    def refused(self, action: str, principal: Principal = ANYBODY, **parameters: Any) -> tuple[str, str]:
        """(name, message) of the error that an action ends in."""
        with pytest.raises(SqsError) as error:
            self(action, principal, **parameters)
        return error.value.name, error.value.message

    # --- shorthands -------------------------------------------------------------------------------

    def create(self, name: str, **attributes: str) -> str:
        """A queue's URL."""
        return str(self("CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"])

    def attributes(self, queue: str, *names: str) -> dict[str, str]:
        found = self("GetQueueAttributes", QueueUrl=queue, AttributeNames=list(names or ["All"]))
        attributes: dict[str, str] = found.get("Attributes", {})
        return attributes

    def set(self, queue: str, **attributes: str) -> None:
        assert self("SetQueueAttributes", QueueUrl=queue, Attributes=attributes) == {}

    def tags(self, queue: str) -> dict[str, str]:
        tags: dict[str, str] = self("ListQueueTags", QueueUrl=queue)["Tags"]
        return tags


def _no_handler(_: Request) -> Any:
    raise AssertionError("an action is called by its name")
