"""Power cuts: what was not synced is lost, torn or kept by the seed, and everything acknowledged is there."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.storm.disk import Disk
from tests.storm.power import PowerServer
from tests.storm.talk import client, create, database, on_disk, receive_all, send_all
from windlass.torture import Kind, Plan, Report, Storm

pytestmark = pytest.mark.storm

CUTS = {"http": 25, "sqs": 12}


def storm(folder: Path, synchronous: str, seed: int, cuts: int, protocol: str = "http") -> Report:
    """A storm of power cuts on a new disk."""
    plan = Plan(seed=seed, kills=cuts, senders=6, consumers=9, lease_seconds=1.0, protocol=protocol)
    folder.mkdir()

    async def run() -> Report:
        server = PowerServer(Disk(folder / "disk"), folder, synchronous)
        return await Storm(plan, server).run()

    report = asyncio.run(run())
    print(f"seed {seed}: {report.kills} cuts, {report.stored} messages stored, {report.received} received")
    return report


def test_the_first_message_survives_in_its_new_directory(tmp_path: Path) -> None:
    """Twenty fates of one cut after the first answer. Planted: a new data directory that is not synced."""
    disk = Disk(tmp_path / "disk")
    disk.snapshot()
    server = on_disk(disk)
    with server, client(server) as http:
        create(http)
        send_all(http, ["first"])
        server.kill()
    file = database(server.data_dir)
    disk.replay()
    for seed in range(20):
        disk.leave(random.Random(seed))
        assert file.exists(), f"gone with seed {seed}"
    disk.snapshot()
    with server, client(server) as http:
        assert receive_all(http) == ["first"]


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("protocol", ["http", "sqs"])
def test_everything_acknowledged_survives_power_cuts(tmp_path: Path, protocol: str) -> None:
    """Planted: `synchronous=NORMAL`; an answer before the commit."""
    report = storm(tmp_path / "full", "full", random.randrange(2**32), CUTS[protocol], protocol)
    assert report.kills == CUTS[protocol]
    assert report.stored > 100
    assert report.violations == []


@pytest.mark.timeout(1000)
def test_without_syncing_messages_are_lost(tmp_path: Path) -> None:
    """The storm can tell: with `synchronous=off` it finds a loss. Planted: a disk that forgets nothing."""
    seed = random.randrange(2**32)
    for attempt in range(15):
        report = storm(tmp_path / f"off-{attempt}", "off", seed + attempt, cuts=2)
        # Lost messages, or a database so torn that it is refused: they are lost too.
        if any(each.kind is Kind.LOST or "damaged" in each.evidence for each in report.violations):
            return
    pytest.fail(f"no loss in 30 cuts without any sync (seed {seed})")
