"""Celery over kombu's SQS transport: a real worker does tasks, and does them again where it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from kombu import Connection

from tests.clients.proofs import CELERY, each, proves
from tests.clients.site import REGION, Site, attribute, new_name
from tests.harness import until

pytestmark = pytest.mark.storm

ROOT = Path(__file__).parents[2]
TASKS = 20


def broker_url(site: Site) -> str:
    """The server as a broker of Celery's; `sqs://` alone leaves all of it to the environment."""
    return f"sqs://{quote(site.access, '')}:{quote(site.secret, '')}@{site.url.removeprefix('http://')}"


class Office:
    """An application of Celery with its own queue, those who send to it, and the workers that serve it."""

    def __init__(
        self, site: Site, directory: Path, queue: str, broker: str = "sqs://", **transport: Any
    ) -> None:
        self.done = directory / "done"
        self.gate = directory / "gate"
        self.log = directory / "worker.log"
        self.done.touch()
        os.mkfifo(self.gate)
        settings = {
            "broker_url": broker,
            "broker_transport_options": {
                "region": REGION,
                "is_secure": False,
                "wait_time_seconds": 2,
                "polling_interval": 0.1,
                **transport,
            },
            "task_default_queue": queue,
            "worker_prefetch_multiplier": 1,
            "worker_enable_remote_control": False,
        }
        self._environment = site.environment | {
            "CELERY_SETTINGS": json.dumps(settings),
            "CELERY_DONE": str(self.done),
            "CELERY_GATE": str(self.gate),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        self._worker: subprocess.Popen[bytes] | None = None

    def forget_keys(self) -> None:
        """Leave nothing in the environment that says where the server is."""
        for name in ("AWS_ENDPOINT_URL_SQS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del self._environment[name]

    def start(self) -> None:
        """A worker with one process for tasks."""
        command = [
            sys.executable, "-m", "celery", "-A", "tests.clients.celery_app", "worker",
            "--concurrency", "1", "--loglevel", "INFO", "--without-gossip", "--without-mingle",
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self._worker = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL to the worker and the process of its tasks, at once."""
        if self._worker is not None:
            os.killpg(self._worker.pid, signal.SIGKILL)
            self._worker.wait(60)
            self._worker = None

    def send(self, code: str) -> None:
        """Run a line of Python in a process that has the application as `a`."""
        program = f"import tests.clients.celery_app as a\n{code}"
        ran = subprocess.run(
            [sys.executable, "-c", program],
            env=self._environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr

    def lines(self) -> list[str]:
        return self.done.read_text().splitlines()

    def wait_for(self, *wanted: str) -> None:
        """Until all of these lines are there; the worker's log where they do not come."""
        try:
            until(lambda: not Counter(wanted) - Counter(self.lines()), 120, f"{wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.lines()}\n{self.log.read_text()[-5000:]}") from None

    def wait_until_empty(self, sqs: Any, url: str) -> None:
        names = ["ApproximateNumberOfMessages" + more for more in ("", "NotVisible", "Delayed")]
        until(lambda: {attribute(sqs, url, name) for name in names} == {"0"}, 120, "an empty queue")


@pytest.fixture
def offices() -> Iterator[list[Office]]:
    """Whose workers are killed in the end."""
    made: list[Office] = []
    yield made
    for office in made:
        office.kill()


@proves(
    CELERY,
    ListQueues="QueueNamePrefix",
    CreateQueue="QueueName Attributes.VisibilityTimeout",
    SendMessage="QueueUrl MessageBody",
    ReceiveMessage="QueueUrl MaxNumberOfMessages WaitTimeSeconds",
    DeleteMessage="QueueUrl ReceiptHandle",
)
@pytest.mark.parametrize("how", ["environment", "url", "predefined"])
def test_a_worker_does_tasks(site: Site, sqs: Any, tmp_path: Path, offices: list[Office], how: str) -> None:
    queue, transport = new_name("celery"), {}
    if how == "predefined":
        known = {
            "url": sqs.create_queue(QueueName=queue)["QueueUrl"],
            "region": REGION,
            "access_key_id": site.access,
            "secret_access_key": site.secret,
        }
        transport = {"predefined_queues": {queue: known}}
    broker = broker_url(site) if how == "url" else "sqs://"
    office = Office(site, tmp_path, queue, broker, **transport)
    if how == "url":
        office.forget_keys()
    offices.append(office)
    office.start()
    before = time.time()
    office.send(
        f"for n in range({TASKS}): a.add_task.delay(n, n)\n"
        "a.flaky_task.delay('now')\n"
        "a.flaky_task.apply_async(('later',), countdown=2)"
    )
    office.wait_for(*(f"add {2 * n}" for n in range(TASKS)))
    office.wait_for(*(f"flaky {name} {retries}" for name in ("now", "later") for retries in (0, 1)))
    assert time.time() - before > 2.9  # an eta of two seconds, and a second until it was tried again
    office.wait_until_empty(sqs, sqs.get_queue_url(QueueName=queue)["QueueUrl"])
    assert len(office.lines()) == TASKS + 4


@proves(CELERY, CreateQueue="Attributes.VisibilityTimeout", ReceiveMessage="")
def test_a_task_of_a_worker_that_was_killed_is_done_again(
    site: Site, tmp_path: Path, offices: list[Office]
) -> None:
    """Planted: acks_late=False in celery_app.py, where the task is lost with the worker."""
    office = Office(site, tmp_path, new_name("celery"), visibility_timeout=5)
    offices.append(office)
    office.start()
    office.send("a.stuck_task.delay('one')")
    office.wait_for("began one")
    office.kill()
    office.start()
    office.wait_for("began one", "began one")
    office.gate.write_bytes(b"go on")
    office.wait_for("ended one")


@pytest.fixture
def broker(site: Site) -> Iterator[Any]:
    """A connection of kombu's own, without workers."""
    options = {"region": REGION, "is_secure": False, "wait_time_seconds": 2}
    with Connection(broker_url(site), transport_options=options) as made:
        yield made


@proves(
    CELERY,
    SendMessage="DelaySeconds " + each("MessageAttributes", "DataType", "StringValue"),
    ReceiveMessage="MessageSystemAttributeNames.ApproximateReceiveCount",
    DeleteMessage="",
    ChangeMessageVisibility="QueueUrl ReceiptHandle VisibilityTimeout",
    GetQueueAttributes="QueueUrl AttributeNames.ApproximateNumberOfMessages",
    PurgeQueue="QueueUrl",
    DeleteQueue="QueueUrl",
)
def test_what_kombu_does_besides(sqs: Any, broker: Any) -> None:
    name = new_name("kombu")
    with broker.SimpleQueue(name) as queue:
        attributes = {"color": {"DataType": "String", "StringValue": "red"}}
        queue.put({"n": 1}, message_attributes=attributes)
        queue.put({"n": 2}, DelaySeconds=900)
        until(lambda: queue.qsize() == 1, what="one message")
        first = queue.get(timeout=60)
        assert first.payload == {"n": 1}
        first.requeue()  # by its visibility
        again = queue.get(timeout=60)
        assert again.payload == {"n": 1}
        assert again.delivery_info["sqs_message"]["Attributes"]["ApproximateReceiveCount"] == "2"
        again.ack()
        assert queue.qsize() == 0
        queue.put({"n": 3})
        queue.clear()
        assert queue.qsize() == 0
        queue.queue.delete()
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName=name)


@proves(
    CELERY,
    CreateQueue="Attributes.FifoQueue",
    SendMessage="MessageGroupId MessageDeduplicationId",
)
def test_a_fifo_queue_of_kombu(broker: Any) -> None:
    with broker.SimpleQueue(new_name("kombu") + ".fifo") as queue:
        for n in (1, 2, 2, 3):
            queue.put({"n": n}, MessageGroupId="g", MessageDeduplicationId=str(n))
        for n in (1, 2, 3):
            message = queue.get(timeout=60)
            assert message.payload == {"n": n}
            message.ack()
        assert queue.qsize() == 0
