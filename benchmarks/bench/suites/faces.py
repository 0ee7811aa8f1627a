"""What the faces themselves cost: requests to send, from their parsed heads to their answers, over a store
that is done at once.

No aims: this names the limit behind the ratios of `sqs`. What the two faces have in common there (the wire,
the store, the disk) is left out, and what the protocol of SQS wants of each message is shown step by step.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import md5
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from bench.api import content
from bench.processes import scratch_directory
from bench.results import Options, Result, begin, finish
from bench.sqs import KIND
from windlass.message import Sent
from windlass.server.app import Windlass
from windlass.server.lane import head_of
from windlass.server.sqs.batches import check_entries
from windlass.server.sqs.known import Known
from windlass.server.sqs.requests import SendMessageBatch
from windlass.server.sqs.sending import outgoing
from windlass.settings import read

BATCH = 10
HTTP, SQS = "Windlass, HTTP", "Windlass, SQS"
_UNIT = "us/message"
_REQUESTS = 3_000
_WHERE = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "scheme": "http"}
_PLAIN = Known("bench", 1, False, 0, 0, -1, 30_000, 1_048_576, 2_097_152, False, False, 0.0)


def run(options: Options) -> None:
    result = begin("faces", options)
    result.notes.append("processor time of one thread; the least of three goes each round")
    with scratch_directory(options.scratch, "faces") as directory:
        asyncio.run(_measure(options, result, directory))
    for amount in (1, BATCH):
        metric = _metric(amount)
        result.ratio(f"{metric}: {SQS} / {HTTP}", (metric, SQS), (metric, HTTP))
    finish(result)


def _metric(amount: int) -> str:
    return "send" if amount == 1 else f"send {amount}"


async def _measure(options: Options, result: Result, directory: Path) -> None:
    app = Windlass(read(data_dir=directory / "data"))
    app.open()
    gc.freeze()  # both as the server does
    gc.set_threshold(50_000, 20, 50)
    try:
        await app.queues.create("bench", {})
        numbers = count(1 << 20, BATCH)

        def send(_queue: str, contents: Sequence[bytes], *_: object) -> asyncio.Future[Sent]:
            first = next(numbers)
            sent: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
            sent.set_result(Sent(1, range(first, first + len(contents))))
            return sent

        app.store.send = send  # type: ignore[assignment, method-assign]
        for round_ in range(1, options.rounds + 1):
            for amount in (1, BATCH):
                for face, ask in ((HTTP, _over_http(app, amount)), (SQS, _over_sqs(app, amount))):
                    metric = _metric(amount)
                    result.units[metric] = _UNIT
                    result.add(metric, face, round_, await _timed(ask) / amount)
            for step, take in _steps(app).items():

                async def go(take: Callable[[], object] = take) -> None:
                    take()

                result.units[step] = _UNIT
                result.add(step, f"{SQS}, of {BATCH}", round_, await _timed(go) / BATCH)
    finally:
        await app.close()


async def _timed(act: Callable[[], Awaitable[None]]) -> float:
    """Microseconds of the processor for one go."""
    goes = []
    for _ in range(3):
        began = time.thread_time()
        for _ in range(_REQUESTS):
            await act()
        goes.append((time.thread_time() - began) * 1e6 / _REQUESTS)
    return min(goes)


def _over_http(app: Windlass, amount: int) -> Callable[[], Awaitable[None]]:
    messages = [{"content": content(f"q{number}")} for number in range(amount)]
    body = json.dumps(messages[0] if amount == 1 else {"messages": messages}).encode()
    headers = [(b"host", b"127.0.0.1:8000"), (b"content-length", b"%d" % len(body))]
    return _asking(app, "/queues/bench/messages", headers, body, 201)


def _over_sqs(app: Windlass, amount: int) -> Callable[[], Awaitable[None]]:
    action, body = ("SendMessage", _body(1)) if amount == 1 else ("SendMessageBatch", _body(amount))
    headers = [
        (b"host", b"127.0.0.1:8000"),
        (b"content-type", KIND.encode()),
        (b"x-amz-target", f"AmazonSQS.{action}".encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    return _asking(app, "/", headers, body, 200)


def _body(amount: int) -> bytes:
    url = "http://127.0.0.1:8000/000000000000/bench"
    if amount == 1:
        return json.dumps({"QueueUrl": url, "MessageBody": content("q0")}).encode()
    entries = [{"Id": str(number), "MessageBody": content(f"q{number}")} for number in range(amount)]
    return json.dumps({"QueueUrl": url, "Entries": entries}).encode()


def _asking(
    app: Windlass, path: str, headers: list[tuple[bytes, bytes]], body: bytes, status: int
) -> Callable[[], Awaitable[None]]:
    async def ask() -> None:
        request = app.lane.find("POST", path, b"", headers, _WHERE, lambda: None)  # type: ignore[arg-type, return-value]
        assert request is not None
        request.body = body
        app.lane.enter(request)
        awaited, answer_of = request.begin()
        assert awaited is not None
        answer = answer_of(await awaited)
        head_of("POST", answer)
        assert answer[0] == status

    return ask


def _steps(app: Windlass) -> dict[str, Callable[[], object]]:
    """What a batch of SQS takes beside its request: name -> all ten of it."""
    body, decoder = _body(BATCH), msgspec.json.Decoder(SendMessageBatch)
    batch, encode, ids = decoder.decode(body), msgspec.json.Encoder().encode, app.queues.ids
    bodies = [entry.message_body.encode() for entry in batch.entries]
    run_of = range(1 << 20, (1 << 20) + BATCH)
    entry = {"MD5OfMessageBody": "0" * 32, "Id": "0", "MessageId": "0" * 36}
    answer: dict[str, Any] = {"Successful": [entry] * BATCH, "Failed": []}
    return {
        "read": lambda: decoder.decode(body),
        "check the entries": lambda: check_entries(batch.entries),
        "check and digest bodies": lambda: [outgoing(each, _PLAIN) for each in batch.entries],
        "of these, the digests": lambda: [md5(each, usedforsecurity=False).hexdigest() for each in bodies],
        "make ids": lambda: ids.uuids(1, run_of),
        "write the answer": lambda: encode(answer),
    }
