"""A server whose power is cut instead of being killed: the storm's server on a disk that forgets."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

from tests.storm.disk import Disk
from windlass.torture import Server, ServerEnded


class PowerServer(Server):
    """Each death happens just before a change or sync chosen by the seed; then the disk forgets."""

    def __init__(self, disk: Disk, work_dir: Path, synchronous: str = "full") -> None:
        environment = disk.environment() | {"WINDLASS_SYNCHRONOUS": synchronous}
        super().__init__(disk.root / "data", work_dir, environment=environment)
        self.disk = disk
        self.cuts = 0

    async def launch(self) -> None:
        self.disk.snapshot()
        await super().launch()

    async def die(self, rng: random.Random) -> None:
        await self._cut(rng, rng.randint(1, 3_000))

    async def die_starting(self, rng: random.Random) -> None:
        await self.launch()
        await self._cut(rng, rng.randint(1, 80))

    async def _cut(self, rng: random.Random, operations: int) -> None:
        self.dying = True
        self.disk.control.cut_at = self.disk.control.operations + operations
        process = self.process
        assert process is not None
        try:
            await asyncio.wait_for(process.wait(), 3)
        except TimeoutError:  # so many changes do not come, or not soon: this moment is as good
            await self.kill()
        if process.returncode != -signal.SIGKILL:
            raise ServerEnded(f"the server ended by itself ({process.returncode}): {self.last_words()}")
        self.up.clear()
        self.disk.cut(rng)
        self.cuts += 1
