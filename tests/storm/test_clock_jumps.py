"""The wall clock jumps an hour, either way: leases, delays and long polls neither end early nor hang."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ServerProcess
from tests.storm.disk import Disk
from tests.storm.faces import FACES, Face
from tests.storm.talk import client, on_disk

pytestmark = pytest.mark.storm

HOUR = 3_600 * 10**9
WITHIN = 20
"""Seconds: much longer than what is waited for, and much shorter than an hour."""
JUMPS = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path / "disk")
    disk.snapshot()
    return disk


@pytest.fixture
def server(disk: Disk) -> Iterator[ServerProcess]:
    with on_disk(disk) as server:
        yield server


@pytest.fixture(params=FACES)
def queue(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Face]:
    with client(server) as http:
        queue = FACES[request.param](http)
        queue.create()
        yield queue


@JUMPS
def test_a_lease_ends_when_it_should(disk: Disk, queue: Face, jump: int) -> None:
    """Planted: leases that follow the wall clock, which end at once or an hour late."""
    queue.send_all(["a"])
    began = time.monotonic()
    assert queue.take(lease=2)
    disk.control.clock_shift = jump
    assert queue.take(wait=WITHIN), "the lease hangs"
    assert time.monotonic() - began > 1.9, "the lease ended early"


@JUMPS
def test_a_lease_taken_after_the_jump_ends_when_it_should(disk: Disk, queue: Face, jump: int) -> None:
    """Planted: a deadline made with one clock and compared with the other."""
    queue.send_all(["a", "b"])
    disk.control.clock_shift = jump
    began = time.monotonic()
    assert len(queue.take(2, lease=1)) == 2
    assert queue.take(wait=WITHIN), "the lease hangs"
    assert time.monotonic() - began > 0.9, "the lease ended early"


@JUMPS
def test_a_delay_ends_when_it_should(disk: Disk, queue: Face, jump: int) -> None:
    """Planted: delays that follow the wall clock."""
    began = time.monotonic()
    assert queue.send("a", delay=2).status_code == queue.good
    disk.control.clock_shift = jump
    assert queue.take(wait=WITHIN), "the delay hangs"
    assert time.monotonic() - began > 1.9, "the delay ended early"


@JUMPS
def test_a_long_poll_ends_when_it_should(disk: Disk, queue: Face, jump: int) -> None:
    """Planted: a time-out that follows the wall clock."""
    disk.control.clock_shift = jump
    began = time.monotonic()
    assert queue.take(wait=1) == []
    assert 0.9 < time.monotonic() - began < WITHIN


def test_a_message_with_a_ttl_lives_through_a_jump_forward(disk: Disk, queue: Face) -> None:
    """Planted: a time to live that follows the wall clock and takes the message with it."""
    assert queue.send("a", ttl=600).status_code == queue.good
    disk.control.clock_shift = HOUR
    assert queue.take()


def test_a_lease_survives_a_restart_and_a_jump_back(disk: Disk, server: ServerProcess, queue: Face) -> None:
    """A restart cannot tell a jump from the time it was down, but no lease gets longer than it was.

    Planted: the wall clock's word taken for the time left, which would be an hour.
    """
    queue.send_all(["a"])
    assert queue.take(lease=3)
    server.kill()
    disk.control.clock_shift = -HOUR
    server.start()
    assert queue.take(wait=WITHIN), "the lease hangs after the restart"


def test_a_lease_survives_a_restart(server: ServerProcess, queue: Face) -> None:
    """Planted: a restart that forgets leases and hands everything out at once."""
    queue.send_all(["a"])
    (message,) = queue.take(lease=60)
    server.kill()
    server.start()
    assert queue.take() == []
    assert queue.acknowledge(message.receipt).is_success
