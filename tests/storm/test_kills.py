"""kill -9 at any moment, again and again, under load: `windlass torture` itself, with a real server."""

from __future__ import annotations

import json
import random

import pytest

from tests.harness import run_cli

pytestmark = pytest.mark.storm

KILLS = 25


@pytest.mark.timeout(1000)
def test_every_promise_survives_kills() -> None:
    """Planted: answers ten ms before the commit; an Idempotency-Key forgotten, or leases, by a restart."""
    seed = random.randrange(2**32)
    print(f"windlass torture --kills {KILLS} --seed {seed}")
    done = run_cli("torture", "--kills", str(KILLS), "--seed", str(seed), "--json", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["seed"] == seed
    assert report["kills"] == KILLS
    assert report["violations"] == []
    # A storm that did nothing proves nothing.
    assert report["stored"] > 1_000
    assert report["acknowledged"] > 200
    assert report["unanswered_receives"] > 0
    assert report["retried_sends"] > 0
