"""The examples run, and do what they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import WINDLASS, ServerProcess, clean_environment, until
from windlass.client import Client

EXAMPLES = Path(__file__).parents[2] / "examples"


def environment(server: ServerProcess) -> dict[str, str]:
    path = f"{WINDLASS.parent}{os.pathsep}{os.environ['PATH']}"
    return clean_environment({"WINDLASS_URL": server.url, "PATH": path})


def run(server: ServerProcess, *command: str) -> str:
    done = subprocess.run(
        command, env=environment(server), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ask(server: ServerProcess) -> None:
    assert run(server, sys.executable, str(EXAMPLES / "ask.py"), "6", "7") == "42\n"


def test_pipeline(server: ServerProcess) -> None:
    assert run(server, str(EXAMPLES / "pipeline.sh")).splitlines()[-3:] == ["ANCHOR", "ROPE", "SAIL"]


@pytest.mark.parametrize("example", ["worker.py", "async_worker.py"])
def test_workers_work_and_end_cleanly_on_sigterm(server: ServerProcess, example: str) -> None:
    name = example.removesuffix(".py")
    worker = subprocess.Popen(
        [sys.executable, str(EXAMPLES / example), name],
        env=environment(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with worker, Client(server.url) as client:
        until(lambda: any(queue.name == name for queue in client.queues(name)), what="the worker's queue")
        client.queue(name).send_many(["rope", "sail"])
        assert worker.stdout is not None
        lines = {worker.stdout.readline().split()[-1] for _ in range(2)}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert lines == {"rope", "sail"}
        stats = client.queue(name).show()
        assert (stats.ready, stats.leased) == (0, 0)
