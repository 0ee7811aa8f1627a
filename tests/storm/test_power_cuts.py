"""Power cuts: what was not synced is lost, torn or kept by the seed, and everything acknowledged is there."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.storm.disk import Disk
from tests.storm.power import PowerServer
from windlass.torture import Kind, Plan, Report, Storm

pytestmark = pytest.mark.storm

CUTS = 25


def storm(folder: Path, synchronous: str, seed: int, cuts: int) -> Report:
    """A storm of power cuts on a new disk."""
    folder.mkdir()

    async def run() -> Report:
        server = PowerServer(Disk(folder / "disk"), folder, synchronous)
        return await Storm(
            Plan(seed=seed, kills=cuts, senders=6, consumers=9, lease_seconds=1.0), server
        ).run()

    report = asyncio.run(run())
    print(f"seed {seed}: {report.kills} cuts, {report.stored} messages stored, {report.received} received")
    return report


@pytest.mark.timeout(300)
def test_everything_acknowledged_survives_power_cuts(tmp_path: Path) -> None:
    """Planted: `synchronous=NORMAL`; an answer before the commit; a new data directory not synced."""
    report = storm(tmp_path / "full", "full", random.randrange(2**32), CUTS)
    assert report.kills == CUTS
    assert report.stored > 100
    assert report.violations == []


@pytest.mark.timeout(300)
def test_without_syncing_messages_are_lost(tmp_path: Path) -> None:
    """The storm can tell: with `synchronous=off` it finds a loss. Planted: a disk that forgets nothing."""
    seed = random.randrange(2**32)
    for attempt in range(5):
        report = storm(tmp_path / f"off-{attempt}", "off", seed + attempt, cuts=2)
        if any(violation.kind is Kind.LOST for violation in report.violations):
            return
    pytest.fail(f"no loss in 10 cuts without any sync (seed {seed})")
