"""A disk that is full, fails or is read-only: one request fails, nothing is lost, the server lives."""

from __future__ import annotations

import errno
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness import ServerProcess, until
from tests.storm.disk import Disk
from tests.storm.talk import (
    assert_problem,
    assert_refuses,
    client,
    create,
    on_disk,
    peek_all,
    receive_all,
    send,
    send_all,
)

pytestmark = pytest.mark.storm


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path / "disk")
    disk.snapshot()
    return disk


def test_a_full_disk_fails_the_request_and_loses_nothing(disk: Disk) -> None:
    """Planted: an answer before the commit; a writer thread that ends with its first SQLITE_FULL."""
    with on_disk(disk) as server, client(server) as http:
        create(http)
        stored = [f"{number} {'x' * 2_000}" for number in range(50)]
        send_all(http, stored)
        disk.control.room = 200_000
        for number in range(50, 1_000):
            content = f"{number} {'x' * 2_000}"
            answer = send(http, content)
            if answer.status_code != 201:
                break
            stored.append(content)
        assert_problem(answer, 503, "store_full")
        assert int(answer.headers["retry-after"]) >= 1
        batch = {"messages": [{"content": f"batch {number} {'x' * 2_000}"} for number in range(20)]}
        assert_problem(http.post("/queues/q/messages", json=batch), 503, "store_full")
        assert http.get("/health").json()["live"] is True
        assert peek_all(http) == stored

        disk.control.room = -1
        until(lambda: send(http, "after").status_code == 201, what="a send on the disk with room again")
        server.kill()
        server.start()
        received = receive_all(http)
        assert received[: len(stored)] == stored
        assert set(received[len(stored) :]) == {"after"}


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


@pytest.mark.parametrize("fault", ["sync_errno", "write_errno"])
def test_a_failing_disk_fails_the_request_and_loses_nothing(disk: Disk, fault: str) -> None:
    """EIO from fsync and from write; then the power goes, for a failed fsync forgets what it should keep.

    Planted: a 201 for a send whose commit failed; a retry of the fsync alone, which reports success.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with on_disk(disk) as server, client(server) as http:
        create(http)
        before = [f"before {number}" for number in range(20)]
        send_all(http, before)
        setattr(disk.control, fault, errno.EIO)
        for number in range(5):
            assert_problem(send(http, f"during {number}"), 503, "store_unavailable")
        assert http.get("/health").json()["live"] is True
        assert peek_all(http)[:20] == before

        setattr(disk.control, fault, 0)
        until(lambda: send(http, "after").status_code == 201, what="a send on the disk that works again")
        after = [f"later {number}" for number in range(20)]
        send_all(http, after)
        server.kill()
        disk.cut(random.Random(seed))
        disk.snapshot()
        server.start()
        received = receive_all(http)
        assert received[:20] == before
        assert received[-21:] == ["after", *after]
        # A send that was answered 503 should not be there, and at most is.
        assert set(received[20:-21]) <= {f"during {number}" for number in range(5)} | {"after"}


def test_a_disk_that_fails_under_load_can_be_started_on_again(disk: Disk) -> None:
    """Commits of many sizes fail and leave their frames in the log, one over the other; then the server dies.

    Planted: a start that takes what is behind the last whole commit for damage; one that reads on into it.
    """
    with on_disk(disk) as server, client(server) as http:
        create(http)
        send_all(http, ["before"])
        disk.control.sync_errno = errno.EIO

        def fail(messages: int) -> int:
            batch = {"messages": [{"content": f"during {'x' * 1_000}"}] * messages}
            return http.post("/queues/q/messages", json=batch).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(fail, range(1, 200, 7))) == {503}
        assert {fail(messages) for messages in (400, 300, 200, 100, 50, 20, 1)} == {503}
        server.kill()
        disk.control.sync_errno = 0
        server.start()
        assert peek_all(http)[0] == "before"
        send_all(http, ["after"])
        assert receive_all(http)[-1] == "after"


def test_a_directory_that_turns_read_only_fails_the_request(disk: Disk) -> None:
    """As a file system does that has seen an error. Planted: a reader that needs to write."""
    with on_disk(disk) as server, client(server) as http:
        create(http)
        send_all(http, ["a", "b"])
        disk.control.read_only = 1
        assert_problem(send(http, "c"), 503, "store_unavailable")
        assert_problem(http.get("/queues/q/messages"), 503, "store_unavailable")
        assert peek_all(http) == ["a", "b"]
        disk.control.read_only = 0
        until(lambda: send(http, "d").status_code == 201, what="a send on the disk that can be written again")
        assert receive_all(http)[:2] == ["a", "b"]


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
