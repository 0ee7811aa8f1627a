"""Connections of clients of SQS: those that hang up while they wait, and many requests on one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.http.served import Caller, Served, settled
from tests.contract.sqs.wire import FORM, Wire
from tests.unit.server.test_protocol import Line, request
from windlass.queues.waiting import Lines

TARGET = "x-amz-target", "AmazonSQS.ReceiveMessage"
WAITS = {
    "json": (json.dumps({"QueueUrl": "q", "WaitTimeSeconds": 20}).encode(), TARGET),
    "json, slowly": (
        json.dumps({"QueueUrl": "q", "WaitTimeSeconds": 20, "AttributeNames": ["All"]}).encode(),
        TARGET,
    ),
    "query": (b"Action=ReceiveMessage&QueueUrl=q&WaitTimeSeconds=20", ("content-type", FORM)),
}


def idle(lines: Lines) -> bool:
    """Whether somebody waits, and no attempt is on its way."""
    return len(lines) > 0 and all(each.idle for line in lines._lines.values() for each in line)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "data") as served:
        yield served


@pytest.mark.parametrize("way", WAITS)
@pytest.mark.parametrize("road", ["asgi", "protocol"])
def test_who_hung_up_takes_nothing(served: Served, road: str, way: str) -> None:
    """Planted defect: a receive that does not say who waits: the message is leased to nobody."""
    wire = Wire(served)
    url = wire.create("q")
    body, header = WAITS[way]

    async def scenario() -> Any:
        lines = served.app.queues.lines
        if road == "asgi":
            caller = Caller(served, "POST", "/", body, headers=[(header[0].encode(), header[1].encode())])
            await settled(lambda: idle(lines))
            caller.hang_up()
        else:
            line = Line(served)
            line.say(request("POST", "/", body, ": ".join(header)))
            await settled(lambda: idle(lines))
            line.wire.close()
        for _ in range(10):  # turns of the loop, in which it is known that they are gone
            await asyncio.sleep(0)
        await served.app.store.send("q", [b'"x"'])
        asked = {"x-amz-target": "AmazonSQS.ReceiveMessage"}
        return (await served.ask("POST", "/", {"QueueUrl": url}, headers=asked)).json()

    assert served.run(scenario())["Messages"][0]["Body"] == "x"


@pytest.mark.parametrize("way", WAITS)
def test_who_hangs_up_while_it_is_woken_takes_nothing(served: Served, way: str) -> None:
    """Planted defect: the store is not told who the message is for, and leases it before it is known that
    they are gone."""
    wire = Wire(served)
    url = wire.create("q")
    body, header = WAITS[way]
    receive = served.app.store.receive

    async def scenario() -> None:
        line, over = Line(served), asyncio.Event()
        line.say(request("POST", "/", body, ": ".join(header)))
        lines = served.app.queues.lines
        await settled(lambda: idle(lines))

        async def hanging_up(*wanted: Any, **how: Any) -> Any:
            line.wire.close()
            await settled(lambda: wanted[-1].disconnected)
            taken = await receive(*wanted, **how)
            over.set()
            return taken

        served.app.store.receive = hanging_up  # type: ignore[method-assign]
        await served.app.store.send("q", [b'"x"'])
        await asyncio.wait_for(over.wait(), 60)
        await settled(lambda: not len(lines))
        served.app.store.receive = receive  # type: ignore[method-assign]

    served.run(scenario())
    assert wire.bodies(url) == ["x"]


def test_requests_one_behind_the_other(served: Served) -> None:
    """Both protocols on one connection, in pieces. Planted defect: a form in the place of the next one's."""
    wire = Wire(served)
    url = wire.create("q")
    bodies = [json.dumps({"QueueUrl": "q", "MessageBody": str(n)}).encode() for n in range(3)]
    sends = [request("POST", "/", body, "x-amz-target: AmazonSQS.SendMessage") for body in bodies]
    form = request("POST", "/000000000000/q", b"Action=SendMessage&MessageBody=3", f"content-type: {FORM}")
    late = request("POST", "/", bodies[0], "x-amz-target: AmazonSQS.SendMessage", "expect: 100-continue")

    async def scenario() -> bytes:
        line = Line(served)
        whole = b"".join([*sends, form, request("HEAD", "/"), late])
        line.say(whole[:100], whole[100:333], whole[333:])
        return await line.hear(lambda heard: heard.count(b"x-amzn-requestid: ") == 5)

    heard = served.run(scenario())
    assert heard.count(b"HTTP/1.1 200 ") == 5
    assert heard.count(b"HTTP/1.1 405 ") + heard.count(b"HTTP/1.1 404 ") == 1
    assert wire.bodies(url) == ["0", "1", "2", "3", "0"]
