"""A process with boxes is killed at any moment of their making: none of them stays."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from tests.harness import until
from tests.installation import adopting, orphans

pytestmark = pytest.mark.storm

KILLS = 60
BOXES = """
import asyncio
from windlass.judge.verdict import Limits
from windlass.runner.sandbox import Command, open_sandbox

LIMITS = Limits(time_ms=60_000, memory_kib=65_536, wall_ms=30)

async def main():
    async with await open_sandbox(allow_weak=True) as sandbox:
        print("here", flush=True)
        while True:
            boxes = [sandbox.run(Command(argv=("sleep", "1000"), limits=LIMITS)) for _ in range(4)]
            await asyncio.gather(*boxes)

asyncio.run(main())
"""


def test_no_box_outlives_whoever_made_it() -> None:
    """Planted: bubblewrap is ended with the runner, and its child waits for it for ever."""
    seed = int(os.environ.get("WINDLASS_SEED") or random.randrange(2**32))
    print(f"WINDLASS_SEED={seed}")
    rng = random.Random(seed)
    with adopting():
        for kill in range(KILLS):
            process = subprocess.Popen([sys.executable, "-c", BOXES], stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, 0.1))
            process.kill()
            process.communicate()
            until(lambda: not orphans(), 60, f"the end of all boxes after kill {kill}")
