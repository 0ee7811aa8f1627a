"""The two HTTP servers that wrk drives: Windlass, and the bare ASGI application beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.api import Api
from bench.processes import BenchmarkError, Process, free_port, scratch_directory
from bench.sigv4 import Credentials

BENCH_ROOT = Path(__file__).resolve().parents[1]
UVICORN = (
    "--loop",
    "uvloop",
    "--http",
    "httptools",
    "--no-access-log",
    "--log-level",
    "warning",
    "--no-server-header",
)


class Windlass:
    """`windlass serve` on a free port with its data in `directory`; `start` starts it."""

    process: Process
    api: Api
    port: int

    def __init__(self, program: Path, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        found = shutil.which(str(program))
        if found is None:
            raise BenchmarkError(f"there is no program {program}; name one with --windlass")
        self.program = found
        self.directory = directory
        self._environment = environment

    def start(self, *, seconds: float = 120) -> None:
        """Start, or start again on the same data; returns as soon as it accepts, within `seconds`."""
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        argv = [self.program, "serve", "--host", "127.0.0.1", "--port", "0"]
        argv += ["--data-dir", str(self.directory / "data"), "--ready-file", str(ready)]
        self.started = time.perf_counter()
        self.process = Process(argv, self.directory / "windlass.log", env=self._environment)
        self.process.wait_for(ready.exists, "windlass serve", seconds=seconds)
        self.port = urlsplit(ready.read_text(encoding="utf-8").strip()).port or 0
        self.api = Api(self.port)

    def lock(self) -> Credentials:
        """Make the first key, which `api` sends from then on: everybody needs one now. Its pair for SQS."""
        argv = [self.program, "key", "create", "--scope", "all", "--json"]
        argv += ["--data-dir", str(self.directory / "data")]
        environment = {**os.environ, **(self._environment or {})}
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"there is no key: {done.stderr.strip()[-300:]}")
        made = json.loads(done.stdout)
        self.api.key = made["key"]
        return Credentials(made["access_key_id"], made["secret_access_key"])

    def stop(self) -> None:
        """End the process, if there is one."""
        if hasattr(self, "api"):
            self.api.close()
        if hasattr(self, "process"):
            self.process.stop()


@contextmanager
def windlass(
    program: Path, scratch: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Windlass]:
    """A fresh Windlass with the queue `bench`, checked to send, receive, lease and acknowledge."""
    with scratch_directory(scratch, "windlass") as directory:
        server = Windlass(program, directory, environment)
        try:
            server.start()
            server.api.create_queue("bench")
            server.api.check("bench")
            yield server
        finally:
            server.stop()


class Bare:
    """A constant application under uvicorn with the settings that `windlass serve` uses."""

    def __init__(
        self, directory: Path, app: str = "bench.bare:app", environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "uvicorn", app, "--app-dir", str(BENCH_ROOT)]
        argv += ["--host", "127.0.0.1", "--port", str(self.port), *UVICORN]
        self.process = Process(argv, directory / "bare.log", env=environment)


@contextmanager
def bare(scratch: Path) -> Iterator[Bare]:
    """A fresh bare application, checked to answer each kind of request as Windlass would."""
    with scratch_directory(scratch, "bare") as directory:
        server = Bare(directory)
        try:
            server.process.wait_for_port(server.port)
            api = Api(server.port)
            for method, path, status in (
                ("POST", "/queues/bench/messages", 201),
                ("GET", "/queues/bench/messages", 200),
                ("GET", "/queues/bench/messages?lease=60", 200),
                ("DELETE", "/queues/bench/receipts/B", 204),
                ("GET", "/products/product-000001", 200),
                ("GET", "/products/missing-000001", 404),
            ):
                api.expect(status, method, path, {"content": "x"} if method == "POST" else None)
            api.close()
            yield server
        finally:
            server.process.stop()
