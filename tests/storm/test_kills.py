"""kill -9 at any moment, again and again, under load: `windlass torture` itself, with a real server."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.harness import run_cli

pytestmark = pytest.mark.storm

KILLS = 25
KILLS_OVER_SQS = 15
"""The engine is the same: these show what the face does with its answers."""


def torture(kills: int, *arguments: str) -> dict[str, Any]:
    """The report of a storm in which every promise was kept."""
    seed = random.randrange(2**32)
    asked = ("torture", "--kills", str(kills), "--seed", str(seed), *arguments)
    print("windlass", *asked)
    done = run_cli(*asked, "--json", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["seed"] == seed
    assert report["kills"] == kills
    assert report["violations"] == []
    # A storm that did nothing proves nothing.
    assert report["stored"] > 1_000
    assert report["acknowledged"] > 200
    assert report["retried_sends"] > 0
    return report


@pytest.mark.timeout(1000)
def test_every_promise_survives_kills() -> None:
    """Planted: answers ten ms before the commit; an Idempotency-Key forgotten, or leases, by a restart."""
    assert torture(KILLS)["unanswered_receives"] > 0


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("protocol", ["sqs", "sqs-query"])
def test_every_promise_survives_kills_over_sqs(protocol: str) -> None:
    """Planted in the face: answers before the commit; a stale receipt that deletes; a batch whose last is not
    deleted; dedup ids, or contents, that are not kept; leases of half the length.
    """
    torture(KILLS_OVER_SQS, "--protocol", protocol)
