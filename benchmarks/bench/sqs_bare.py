"""The yardstick for boto3: an ASGI application that answers each action with bytes that were once given.

BENCH_ANSWERS names a JSON file: for each action its `status`, `headers` (pairs) and `body`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Answer = tuple[Message, Message]


def _answer(told: dict[str, Any]) -> Answer:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told["headers"]]
    return (
        {"type": "http.response.start", "status": told["status"], "headers": headers},
        {"type": "http.response.body", "body": told["body"].encode()},
    )


_ANSWERS = {
    f"AmazonSQS.{action}".encode(): _answer(told)
    for action, told in json.loads(Path(os.environ["BENCH_ANSWERS"]).read_text(encoding="utf-8")).items()
}


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    while (await receive()).get("more_body", False):
        pass
    for name, value in scope["headers"]:
        if name == b"x-amz-target":
            start, body = _ANSWERS[value]
            await send(start)
            await send(body)
