"""A disk that is full, fails or is read-only: one request fails, nothing is lost, the server lives."""

from __future__ import annotations

import errno
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ServerProcess, until
from tests.storm.disk import Disk
from tests.storm.faces import Face, over_both
from tests.storm.talk import (
    assert_problem,
    assert_refuses,
    assert_unavailable,
    client,
    create,
    on_disk,
    peek_all,
    receive_all,
    send_all,
    sqs,
)

pytestmark = pytest.mark.storm


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path / "disk")
    disk.snapshot()
    return disk


@over_both
def test_a_full_disk_fails_the_request_and_loses_nothing(disk: Disk, over: type[Face]) -> None:
    """Planted: an answer before the commit; a writer thread that ends with its first SQLITE_FULL; over SQS a
    batch that says Successful or Failed of what is unavailable.
    """
    with on_disk(disk) as server, client(server) as http:
        queue = over(http)
        queue.create()
        stored: list[str] = []
        disk.control.room = 200_000
        for number in range(1_000):
            content = f"{number} {'x' * 2_000}"
            answer = queue.send(content)
            if answer.status_code != queue.good:
                break
            stored.append(content)
        queue.assert_refused(answer, "store_full")
        queue.assert_refused(queue.send_batch([f"batch {'x' * 20_000}"] * 10), "store_full")
        form = {"Action": "SendMessage", "QueueUrl": "q", "MessageBody": "x" * 20_000}
        answer = http.post("/", data=form)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "<Code>ServiceUnavailable</Code>" in answer.text
        assert http.get("/health").json()["live"] is True
        assert peek_all(http) == stored

        disk.control.room = -1
        until(lambda: queue.send("after").status_code == queue.good, what="a send where there is room again")
        server.kill()
        server.start()
        received = queue.receive_all()
        assert received[: len(stored)] == stored
        assert set(received[len(stored) :]) == {"after"}


def test_a_failing_disk_fails_all_that_writes_over_sqs(disk: Disk) -> None:
    """What was refused is not done: messages are as they were. Planted: a delete that is answered at once."""
    with on_disk(disk) as server, client(server) as http:
        assert sqs(http, "CreateQueue", QueueName="q").status_code == 200
        send_all(http, ["a", "b", "c", "d"])
        wanted = {"QueueUrl": "q", "MaxNumberOfMessages": 3, "VisibilityTimeout": 3_600}
        taken = sqs(http, "ReceiveMessage", **wanted).json()["Messages"]
        receipts = [each["ReceiptHandle"] for each in taken]
        both = [{"Id": str(number), "ReceiptHandle": each} for number, each in enumerate(receipts[:2])]
        back = [{**each, "VisibilityTimeout": 0} for each in both]
        disk.control.sync_errno = errno.EIO
        refused: list[tuple[str, dict[str, Any]]] = [
            ("SendMessage", {"MessageBody": "x"}),
            ("SendMessageBatch", {"Entries": [{"Id": "1", "MessageBody": "x"}]}),
            ("ReceiveMessage", {}),
            ("DeleteMessage", {"ReceiptHandle": receipts[0]}),
            ("DeleteMessageBatch", {"Entries": both}),
            ("ChangeMessageVisibility", {"ReceiptHandle": receipts[0], "VisibilityTimeout": 0}),
            ("ChangeMessageVisibilityBatch", {"Entries": back}),
            ("CreateQueue", {"QueueName": "other"}),
            ("SetQueueAttributes", {"Attributes": {"DelaySeconds": "1"}}),
            ("TagQueue", {"Tags": {"a": "b"}}),
            ("PurgeQueue", {}),
            ("DeleteQueue", {}),
        ]
        for action, asked in refused:
            assert_unavailable(sqs(http, action, **{"QueueUrl": "q"} | asked))
        assert peek_all(http) == ["d"]

        disk.control.sync_errno = 0
        give_back = sqs(http, "ChangeMessageVisibilityBatch", QueueUrl="q", Entries=back)
        assert (len(give_back.json()["Successful"]), give_back.json()["Failed"]) == (2, [])
        assert sqs(http, "DeleteMessage", QueueUrl="q", ReceiptHandle=receipts[2]).status_code == 200
        assert sorted(receive_all(http)) == ["a", "b", "d"]
        assert sqs(http, "ListQueues").json()["QueueUrls"] == [f"{server.url}/000000000000/q"]
        kept = sqs(http, "GetQueueAttributes", QueueUrl="q", AttributeNames=["DelaySeconds"]).json()
        assert kept["Attributes"] == {"DelaySeconds": "0"}
        assert not sqs(http, "ListQueueTags", QueueUrl="q").json().get("Tags")
        assert sqs(http, "PurgeQueue", QueueUrl="q").status_code == 200  # and not one too many


def test_a_start_on_a_full_disk_is_refused_and_loses_nothing(disk: Disk) -> None:
    """Planted: a start that answers requests before its tables are there; a traceback."""
    disk.control.room = 0
    server = on_disk(disk)
    assert_refuses(server, str(server.data_dir))
    disk.control.room = -1
    with server, client(server) as http:
        create(http)
        send_all(http, ["a"])
        assert receive_all(http) == ["a"]


@over_both
@pytest.mark.parametrize("fault", ["sync_errno", "write_errno"])
def test_a_failing_disk_fails_the_request_and_loses_nothing(disk: Disk, over: type[Face], fault: str) -> None:
    """EIO from fsync and from write; then the power goes, for a failed fsync forgets what it should keep.

    Planted: a 201 for a send whose commit failed; a retry of the fsync alone, which reports success.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with on_disk(disk) as server, client(server) as http:
        queue = over(http)
        queue.create()
        before = [f"before {number}" for number in range(20)]
        queue.send_all(before)
        setattr(disk.control, fault, errno.EIO)
        for number in range(5):
            queue.assert_refused(queue.send(f"during {number}"))
        assert http.get("/health").json()["live"] is True
        assert peek_all(http)[:20] == before

        setattr(disk.control, fault, 0)
        until(
            lambda: queue.send("after").status_code == queue.good, what="a send on the disk that works again"
        )
        after = [f"later {number}" for number in range(20)]
        queue.send_all(after)
        server.kill()
        disk.cut(random.Random(seed))
        disk.snapshot()
        server.start()
        received = queue.receive_all()
        assert received[:20] == before
        assert received[-21:] == ["after", *after]
        # A send that was answered 503 should not be there, and at most is.
        assert set(received[20:-21]) <= {f"during {number}" for number in range(5)} | {"after"}


@over_both
def test_a_disk_that_fails_under_load_can_be_started_on_again(disk: Disk, over: type[Face]) -> None:
    """Commits of many sizes fail and leave their frames in the log, one over the other; then the server dies.

    Planted: a start that takes what is behind the last whole commit for damage; one that reads on into it.
    """
    with on_disk(disk) as server, client(server) as http:
        queue = over(http)
        queue.create()
        queue.send_all(["before"])
        disk.control.sync_errno = errno.EIO

        def fail(size: int) -> int:
            return queue.send_batch(["x" * 50 * size] * (1 + size % 10)).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(fail, range(1, 200, 7))) == {503}
        assert {fail(size) for size in (400, 300, 200, 100, 50, 20, 1)} == {503}
        server.kill()
        disk.control.sync_errno = 0
        server.start()
        assert peek_all(http)[0] == "before"
        queue.send_all(["after"])
        assert queue.receive_all()[-1] == "after"


@over_both
def test_a_directory_that_turns_read_only_fails_the_request(disk: Disk, over: type[Face]) -> None:
    """As a file system does that has seen an error. Planted: a reader that needs to write."""
    with on_disk(disk) as server, client(server) as http:
        queue = over(http)
        queue.create()
        queue.send_all(["a", "b"])
        disk.control.read_only = 1
        queue.assert_refused(queue.send("c"))
        queue.assert_refused(queue.receive())
        assert_problem(http.get("/queues/q/messages"), 503, "store_unavailable")
        assert peek_all(http) == ["a", "b"]
        disk.control.read_only = 0
        until(
            lambda: queue.send("d").status_code == queue.good,
            what="a send on a disk that can be written again",
        )
        assert queue.receive_all()[:2] == ["a", "b"]


@pytest.mark.parametrize("fresh", [True, False])
def test_a_start_on_a_read_only_directory_is_refused(disk: Disk, fresh: bool) -> None:
    """Planted: no word about the directory, or a traceback."""
    server = on_disk(disk)
    if not fresh:
        with server, client(server) as http:
            create(http)
            send_all(http, ["a"])
    disk.control.read_only = 1
    assert_refuses(server, str(server.data_dir))
    disk.control.read_only = 0
    with server, client(server) as http:
        create(http)
        assert receive_all(http) == ([] if fresh else ["a"])


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Planted: a traceback."""
    (tmp_path / "data").write_text("not a directory")
    assert_refuses(ServerProcess(tmp_path / "data"), str(tmp_path / "data"))
    assert (tmp_path / "data").read_text() == "not a directory"
