"""What one server of a shared store did, another knows in the very next request: queues, keys, runners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.http.served import Served, refused, settled
from tests.contract.servers import Several
from tests.unit.server.signing import in_chunks, signed
from windlass.server import app as application
from windlass.server import control
from windlass.server.auth import Principal
from windlass.server.sigv4 import AccessKeyUnknown
from windlass.store import Runner as Registered
from windlass.store import Store

SECRET = "let me in"


class Pair:
    """Two servers of one store, over HTTP."""

    def __init__(self, several: Several, road: str) -> None:
        self.several = several
        more: dict[str, Any] = {"road": road, "clock": several.clock, "registration_token": SECRET}
        self.a = Served(several.home.parent / "a", **more)
        self.b = Served(several.home.parent / "b", beside=self.a, **more)
        for server in (self.a, self.b):
            assert server("GET", "/health").status_code == 200

    def run(self, scenario: Any) -> Any:
        return self.a.run(scenario)

    def close(self) -> None:
        self.b.close()
        self.a.close()


@pytest.fixture(params=["asgi", "protocol"])
def pair(request: pytest.FixtureRequest, several: Several, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    def opened(*_: object, **__: object) -> Store:
        return several.open()

    monkeypatch.setattr(application, "open_store", opened)
    made = Pair(several, request.param)
    several.silent = True  # the next request finds out by itself
    yield made
    made.close()


def key_of(server: Served, **wanted: Any) -> dict[str, str]:
    """A new key: its id, and the header that it goes in."""
    made = server.run(control.act(server.app, {"do": "create_key", "scopes": ["all"], **wanted}))
    return {"id": made["id"], "authorization": f"Bearer {made['key']}"}


def header(key: dict[str, str]) -> dict[str, str]:
    return {"authorization": key["authorization"]}


# --- queues ---------------------------------------------------------------------------------------


REQUESTS: dict[str, Callable[[Served], Any]] = {
    "send": lambda a: a("POST", "/queues/q/messages", {"content": 1}),
    "get": lambda a: a("GET", "/queues/q/messages"),
    "get and wait": lambda a: a("GET", "/queues/q/messages?wait=0.01"),
    "receive": lambda a: a("POST", "/queues/q/receive", {"lease": 5}),
    "many acks": lambda a: a("POST", "/queues/q/acks", {"acks": [{"receipt": "x"}]}),
    "show": lambda a: a("GET", "/queues/q"),
    "change": lambda a: a("PATCH", "/queues/q", {"lease_seconds": 7}),
    "peek": lambda a: a("GET", "/queues/q/peek"),
    "purge": lambda a: a("POST", "/queues/q/purge"),
    "redrive": lambda a: a("POST", "/queues/q/redrive", {"max": 1}),
    "delete": lambda a: a("DELETE", "/queues/q"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_queue_made_elsewhere_is_there_in_the_next_request(pair: Pair, name: str) -> None:
    """Planted defect: a queue that memory does not know is answered 404 without a question to the store.

    On either road, on FastAPI's routes, and with a body, which is read once and needed twice.
    """
    pair.b.queue("q")
    answer = REQUESTS[name](pair.a)
    assert answer.status_code < 300, answer.text


def test_a_receipt_of_a_queue_made_elsewhere_is_good_here(pair: Pair) -> None:
    """Planted defect: as above, on the routes of one receipt."""
    pair.b.queue("q")
    receipts = []
    for n in range(2):
        pair.b.send(n)
        receipts.append(pair.b.receive(lease=30)["receipt"])
    assert pair.a("PATCH", f"/queues/q/receipts/{receipts[0]}", {"lease": 60}).status_code == 200
    assert [pair.a.acknowledge(receipt).status_code for receipt in receipts] == [204, 204]


def test_a_batch_is_changed_once_though_one_of_its_receipts_is_of_a_queue_made_elsewhere(pair: Pair) -> None:
    """Planted defect: the good ones are changed before the last is found unknown, and the batch tried again
    finds them changed already."""

    def ask(server: Served, action: str, **parameters: Any) -> Any:
        answer = server("POST", "/", parameters, headers={"x-amz-target": f"AmazonSQS.{action}"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def received(server: Served, queue: str) -> str:
        server.queue(queue)
        ask(server, "SendMessage", QueueUrl=queue, MessageBody="x")
        handle: str = ask(server, "ReceiveMessage", QueueUrl=queue)["Messages"][0]["ReceiptHandle"]
        return handle

    mine, foreign = received(pair.a, "q"), received(pair.b, "other")
    entries = [
        {"Id": "mine", "ReceiptHandle": mine, "VisibilityTimeout": 0},
        {"Id": "foreign", "ReceiptHandle": foreign, "VisibilityTimeout": 0},
    ]
    changed = ask(pair.a, "ChangeMessageVisibilityBatch", QueueUrl="q", Entries=entries)
    assert changed["Successful"] == [{"Id": "mine"}]
    assert [each["Code"] for each in changed["Failed"]] == ["ReceiptHandleIsInvalid"]


def test_a_queue_made_anew_elsewhere_is_another_queue(pair: Pair) -> None:
    """Planted defect: only a name that is unknown is asked for, and not a receipt under an unknown number."""
    pair.b.queue("q")
    old = pair.a.send("old")
    assert pair.b("DELETE", "/queues/q").status_code == 204
    pair.b.queue("q")
    pair.b.send("new")
    receipt = pair.b.receive(lease=30)["receipt"]
    assert pair.a.acknowledge(receipt).status_code == 204
    refused(pair.a("GET", f"/queues/q/messages/{old}"), 410, "message_gone")


def test_many_receipts_of_a_queue_made_anew_elsewhere(pair: Pair) -> None:
    """Planted defect: as above, where one of many receipts may be unknown: it counts as gone."""
    pair.b.queue("q")
    assert pair.a.receive() is None
    assert pair.b("DELETE", "/queues/q").status_code == 204
    pair.b.queue("q")
    pair.b.send("new")
    receipt = pair.b.receive(lease=30)["receipt"]
    answer = pair.a("POST", "/queues/q/acks", {"acks": [{"receipt": receipt}, {"receipt": "no receipt"}]})
    assert [each["status"] for each in answer.json()["results"]] == ["acknowledged", "unknown"]


def test_a_message_that_died_in_a_queue_unknown_here_is_found(pair: Pair) -> None:
    """Planted defect: a message whose first queue is unknown here is taken to be gone with it."""
    pair.a.queue("dead")
    pair.b("GET", "/queues/dead")
    pair.b.queue("q", dead_letter="dead", max_deliveries=1)
    one = pair.b.send("x")
    receipt = pair.b.receive(lease=30)["receipt"]
    assert pair.b("PATCH", f"/queues/q/receipts/{receipt}", {"lease": 0}).status_code == 204
    assert pair.a("GET", f"/queues/dead/messages/{one}").json()["state"] == "ready"


def test_a_queue_deleted_elsewhere_is_gone_and_one_that_is_nowhere_not_found(pair: Pair) -> None:
    """Planted defect: a request is tried again without end, or on the word of a memory that is behind."""
    pair.b.queue("q")
    pair.a.send(1)
    assert pair.b("DELETE", "/queues/q").status_code == 204
    for path in ("/queues/q/messages", "/queues/nowhere/messages", "/queues/q", "/queues/nowhere"):
        refused(pair.a("GET", path), 404, "queue_not_found")
    refused(pair.a("POST", "/queues/nowhere/messages", {"content": 1}), 404, "queue_not_found")
    refused(pair.a("PATCH", "/queues/nowhere", {"lease_seconds": 1}), 404, "queue_not_found")


def test_a_queue_that_is_known_costs_no_question_and_one_that_is_not_a_single_one(pair: Pair) -> None:
    """Planted defects: `learn` before each request; or again for each try."""
    pair.b.queue("q")
    calls = pair.a.app.store.calls
    pair.a("POST", "/queues/q/messages", {"content": 1})
    known = calls["learn"]
    assert known <= 1  # none, where this server was told in time
    pair.a("POST", "/queues/q/messages", {"content": 1})
    assert calls["learn"] == known
    pair.a("POST", "/queues/none/messages", {"content": 1})
    assert calls["learn"] == known + 1
    pair.a("GET", "/queues/neither")
    assert calls["learn"] == known + 2


def test_what_was_changed_elsewhere_holds_here(pair: Pair) -> None:
    """Fails where settings, or a pause, come from what memory holds."""
    pair.a.queue("q")
    pair.a.send("a large one")
    pair.b("PATCH", "/queues/q", {"max_message_bytes": 5})
    refused(pair.a("POST", "/queues/q/messages", {"content": "a large one"}), 413, "too_large")
    pair.b("POST", "/queues/q/pause")
    assert pair.a.receive() is None
    pair.b("POST", "/queues/q/resume")
    assert pair.a.receive()["content"] == "a large one"


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_made_elsewhere_opens_this_door_too(pair: Pair) -> None:
    """Planted defect: 401 for a key that memory does not know. On hot routes, and on FastAPI's."""
    first = key_of(pair.a)
    pair.a("POST", "/queues", {"name": "q"}, headers=header(first))
    for path in ("/queues/q/messages", "/queues/q"):
        assert pair.a("GET", path, headers=header(key_of(pair.b))).status_code < 300
    answer = pair.a("POST", "/queues/q/messages", {"content": 1}, headers=header(key_of(pair.b)))
    assert answer.status_code == 201
    refused(pair.a("GET", "/queues", headers={"authorization": "Bearer wk_0_0"}), 401, "unauthenticated")


def test_an_access_key_made_elsewhere_is_looked_for(pair: Pair) -> None:
    """Planted defect: a client of SQS that signs with another server's new key is refused."""
    key_of(pair.a)
    made = pair.b.run(control.act(pair.b.app, {"do": "create_key", "scopes": ["send:q"], "name": "shop"}))
    request = signed(pair=(made["access_key_id"], made["secret_access_key"]))
    app = pair.a.app

    def enter() -> Principal:
        parts = request.method, request.path, request.query, request.headers, request.body
        return app.door.enter_signed(*parts, {})[0]

    with pytest.raises(AccessKeyUnknown) as caught:
        enter()
    assert app.behind.concerns(caught.value)
    assert pair.run(app.behind.make_up(caught.value, "", b""))
    assert enter().name == "shop"
    another = pair.b.run(control.act(pair.b.app, {"do": "create_key", "scopes": ["all"]}))
    keys = another["access_key_id"], another["secret_access_key"]
    request = signed(body=b"{}", headers={"X-Amz-Target": "AmazonSQS.ListQueues"}, pair=keys)
    answer = pair.a("POST", "/", request.body, headers=list(request.headers))
    assert answer.status_code == 200, answer.text
    for nobodys in ("WINDLASS00000000", "AKIAIOSFODNN7EXAMPLE", "WINDLASS"):
        assert not pair.run(app.behind.make_up(AccessKeyUnknown(nobodys), "", b""))


def test_signed_chunks_for_a_queue_made_elsewhere_are_read_again(pair: Pair) -> None:
    """Planted defect: the body is out of its chunks when it is tried again: no longer what was signed."""
    pair.b.queue("q")
    made = pair.a.run(control.act(pair.a.app, {"do": "create_key", "scopes": ["all"]}))
    request = in_chunks(
        b'{"QueueUrl": "q", ',
        b'"MessageBody": "rope"}',
        headers={"X-Amz-Target": "AmazonSQS.SendMessage"},
        pair=(made["access_key_id"], made["secret_access_key"]),
    )
    answer = pair.a("POST", "/", request.body, headers=list(request.headers))
    assert answer.status_code == 200, answer.text


def test_a_key_made_or_revoked_elsewhere_counts_once_this_server_is_told(pair: Pair) -> None:
    """Planted defect: the door is not told of what the store is told of."""
    pair.several.silent = False
    assert pair.a.app.door.open
    key = key_of(pair.b)
    door = pair.a.app.door
    pair.run(settled(lambda: not door.open))
    refused(pair.a("GET", "/queues"), 401, "unauthenticated")
    assert pair.a("GET", "/queues", headers=header(key)).status_code == 200
    key_of(pair.b)
    pair.b.run(control.act(pair.b.app, {"do": "revoke_key", "id": key["id"]}))
    pair.run(settled(lambda: not door.knows(key["authorization"].removeprefix("Bearer ").encode())))
    refused(pair.a("GET", "/queues", headers=header(key)), 401, "unauthenticated")


def test_a_key_revoked_elsewhere_opens_no_more_though_nobody_told(pair: Pair) -> None:
    """Planted defect: the registry is read anew only when somebody tells of it, or asks for it."""
    key, _ = key_of(pair.b), key_of(pair.b)
    assert pair.a("GET", "/queues", headers=header(key)).status_code == 200
    looks = pair.a.app.store.calls

    async def scenario() -> None:
        before = looks["refresh"]
        pair.a.app.queues.start()
        await settled(lambda: looks["refresh"] > before)
        await control.act(pair.b.app, {"do": "revoke_key", "id": key["id"]})
        await settled(lambda: len(pair.a.app.store.keys()) == 1)

    pair.run(scenario())
    refused(pair.a("GET", "/queues", headers=header(key)), 401, "unauthenticated")


def test_a_flood_of_bad_keys_is_no_flood_of_questions(pair: Pair) -> None:
    """Planted defect: each unknown key is a call of the store. And the good one among them gets in."""
    key_of(pair.a)
    good = key_of(pair.b)
    keys = [{"authorization": f"Bearer wk_0_{n}"} for n in range(200)] + [header(good)]
    calls = pair.a.app.store.calls
    before = calls["refresh"]

    async def flood() -> list[int]:
        answers = await asyncio.gather(*[pair.a.ask("GET", "/queues", headers=key) for key in keys])
        return [answer.status_code for answer in answers]

    assert pair.run(flood()) == [401] * 200 + [200]
    assert 1 <= calls["refresh"] - before <= 5


# --- runners --------------------------------------------------------------------------------------


class Runner:
    """A runner that was registered on one server, and may ask any."""

    def __init__(self, server: Served, **more: Any) -> None:
        answer = server("POST", "/runners/register", {"registration_token": SECRET, "name": "r", **more})
        assert answer.status_code == 201, answer.text
        self.id = answer.json()["data"]["runner_id"]
        self.headers = {"authorization": f"Bearer {answer.json()['data']['token']}"}

    def ask(self, server: Served, method: str, path: str, body: Any = None) -> Any:
        return server(method, f"/runners/{self.id}{path}", body, headers=self.headers)


def test_a_runner_registered_elsewhere_is_known_here(pair: Pair) -> None:
    """Planted defect: 401 for a token that memory does not know; on a hot route, and on FastAPI's."""
    assert Runner(pair.b).ask(pair.a, "POST", "/heartbeat").status_code == 204
    assert Runner(pair.b).ask(pair.a, "GET", "/next-job").status_code == 204
    assert Runner(pair.b).ask(pair.a, "PUT", "/jobs/jb_x/abort", {"reason": "x"}).status_code == 404
    made_up = {"authorization": "Bearer rk_made_up"}
    refused(pair.a("POST", f"/runners/{Runner(pair.b).id}/heartbeat", headers=made_up), 401, "runner_unknown")


def test_a_list_of_queues_keeps_no_news_from_whoever_waits_for_it(several: Several) -> None:
    """Planted defect: what `GET /queues` and /status read counts as told: a runner that was registered
    elsewhere is refused here until something else changes."""
    several.silent = True  # nobody is told
    here, there = several.open(), several.open()

    async def scenario() -> None:
        await here.refresh()
        await there.add_runner(Registered(0, "r", b"x" * 32, (), (), 0, 0))
        await here.queues()
        await here.totals()
        assert await here.refresh()
        assert [runner.name for runner in here.runners()] == ["r"]
        assert not await here.refresh()

    asyncio.run(scenario())


def test_a_link_to_a_source_is_good_on_every_server(pair: Pair) -> None:
    """Planted defect: the runner that a link names is looked for in memory alone."""
    assert pair.a("POST", "/jobs", {"command": {"argv": ["true"]}}).status_code == 202
    runner = Runner(pair.b)
    job = runner.ask(pair.b, "GET", "/next-job").json()["data"]
    known = pair.run(pair.b.app.dispatch.runners.by_id(runner.id))
    answer = pair.a("GET", pair.b.app.dispatch.links.to(known, job["job_id"]))
    assert answer.json()["code"] == "submission_not_found"  # the link itself is good: a command has no source


def test_runners_and_their_jobs_are_listed_wherever_they_talk(pair: Pair) -> None:
    """Planted defects: signs of life, or holdings, from this process's memory alone."""
    runner = Runner(pair.b)
    pair.a("POST", "/jobs", {"command": {"argv": ["true"]}})
    job = runner.ask(pair.b, "GET", "/next-job").json()["data"]["job_id"]
    pair.run(pair.a.app.queues.registry.catch_up())
    pair.several.clock.advance(20)
    runner.ask(pair.b, "POST", "/heartbeat", {"active_job_ids": [job]})
    pair.several.clock.advance(70)
    runner.ask(pair.b, "POST", "/heartbeat", {"active_job_ids": []})
    (seen,) = pair.a("GET", "/runners").json()["runners"]
    assert (seen["runner_id"], seen["seconds_ago"], seen["jobs"]) == (runner.id, 0, 0)
    pair.a("POST", "/jobs", {"command": {"argv": ["true"]}})
    runner.ask(pair.b, "GET", "/next-job")
    assert [seen["jobs"] for seen in pair.a("GET", "/runners").json()["runners"]] == [1]


def test_status_says_that_the_store_is_shared(pair: Pair) -> None:
    status = pair.a("GET", "/status").json()
    assert (status["store"], status["shared"]) == (pair.a.app.store.kind, True)
