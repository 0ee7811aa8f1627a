"""The wall clock jumps an hour, either way: leases, delays and long polls neither end early nor hang."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import ServerProcess
from tests.storm.disk import Disk
from tests.storm.talk import client, create, on_disk, send, send_all

pytestmark = pytest.mark.storm

HOUR = 3_600 * 10**9
WITHIN = 20.0
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


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with client(server) as http:
        create(http)
        yield http


def waited(http: httpx.Client, seconds: float) -> tuple[int, float]:
    """The status of a long poll with a lease of a minute, and how long it took."""
    began = time.monotonic()
    answer = http.post("/queues/q/receive", json={"lease": 60, "wait": seconds})
    return answer.status_code, time.monotonic() - began


@JUMPS
def test_a_lease_ends_when_it_should(disk: Disk, http: httpx.Client, jump: int) -> None:
    """Planted: leases that follow the wall clock, which end at once or an hour late."""
    send_all(http, ["a"])
    began = time.monotonic()
    assert http.post("/queues/q/receive", json={"lease": 2.5}).status_code == 200
    disk.control.clock_shift = jump
    assert waited(http, WITHIN)[0] == 200, "the lease hangs"
    assert time.monotonic() - began > 2.4, "the lease ended early"


@JUMPS
def test_a_lease_taken_after_the_jump_ends_when_it_should(disk: Disk, http: httpx.Client, jump: int) -> None:
    """Planted: a deadline made with one clock and compared with the other."""
    send_all(http, ["a", "b"])
    disk.control.clock_shift = jump
    began = time.monotonic()
    answer = http.post("/queues/q/receive", json={"lease": 1, "max": 2})
    until = answer.json()["messages"][0]["lease_until"]
    assert len(answer.json()["messages"]) == 2
    assert waited(http, WITHIN)[0] == 200, "the lease hangs"
    assert time.monotonic() - began > 0.9, "the lease ended early"
    assert until.endswith("Z")


@JUMPS
def test_a_delay_ends_when_it_should(disk: Disk, http: httpx.Client, jump: int) -> None:
    """Planted: delays that follow the wall clock."""
    began = time.monotonic()
    assert send(http, "a", delay=2).status_code == 201
    disk.control.clock_shift = jump
    assert waited(http, WITHIN)[0] == 200, "the delay hangs"
    assert time.monotonic() - began > 1.9, "the delay ended early"


@JUMPS
def test_a_long_poll_ends_when_it_should(disk: Disk, http: httpx.Client, jump: int) -> None:
    """Planted: a time-out that follows the wall clock."""
    disk.control.clock_shift = jump
    status, seconds = waited(http, 1)
    assert status == 204
    assert 0.9 < seconds < WITHIN


def test_a_message_with_a_ttl_lives_through_a_jump_forward(disk: Disk, http: httpx.Client) -> None:
    """Planted: a time to live that follows the wall clock and takes the message with it."""
    assert send(http, "a", ttl=600).status_code == 201
    disk.control.clock_shift = HOUR
    assert waited(http, 0)[0] == 200


def test_a_lease_survives_a_restart_and_a_jump_back(
    disk: Disk, server: ServerProcess, http: httpx.Client
) -> None:
    """A restart cannot tell a jump from the time it was down, but no lease gets longer than it was.

    Planted: the wall clock's word taken for the time left, which would be an hour.
    """
    send_all(http, ["a"])
    assert http.post("/queues/q/receive", json={"lease": 3}).status_code == 200
    server.kill()
    disk.control.clock_shift = -HOUR
    server.start()
    assert waited(http, WITHIN)[0] == 200, "the lease hangs after the restart"


def test_a_lease_survives_a_restart(server: ServerProcess, http: httpx.Client) -> None:
    """Planted: a restart that forgets leases and hands everything out at once."""
    send_all(http, ["a"])
    answer = http.post("/queues/q/receive", json={"lease": 60})
    server.kill()
    server.start()
    assert waited(http, 0)[0] == 204
    assert http.delete(f"/queues/q/receipts/{answer.json()['receipt']}").status_code == 204
