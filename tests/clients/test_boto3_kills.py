"""A server that is killed under boto3, which sends again by itself: everything arrives once and in order."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError

from tests.clients.site import Site, attribute, key_of, new_queue
from tests.harness import ServerProcess, until

pytestmark = [pytest.mark.storm, pytest.mark.timeout(600)]

KILLS = 5
SENDERS, GROUPS = 6, 4
"""Each sender has so many groups of its own, and is the only one that sends to them."""
CONSUMERS = 4
LEASE = 5
COUNTS = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]


class Load:
    """Senders and consumers that are told of no kill: boto3 tries again, and when it gives up, they do.

    Some sends are answered, and boto3 does not get to hear it before the server has been killed and is back:
    then it sends them again. That is what a kill between a commit and its answer looks like, at will.
    """

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._seed = seed
        self.queue = new_queue(site.client(), FifoQueue="true")
        self.calm = self.over = False
        self.kills = self.unheard = 0
        self.sent: dict[str, list[str]] = defaultdict(list)
        """Group -> the ids of its messages, as they were answered, in the order of their sends."""
        self.arrived: dict[str, list[str]] = defaultdict(list)
        """Group -> bodies and ids, in the order in which they were first seen."""
        self.deleted: set[str] = set()
        """Ids that certainly were, inside their leases."""
        self.back: list[str] = []
        """Ids that were received after that."""
        self._seen: set[str] = set()
        self._change = threading.Condition()

    def run(self, kill: Callable[[], None]) -> None:
        """Kill and start whenever half of the senders have not heard their answers; then drain."""
        with ThreadPoolExecutor(SENDERS + CONSUMERS) as pool:
            senders = [pool.submit(self._send, number) for number in range(SENDERS)]
            consumers = [pool.submit(self._consume, number) for number in range(CONSUMERS)]
            try:
                for _ in range(KILLS):
                    until(lambda: self.unheard >= SENDERS / 2 or _failed(senders + consumers), what="a kill")
                    kill()
                    with self._change:
                        self.kills += 1
                        self.unheard = 0
                        self._change.notify_all()
                self.calm = True
                for each in senders:
                    each.result(120)
                sqs = self._site.client()
                until(lambda: self._empty(sqs) or _failed(consumers), what="the end of all messages")
            finally:
                self.calm = self.over = True
                with self._change:
                    self._change.notify_all()
            for each in senders + consumers:
                each.result(120)

    def _empty(self, sqs: Any) -> bool:
        return all(attribute(sqs, self.queue, name) == "0" for name in COUNTS)

    # --- sending ----------------------------------------------------------------------------------

    def _send(self, number: int) -> None:
        rng = random.Random(f"{self._seed} sender {number}")
        sqs = self._site.client(retries=None)

        def lose(attempts: int, caught_exception: Exception | None, **_: Any) -> int | None:
            """Seconds until the next attempt, None: boto3 decides."""
            if attempts > 1 or caught_exception is not None or self.calm or rng.random() > 0.03:
                return None
            with self._change:
                before = self.kills
                self.unheard += 1
                self._change.wait_for(lambda: self.calm or self.kills > before)
            return 0

        for action in ("SendMessage", "SendMessageBatch"):
            sqs.meta.events.register_first(f"needs-retry.sqs.{action}", lose)
        while not self.calm:
            group = f"g{number}-{rng.randrange(GROUPS)}"
            first = len(self.sent[group])
            bodies = [f"{group} {first + n}" for n in range(rng.choice((1, 1, 1, 3, 10)))]
            self.sent[group] += _insist(self._sent, sqs, group, bodies)

    def _sent(self, sqs: Any, group: str, bodies: list[str]) -> list[str]:
        """The ids of what is sent, alone or in a batch."""
        entries = [
            {
                "MessageBody": body,
                "MessageGroupId": group,
                "MessageDeduplicationId": body.replace(" ", "-"),
            }
            for body in bodies
        ]
        if len(entries) == 1:
            return [sqs.send_message(QueueUrl=self.queue, **entries[0])["MessageId"]]
        numbered = [{"Id": str(n), **entry} for n, entry in enumerate(entries)]
        answer = sqs.send_message_batch(QueueUrl=self.queue, Entries=numbered)
        assert not answer.get("Failed")
        ids = {each["Id"]: each["MessageId"] for each in answer["Successful"]}
        return [ids[str(n)] for n in range(len(entries))]

    # --- consuming --------------------------------------------------------------------------------

    def _consume(self, number: int) -> None:
        rng = random.Random(f"{self._seed} consumer {number}")
        sqs = self._site.client(retries=None)
        asked = {
            "MaxNumberOfMessages": 10,
            "VisibilityTimeout": LEASE,
            "WaitTimeSeconds": 1,
            "MessageSystemAttributeNames": ["MessageGroupId"],
        }
        while not self.over:
            began = time.monotonic()
            answer = _insist(sqs.receive_message, QueueUrl=self.queue, **asked)
            messages = answer.get("Messages", [])
            if not messages:
                continue
            self._note(messages)
            _insist(self._delete, sqs, messages, together=rng.random() < 0.5)
            if time.monotonic() < began + LEASE - 0.1:
                self.deleted.update(each["MessageId"] for each in messages)

    def _note(self, messages: list[dict[str, Any]]) -> None:
        with self._change:
            for each in messages:
                if each["MessageId"] in self.deleted:
                    self.back.append(f"{each['Body']}: {each['MessageId']}")
                if each["MessageId"] not in self._seen:
                    self._seen.add(each["MessageId"])
                    self.arrived[each["Attributes"]["MessageGroupId"]].append(
                        f"{each['Body']}: {each['MessageId']}"
                    )

    def _delete(self, sqs: Any, messages: list[dict[str, Any]], *, together: bool) -> None:
        receipts = [each["ReceiptHandle"] for each in messages]
        if together:
            entries = [{"Id": str(n), "ReceiptHandle": each} for n, each in enumerate(receipts)]
            assert not sqs.delete_message_batch(QueueUrl=self.queue, Entries=entries).get("Failed")
            return
        for receipt in receipts:
            sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=receipt)


def _insist(call: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """The same again where boto3 has given up, for want of an answer: an error would be one."""
    while True:
        try:
            return call(*args, **more)
        except BotoCoreError:
            continue


def _failed(futures: list[Any]) -> bool:
    return any(each.done() and each.exception() for each in futures)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as server:
        yield server


def test_everything_arrives_once_and_in_order_though_the_server_is_killed(server: ServerProcess) -> None:
    """Planted: dedup ids that are not kept; sends, or deletes, that are answered before their commit."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    load = Load(key_of(server, "all"), seed)

    def kill() -> None:
        server.kill()
        server.start()

    load.run(kill)
    total = sum(map(len, load.sent.values()))
    print(f"{total} messages, {load.kills} kills")
    assert total > 50 * KILLS
    assert len(load.deleted) > 50 * KILLS
    assert load.back == []
    doubled = Counter(each.partition(":")[0] for group in load.arrived.values() for each in group)
    assert [body for body, times in doubled.items() if times > 1] == []
    for group, ids in load.sent.items():
        assert load.arrived[group] == [f"{group} {n}: {each}" for n, each in enumerate(ids)]
