"""A queue of a server that speaks SQS: what prepares and checks a measurement, and wrk that drives it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bench.api import content
from bench.environment import disk_flushes
from bench.measure import WARM_UP_SECONDS, Measured, settled, verify
from bench.processes import BenchmarkError, Process
from bench.results import Options
from bench.sigv4 import REGION, Credentials, now
from bench.wrk import WrkRun, run_script

SCRIPT = Path(__file__).with_name("sqs.lua")
KIND = "application/x-amz-json-1.0"
QUEUE = "bench"
LARGEST_BATCH = 10
LEASE = 60
"""Seconds that sqs.lua asks for."""
_UNVERIFIED = Credentials("bench", "bench")
_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True)
class Answer:
    """Of one call, as it came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Sqs:
    """The queue `bench` of the server on `port`.

    Without `credentials` requests carry a signature that a server need not know.
    """

    url: str

    def __init__(self, port: int, credentials: Credentials | None = None) -> None:
        self.port = port
        self.credentials = credentials

    def ask(self, action: str, parameters: Mapping[str, object]) -> Answer:
        """One call on a connection of its own."""
        body = json.dumps(parameters, separators=(",", ":")).encode()
        headers = {
            "Content-Type": KIND,
            "Host": f"127.0.0.1:{self.port}",
            "X-Amz-Date": now(),
            "X-Amz-Target": f"AmazonSQS.{action}",
        }
        headers["Authorization"] = (self.credentials or _UNVERIFIED).authorization(headers, body)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, tuple(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def call(self, action: str, **parameters: object) -> dict[str, Any]:
        """The JSON of an answer; BenchmarkError for a status that is not 200."""
        answer = self.ask(action, parameters)
        if answer.status != 200:
            raise BenchmarkError(f"{action}: {answer.status}: {answer.body[:300]!r}")
        found: dict[str, Any] = json.loads(answer.body) if answer.body else {}
        return found

    def create(self) -> None:
        self.url = self.call("CreateQueue", QueueName=QUEUE)["QueueUrl"]

    def find(self) -> None:
        """Take the queue that is there already."""
        self.url = self.call("GetQueueUrl", QueueName=QUEUE)["QueueUrl"]

    def check(self) -> None:
        """A message sent is received, and a deleted one is gone."""
        text = content(QUEUE)
        sent = self.call("SendMessage", QueueUrl=self.url, MessageBody=text)
        got = self.call("ReceiveMessage", QueueUrl=self.url, VisibilityTimeout=LEASE).get("Messages", [])
        if [(each["MessageId"], each["Body"]) for each in got] != [(sent["MessageId"], text)]:
            raise BenchmarkError(f"sent {sent['MessageId']} and received {got}")
        self.call("DeleteMessage", QueueUrl=self.url, ReceiptHandle=got[0]["ReceiptHandle"])
        if settled(self.held):
            raise BenchmarkError(f"a message is there after it was deleted: {self.held()}")

    def check_refusal(self) -> None:
        """BenchmarkError unless a call with another secret is refused: then signatures are verified."""
        assert self.credentials is not None
        stranger = Sqs(self.port, Credentials(self.credentials.key_id, self.credentials.secret[::-1]))
        status = stranger.ask("GetQueueUrl", {"QueueName": QUEUE}).status
        if status != 403:
            raise BenchmarkError(f"a wrong signature is answered {status}")

    def held(self) -> int:
        """Messages that are not deleted."""
        found = self.call("GetQueueAttributes", QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        return sum(int(found[name]) for name in _COUNTS)

    def fill(self, messages: int, *, connections: int = 8) -> None:
        """Send so many and at most nine more, ten at a time."""
        entries = [{"Id": str(at), "MessageBody": content(QUEUE)} for at in range(LARGEST_BATCH)]
        batches = -(-messages // LARGEST_BATCH)

        def send(_number: int) -> None:
            failed = self.call("SendMessageBatch", QueueUrl=self.url, Entries=entries).get("Failed")
            if failed:
                raise BenchmarkError(f"filling: {failed[0]}")

        with ThreadPoolExecutor(connections) as pool:
            for _ in pool.map(send, range(batches)):
                pass

    def drive(
        self, operation: str, *, connections: int, seconds: float, threads: int = 1, batch: int = 1
    ) -> WrkRun:
        """One run of wrk; operations are those of sqs.lua."""
        arguments = [operation, self.url, content(QUEUE), str(batch)]
        if self.credentials:
            date = now()
            arguments += [self.credentials.key_id, date, REGION, self.credentials.signing_key(date).hex()]
        return run_script(
            SCRIPT, self.port, arguments, connections=connections, seconds=seconds, threads=threads
        )


@dataclass(frozen=True)
class Subject:
    """A server that is measured through SQS, with an empty queue."""

    sqs: Sqs
    process: Process
    fill: Callable[[int], None]
    """Puts so many messages into the queue."""
    held: Callable[[], int]
    """How many are there."""


def measure_sqs(
    subject: Subject, operation: str, options: Options, *, connections: int, batch: int, fastest: int
) -> Measured:
    """As `measure`, in messages a second; `fastest` is how many of them nobody receives here.

    The rate is of what happened to the queue. That is what was answered, and what was under way at the end as
    well, in favour of a server that takes seconds to answer.
    """
    if operation.startswith("lease_ack"):
        subject.fill(int(fastest * (options.seconds + WARM_UP_SECONDS)))
    subject.sqs.drive(operation, connections=connections, seconds=WARM_UP_SECONDS, batch=batch)
    before = settled(subject.held)
    flushes, cpu = disk_flushes(), subject.process.cpu_seconds()
    run = subject.sqs.drive(
        operation, connections=connections, seconds=options.seconds, threads=options.threads, batch=batch
    )
    cpu, flushes = subject.process.cpu_seconds() - cpu, disk_flushes() - flushes
    after = settled(subject.held)
    verify(operation, run, before, after, connections=connections, batch=batch)
    messages = abs(after - before)
    if messages == 0:
        raise BenchmarkError(f"{operation}: nothing happened in {run.seconds:.0f} s")
    return Measured(
        messages / run.seconds,
        {
            "answered": float(run.requests),
            "p50_ms": run.p50_ms,
            "p99_ms": run.p99_ms,
            "server_cpu_us": cpu * 1e6 / messages,
            "client_cpu_us": run.cpu_seconds * 1e6 / messages,
            "flushes_a_second": flushes / run.seconds,
        },
    )
