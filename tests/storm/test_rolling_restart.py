"""Two servers on one Redis behind a balancer, each restarted in turn, or killed: what clients see of it."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.site import Site
from tests.harness import ServerProcess, until
from tests.postgresql import PostgreSQL
from tests.proxies import HAProxy, Nginx, Proxy
from tests.redis_server import RedisServer
from tests.storm.talk import sqs_headers
from windlass.client import Client, Retry

pytestmark = pytest.mark.storm

PATIENCE = 120.0
QUEUES = 3


@pytest.fixture
def servers(tmp_path: Path, postgresql: PostgreSQL) -> Iterator[list[ServerProcess]]:
    """Two, not yet started, of one installation."""
    redis = RedisServer()
    settings = {
        "WINDLASS_STORE": redis.url,
        "WINDLASS_DATABASE": postgresql.database(),
        "WINDLASS_REDIS": redis.url,
        "WINDLASS_BLOOM_EXPECTED_ITEMS": "1000",
    }
    both = [
        ServerProcess(tmp_path / name, environment=settings, ready_within=PATIENCE) for name in ("one", "two")
    ]
    yield both
    for server in both:
        if server.process is not None:
            server.kill()
    redis.close()


class Load:
    """Clients that send, receive with leases, acknowledge and poll, and what they have seen."""

    good = frozenset({"200", "201", "204", "404"})
    """The statuses that clients are told which never try again."""

    def __init__(self, url: str, *, plain: bool) -> None:
        """`plain`: clients that never try again are among them."""
        self._url = url
        self._stop = threading.Event()
        self._sent_all = threading.Event()
        self._room = {f"q{number}": threading.Semaphore(50) for number in range(QUEUES)}
        """So many messages are under way at most, so that the end has not long to wait."""
        self.sent: dict[str, list[str]] = defaultdict(list)
        """Sender -> what it was answered 201 for, in order."""
        self.acknowledged: dict[str, list[str]] = defaultdict(list)
        """Queue -> contents, in the order in which they were acknowledged."""
        self.again: list[str] = []
        """What was delivered more than once."""
        self.answers: Counter[str] = Counter()
        """What the clients that never try again were told."""
        self._create([f"q{number}" for number in range(QUEUES)])
        self._pool = ThreadPoolExecutor(20)
        self._senders = [
            self._pool.submit(self._send, f"q{number}", f"{number}-{each}")
            for number in range(QUEUES)
            for each in "ab"
        ]
        self._others = [self._pool.submit(self._receive, f"q{number}") for number in range(QUEUES)]
        self._others += [self._pool.submit(self._poll) for _ in range(2)]
        if plain:
            self._others += [self._pool.submit(self._ask) for _ in range(2)]
            self._others += [self._pool.submit(self._poll_plainly) for _ in range(2)]

    def _create(self, queues: list[str]) -> None:
        with Client(self._url) as client:
            for queue in queues:
                client.create_queue(queue, max_deliveries=100)
            client.create_queue("idle")
            client.create_queue("heap")

    def _client(self) -> Client:
        return Client(self._url, retry=Retry(limit=PATIENCE), timeout=PATIENCE)

    def _send(self, queue: str, sender: str) -> None:
        with self._client() as client:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                self._room[queue].acquire()
                client.queue(queue).send(f"{sender}-{number}")
                self.sent[sender].append(f"{sender}-{number}")

    def _receive(self, queue: str) -> None:
        with self._client() as client:
            while True:
                over = self._sent_all.is_set()  # before the look that finds nothing more
                batch = client.queue(queue).receive_batch(max=10, lease=10, wait=1)
                for message in batch:
                    message.acknowledge()
                    self._note_acknowledged(queue, message.content, message.deliveries)
                if over and not batch and client.queue(queue).show().leased == 0:
                    return

    def _note_acknowledged(self, queue: str, content: str, deliveries: int) -> None:
        if deliveries > 1:
            self.again.append(content)
        self.acknowledged[queue].append(content)
        self._room[queue].release()

    def _poll(self) -> None:
        with self._client() as client:
            while not self._stop.is_set():
                assert client.queue("idle").receive_batch(max=10, wait=2) == []

    def _ask(self) -> None:
        with self._plain() as http:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                self._note(http, "GET", "/queues/q0")
                self._note(http, "POST", "/queues/heap/messages", json={"content": number})
                self._note(http, "GET", f"/products/none{number}")

    def _poll_plainly(self) -> None:
        with self._plain() as http:
            while not self._stop.is_set():
                self._note(http, "GET", "/queues/idle/messages?wait=20")

    def _plain(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=PATIENCE, trust_env=False)

    def _note(self, http: httpx.Client, method: str, path: str, **more: Any) -> None:
        try:
            answer = http.request(method, path, **more)
        except httpx.TransportError as error:
            self.answers[type(error).__name__] += 1
        else:
            self.answers[str(answer.status_code)] += 1

    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def grows(self, by: int = 200) -> None:
        """Wait until so many more messages have come through."""
        before = self.count()
        until(lambda: self.check_errors() and self.count() >= before + by, PATIENCE, "progress")

    def check_errors(self) -> bool:
        """Raises what a client saw."""
        for each in (*self._senders, *self._others):
            if each.done():
                each.result()
        return True

    def finish(self) -> None:
        """Let all that was sent come through. Raises what a client saw."""
        self._stop.set()
        for each in self._senders:
            each.result(PATIENCE)
        self._sent_all.set()
        for each in self._others:
            each.result(PATIENCE)
        self._pool.shutdown()

    def check_contents(self, *, in_order: bool) -> None:
        """Each message that was answered for was acknowledged, once."""
        for queue, contents in self.acknowledged.items():
            assert len(contents) == len(set(contents)), "acknowledged twice"
            for sender, sent in self.sent.items():
                if f"q{sender[0]}" == queue:
                    own = [content for content in contents if content.startswith(sender + "-")]
                    assert (own if in_order else sorted(own, key=_number)) == sent
        assert self.count() == sum(map(len, self.sent.values()))


class SqsLoad(Load):
    """The same with boto3 and FIFO queues, where a group is what a sender sends."""

    good = frozenset({"200", "404"})

    def _create(self, queues: list[str]) -> None:
        sqs = self._boto3()
        for queue in queues:
            sqs.create_queue(QueueName=f"{queue}.fifo", Attributes={"FifoQueue": "true"})
        sqs.create_queue(QueueName="idle")
        sqs.create_queue(QueueName="heap")

    def _boto3(self) -> Any:
        retries = {"mode": "standard", "total_max_attempts": 20}
        return Site(self._url, "anybody", "as there are no keys").client(retries=retries)

    def _send(self, queue: str, sender: str) -> None:
        sqs = self._boto3()
        for number in itertools.count():
            if self._stop.is_set():
                return
            self._room[queue].acquire()
            body = f"{sender}-{number}"
            sqs.send_message(
                QueueUrl=f"{queue}.fifo", MessageBody=body, MessageGroupId=sender, MessageDeduplicationId=body
            )
            self.sent[sender].append(body)

    def _receive(self, queue: str) -> None:
        sqs, leased = self._boto3(), "ApproximateNumberOfMessagesNotVisible"
        here: dict[str, Any] = {"QueueUrl": f"{queue}.fifo"}
        asked = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 10, "WaitTimeSeconds": 1}
        while True:
            over = self._sent_all.is_set()  # before the look that finds nothing more
            answer = sqs.receive_message(**here, **asked, MessageSystemAttributeNames=["All"])
            for message in answer.get("Messages", []):
                sqs.delete_message(**here, ReceiptHandle=message["ReceiptHandle"])
                deliveries = int(message["Attributes"]["ApproximateReceiveCount"])
                self._note_acknowledged(queue, message["Body"], deliveries)
            if over and not answer.get("Messages"):
                found = sqs.get_queue_attributes(**here, AttributeNames=[leased])
                if found["Attributes"][leased] == "0":
                    return

    def _poll(self) -> None:
        sqs = self._boto3()
        while not self._stop.is_set():
            assert not sqs.receive_message(QueueUrl="idle", WaitTimeSeconds=2).get("Messages")

    def _ask(self) -> None:
        with self._plain() as http:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                self._note_action(http, "GetQueueAttributes", QueueUrl="heap")
                self._note_action(http, "SendMessage", QueueUrl="heap", MessageBody=f"{number}")
                self._note(http, "GET", f"/products/none{number}")

    def _poll_plainly(self) -> None:
        with self._plain() as http:
            while not self._stop.is_set():
                self._note_action(http, "ReceiveMessage", QueueUrl="idle", WaitTimeSeconds=20)

    def _note_action(self, http: httpx.Client, action: str, **parameters: Any) -> None:
        self._note(http, "POST", "/", json=parameters, headers=sqs_headers(action))


def _number(content: str) -> int:
    return int(content.rpartition("-")[2])


@pytest.mark.parametrize(("kind", "load_of"), [(HAProxy, Load), (Nginx, Load), (HAProxy, SqsLoad)])
def test_restarts_in_turn_are_seen_by_nobody(
    tmp_path: Path, servers: list[ServerProcess], kind: type[Proxy], load_of: type[Load]
) -> None:
    """Fails when a server that is told to stop closes its port at once, or cuts a long poll instead of
    answering it: haproxy counts what it had to send again or got no answer to, and who never tries again
    gets a 502."""
    for server in servers:
        server.start()
    with kind(tmp_path, servers) as proxy:
        load = load_of(proxy.url, plain=kind is HAProxy)
        for _ in range(3):
            for name, server in zip(("server-1", "server-2"), servers, strict=True):
                load.grows()
                assert server.terminate(PATIENCE) == 0
                load.grows()
                server.start()
                if isinstance(proxy, HAProxy):
                    until(partial(proxy.up, name), PATIENCE, "the server's return")
        load.grows()
        load.finish()
        counts = proxy.counts() if isinstance(proxy, HAProxy) else {}
    print(f"{load.count()} messages, plain answers: {dict(load.answers)}")
    load.check_contents(in_order=True)
    assert load.again == []
    assert set(load.answers) == (load.good if kind is HAProxy else set())
    for name, each in counts.items():
        seen = {what: each[what] for what in ("econ", "eresp", "wretr", "wredis", "hrsp_5xx")}
        assert set(seen.values()) <= {"0", ""}, (name, seen)
    for server in servers:
        assert "Traceback" not in server.log


@pytest.mark.parametrize("load_of", [Load, SqsLoad])
def test_one_of_two_is_killed_under_load(
    tmp_path: Path, servers: list[ServerProcess], load_of: type[Load]
) -> None:
    """Fails when what was answered is in the memory of one server only, or when the other waits for it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for server in servers:
        server.start()
    with HAProxy(tmp_path, servers) as proxy:
        load = load_of(proxy.url, plain=False)
        for _ in range(4):
            victim = rng.choice(servers)
            load.grows(rng.randrange(50, 400))
            victim.kill()
            load.grows()  # the other goes on alone
            victim.start()
        load.grows()
        load.finish()
    print(f"{load.count()} messages, {len(load.again)} of them delivered again")
    load.check_contents(in_order=False)
