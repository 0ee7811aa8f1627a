"""Windlass: `POST /jobs`, then `GET /jobs/{id}?wait=`, by a few lines over asyncio's streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from bench import tasks

_BODY = b'{"command":{"argv":["true"]}}'
_SUBMIT = b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_OUTCOME = b"GET /jobs/%s?wait=%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_idle: list[Connection] = []


async def connect() -> None:
    """Open a connection for each of those who ask at the same time."""
    _idle.extend([await asyncio.open_connection("127.0.0.1", tasks.port()) for _ in range(tasks.AT_ONCE)])


async def submit() -> str:
    found: dict[str, str] = json.loads(await _request(_SUBMIT, 202))
    return found["job_id"]


async def outcomes(handles: Sequence[Any]) -> list[int]:
    return [await _outcome(handle) for handle in handles]


async def _outcome(job_id: str) -> int:
    job = json.loads(await _request(_OUTCOME % (job_id.encode(), tasks.PATIENCE), 200))
    if job["state"] != "done":
        raise RuntimeError(f"{job_id} is {job['state']} after {tasks.PATIENCE} s")
    return int(job["result"]["tasks"][0][0]["stdout"])


async def _request(request: bytes, expected: int) -> bytes:
    reader, writer = connection = _idle.pop()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status, at = int(head[9:12]), head.index(b"\r\ncontent-length:")
    body = await reader.readexactly(int(head[at + 17 : head.index(b"\r\n", at + 2)]))
    if status != expected:
        raise RuntimeError(f"{status} instead of {expected}: {body!r}")
    _idle.append(connection)
    return body
