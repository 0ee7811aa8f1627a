"""One `windlass serve` process that is killed and started again on the same directory."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

SERVE = (sys.executable, "-c", "from windlass.cli import main; main()", "serve")


class ServerEnded(Exception):  # noqa: N818 - what happened, said as it is
    """The server ended, or did not become ready, though nobody killed it."""


class Server:
    """A server on `data_dir`, with its log and ready file in `work_dir`.

    `alive` is the range of seconds after which it is killed once it is ready.
    """

    def __init__(
        self,
        data_dir: Path,
        work_dir: Path,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        alive: tuple[float, float] = (0.2, 1.5),
        ready_within: float = 30.0,
    ) -> None:
        self.data_dir = data_dir
        self.log_path = work_dir / "server.log"
        self.up = asyncio.Event()
        self.dying = False  # set before the kill: from then on connections may break
        self.generation = 0
        self.host, self.port = "127.0.0.1", 0
        self._ready_file = work_dir / "ready"
        self._command = command or SERVE
        self._environment = dict(environment or {})
        self._alive = alive
        self._ready_within = ready_within
        self.process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self) -> float:
        """Start it and return the seconds until it was ready; ServerEnded if it does not get there."""
        began = time.monotonic()
        await self.launch()
        while not self._ready_file.exists():
            if not self.running:
                raise ServerEnded(f"the server ended while it started: {self.last_words()}")
            if time.monotonic() > began + self._ready_within:
                raise ServerEnded(f"not ready within {self._ready_within:.0f} s: {self.last_words()}")
            await asyncio.sleep(0.005)
        url = urlsplit(self._ready_file.read_text().strip())
        self.host, self.port = url.hostname or "127.0.0.1", url.port or 80
        self.dying = False
        self.up.set()
        return time.monotonic() - began

    async def launch(self) -> None:
        """Start the process and do not wait for anything."""
        self.generation += 1
        self._ready_file.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                *("--host", "127.0.0.1", "--port", "0", "--log-format", "console"),
                *("--data-dir", str(self.data_dir), "--ready-file", str(self._ready_file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=kept | self._environment,
                start_new_session=True,
            )

    async def die(self, rng: random.Random) -> None:
        """Live for a random while, then be killed; ServerEnded if it ends before that."""
        process = self.process
        assert process is not None
        try:
            await asyncio.wait_for(process.wait(), rng.uniform(*self._alive))
        except TimeoutError:
            await self.kill()
        else:
            raise ServerEnded(f"the server ended by itself ({process.returncode}): {self.last_words()}")

    async def die_starting(self, rng: random.Random) -> None:
        """Start and be killed at some moment of the start, while it recovers."""
        await self.launch()
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL to it and its children; returns when it is gone."""
        self.dying = True
        self.up.clear()
        if self.process is not None:
            if self.running:
                os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()

    def check(self) -> None:
        """ServerEnded if it ended though nobody killed it."""
        if not self.running and not self.dying:
            raise ServerEnded(f"the server ended by itself: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log, for evidence."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return " | ".join(text.strip().splitlines()[-5:]) or "it said nothing"
