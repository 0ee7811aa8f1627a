"""Power cuts under Redis: `appendfsync always` keeps in order what was answered, and less does not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.harness import until
from tests.redis_server import RedisServer
from tests.storm.disk import Disk, Kind
from tests.storm.fleet import FaultStorm, Fleet, storm

pytestmark = pytest.mark.storm

CUTS = 40
WRITERS = 4
SHARED = "shared"


@dataclass
class Push:
    """One value on its way into two lists; seconds of the monotonic clock, infinity: no answer came."""

    writer: int
    number: int
    sent: float
    answered: float = float("inf")

    def value(self, size: int) -> bytes:
        return b"%d-%d-%s" % (self.writer, self.number, b"x" * size)


class Ledger:
    """What was sent and what was answered, and which of it must be there."""

    def __init__(self) -> None:
        self.pushes: dict[tuple[int, int], Push] = {}
        self.next = [0] * WRITERS
        self.lost: list[str] = []

    def push(self, writer: int) -> Push:
        push = Push(writer, self.next[writer], time.monotonic())
        self.next[writer] += 1
        self.pushes[writer, push.number] = push
        return push

    @property
    def answered(self) -> int:
        return sum(each.answered < float("inf") for each in self.pushes.values())

    def check(self, server: RedisServer) -> None:
        """Compare with what is there; what is not, and never was answered, may be sent again."""
        shared = [parse(each) for each in server.do("LRANGE", SHARED, 0, -1)]
        self._check_order(shared)
        for writer in range(WRITERS):
            there = [number for _, number in map(parse, server.do("LRANGE", own(writer), 0, -1))]
            self._check_list(writer, there, own(writer))
            self._check_list(writer, [number for each, number in shared if each == writer], SHARED)
            self.next[writer] = len(there)
            for number in itertools.count(len(there)):
                if self.pushes.pop((writer, number), None) is None:
                    break

    def _check_list(self, writer: int, there: list[int], name: str) -> None:
        if there != list(range(len(there))):
            self.lost.append(f"{name}: {there} is out of order, or has a gap")
        for number in range(len(there), self.next[writer]):
            if self.pushes[writer, number].answered < float("inf"):
                self.lost.append(f"{name}: {writer}-{number} was answered, and {len(there)} are there")
                return

    def _check_order(self, shared: list[tuple[int, int]]) -> None:
        """None stands behind one that was sent after its own answer."""
        latest = 0.0
        for key in shared:
            push = self.pushes[key]
            if push.answered < latest:
                self.lost.append(f"{SHARED}: {key} stands behind a younger one")
            latest = max(latest, push.sent)


def own(writer: int) -> str:
    return f"writer-{writer}"


def parse(value: bytes) -> tuple[int, int]:
    writer, number, _ = value.split(b"-")
    return int(writer), int(number)


class Writer(threading.Thread):
    """Pushes values on a connection of its own, some at a time, until the power is gone."""

    def __init__(self, server: RedisServer, ledger: Ledger, number: int, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._server, self._ledger, self._number, self._rng = server, ledger, number, rng

    def run(self) -> None:
        with contextlib.suppress(redis.ConnectionError), self._server.client() as client:
            while True:
                pipeline = client.pipeline(transaction=True)
                pushes = [self._ledger.push(self._number) for _ in range(self._rng.randint(1, 5))]
                for push in pushes:
                    value = push.value(self._rng.choice((1, 100, 600)))
                    pipeline.rpush(own(self._number), value)
                    pipeline.rpush(SHARED, value)
                pipeline.execute()
                now = time.monotonic()
                for push in pushes:
                    push.answered = now


TORN = ("Unexpected end of file", "truncated file is not the last file")
"""Why Redis refuses to start."""


class PowerRedis:
    """A Redis on a disk that forgets what was not synced when the power is cut."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self.disk = Disk(folder / "disk", ordered=True)
        self.cuts = self.mended = self.rewritten = 0
        self.server = RedisServer(
            *arguments, folder=self.disk.root, environment=self.disk.environment(), start=False
        )
        # Redis does not sync the name of the folder that its first start makes. That is over and on disk.
        self.server.start()
        self.server.stop()

    def start(self) -> None:
        """Start it, as an operator would where a torn file's end keeps it from starting."""
        self.disk.snapshot()
        before = len(self.server.log)
        self.server.launch()
        until(lambda: not self.server.running or self.server.answers(), 60, "Redis")
        if self.server.running:
            return
        said = self.server.log[before:]
        assert any(why in said for why in TORN), said
        for file in (self.disk.root / "appendonlydir").glob("*.incr.aof"):
            if file.stat().st_size:
                subprocess.run(
                    ["redis-check-aof", "--fix", file],
                    input="y\n",
                    text=True,
                    check=True,
                    capture_output=True,
                )
        self.mended += 1
        self.disk.snapshot()
        self.server.start()

    def doom(self, rng: random.Random) -> None:
        """Cut the power before one of the next changes, while the file is written anew perhaps."""
        if rewrite := rng.random() < 0.4:
            with contextlib.suppress(redis.ResponseError):  # Windlass has just asked for it
                self.server.do("BGREWRITEAOF")
        control = self.disk.control
        control.cut_at = control.operations + rng.randint(1, 60 if rewrite else 600)

    def cut(self, rng: random.Random) -> None:
        """Wait until the power is cut; leave what a disk would have then."""
        self.server.wait()
        self.server.stop()  # a child that writes the file anew
        self.rewritten += any(kind is Kind.RENAME for kind, *_ in self.disk.records())
        self.disk.cut(rng)
        self.cuts += 1

    def __str__(self) -> str:
        return f"{self.cuts} cuts, {self.rewritten} times written anew, {self.mended} times mended"


def storm_of_writers(redis: PowerRedis, cuts: int) -> Ledger:
    """Writers, and power cuts until so many are over or something is lost."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    ledger = Ledger()
    try:
        while redis.cuts < cuts and not ledger.lost:
            redis.start()
            ledger.check(redis.server)
            redis.doom(rng)
            writers = [
                Writer(redis.server, ledger, number, random.Random(rng.random())) for number in range(WRITERS)
            ]
            for writer in writers:
                writer.start()
            redis.cut(rng)
            for writer in writers:
                writer.join(60)
                assert not writer.is_alive()
        redis.start()
        ledger.check(redis.server)
    finally:
        redis.server.close()
    print(f"{redis}; {ledger.answered} of {len(ledger.pushes)} values answered")
    return ledger


@pytest.mark.timeout(1000)
def test_everything_answered_survives_power_cuts(tmp_path: Path) -> None:
    """Planted: `appendfsync everysec`; `appendfsync no`; an fdatasync that the disk does not hear.

    With `aof-load-truncated yes`, and nobody who begins a new file, one storm of ten loses something."""
    redis = PowerRedis(tmp_path / "always", "--aof-load-truncated", "no")
    ledger = storm_of_writers(redis, CUTS)
    assert ledger.lost == []
    assert ledger.answered > 1_000
    assert redis.rewritten > 0


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("setting", ["everysec", "no"])
def test_without_syncing_at_once_answers_are_lost(tmp_path: Path, setting: str) -> None:
    """The storm can tell. Planted: a disk that forgets nothing."""
    lost = storm_of_writers(PowerRedis(tmp_path / setting, "--appendfsync", setting), CUTS).lost
    assert lost != [], "no loss without syncing"
    print(lost[0])


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(("protocol", "cuts"), [("http", 12), ("sqs", 5)])
def test_every_promise_of_windlass_survives_power_cuts(tmp_path: Path, protocol: str, cuts: int) -> None:
    """Two servers on a Redis that loses power, and goes on with torn files, as it does unless told.

    Planted: `everysec`."""
    redis = PowerRedis(tmp_path / "redis")
    redis.start()

    async def harm(storm: FaultStorm) -> None:
        await asyncio.to_thread(redis.doom, storm.rng)
        await asyncio.to_thread(redis.cut, storm.rng)
        await asyncio.to_thread(redis.start)

    try:
        storm(Fleet(tmp_path, "--store", redis.server.url, environments=[{}, {}]), harm, cuts, protocol)
    finally:
        redis.server.close()
    print(redis)
