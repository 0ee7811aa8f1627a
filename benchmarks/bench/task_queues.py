"""The task queues that run on Redis: how each library's worker is started, and a Redis for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec

from bench.processes import BenchmarkError, Process, free_port, scratch_directory

BENCH_ROOT = Path(__file__).resolve().parents[1]
ON_DISK = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
IN_MEMORY = ("--appendonly", "no", "--save", "")


class Library(msgspec.Struct, frozen=True):
    """A task queue; `worker`: the arguments of `python -m` that start one worker, eight jobs at a time."""

    name: str
    """Of its package, and of its module in bench.tasks."""
    worker: tuple[str, ...]
    remark: str

    def installed(self) -> bool:
        return find_spec(self.name) is not None


LIBRARIES = (
    Library(
        "dramatiq",
        ("dramatiq", "bench.tasks.dramatiq", "--processes", "1", "--threads", "8"),
        "one worker process of 8 threads, and a second one that watches it",
    ),
    Library(
        "huey",
        ("huey.bin.huey_consumer", "bench.tasks.huey.huey", "--workers", "8", "--worker-type", "thread"),
        "one process of 8 threads",
    ),
    Library(
        "celery",
        ("celery", "-A", "bench.tasks.celery", "worker", "--pool", "threads", "--concurrency", "8"),
        "one process with a pool of 8 threads",
    ),
    Library("saq", ("saq", "bench.tasks.saq.settings"), "one process of 8 coroutines"),
    Library(
        "rq",
        ("rq.cli", "worker", "bench", "--url", "redis://127.0.0.1:{port}/0"),
        "one job at a time, each in a process that is forked for it",
    ),
)


def load(library: str, operation: str, port: int, count: int) -> dict[str, int]:
    """What the client of task_load.py prints."""
    argv = [sys.executable, "-m", "bench.task_load", library, operation, str(count)]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            cwd=BENCH_ROOT,
            env=_environment(port),
            timeout=300,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{' '.join(argv)} hangs: jobs are lost, or the worker stands still") from error
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(argv)} failed: {done.stderr[-2000:]}")
    return {key: int(value) for key, _, value in (pair.partition("=") for pair in done.stdout.split())}


@contextmanager
def redis(scratch: Path, settings: tuple[str, ...]) -> Iterator[tuple[int, Path]]:
    """A fresh Redis; its port, and its directory."""
    with scratch_directory(scratch, "redis") as directory:
        port = free_port()
        argv = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--dir",
            str(directory),
            *settings,
        ]
        server = Process(argv, directory / "redis.log")
        try:
            server.wait_for_port(port)
            yield port, directory
        finally:
            server.stop()


@contextmanager
def working(library: Library, port: int, directory: Path) -> Iterator[Process]:
    """A worker on the Redis at `port`, checked: a job comes back."""
    words = [word.format(port=port) for word in library.worker]
    worker = Process([sys.executable, "-m", *words], directory / "worker.log", env=_environment(port))
    try:
        try:
            load(library.name, "rate", port, 1)
        except BenchmarkError:  # SAQ's worker sweeps as it starts, and takes a job of that moment for stuck
            load(library.name, "rate", port, 1)
        yield worker
    finally:
        worker.stop()


def _environment(port: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(BENCH_ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "BENCH_PORT": str(port), "PYTHONPATH": path}
