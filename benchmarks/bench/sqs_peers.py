"""Other servers that speak SQS: each in a virtual environment of its own, started for real.

What they are made of does not go together with each other, nor with the rest of the benchmarks.
"""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from subprocess import run

from bench.environment import ROOT
from bench.processes import BenchmarkError, Process, free_port, scratch_directory
from bench.sqs import Sqs, Subject

HOME = ROOT / ".venv-peers"


@dataclass(frozen=True)
class Peer:
    """A server; its command and environment may have `{port}` and `{directory}` in them."""

    name: str
    """Of the group in pyproject.toml, and of its lock in requirements/."""
    package: str
    """Whose version is told."""
    command: tuple[str, ...]
    """What `python` is given."""
    remark: str
    fastest: int
    """Messages a second that nobody receives from it one by one: a preload of as many never runs dry."""
    fastest_batched: int
    """The same, ten by ten."""
    least_seconds: float = 0
    """Shorter runs would tell nothing: an answer to one of many takes this one seconds."""
    most_connections: int = 1_000
    """With more of them it does less."""
    environment: Mapping[str, str] = field(default_factory=dict)


MOTO = Peer(
    name="moto",
    package="moto",
    command=("-m", "moto.server", "--host", "127.0.0.1", "--port", "{port}"),
    remark="in memory, lost with the process; a thread for each connection",
    fastest=60,
    fastest_batched=80,
    least_seconds=10,
    most_connections=8,
)
LOCALSTACK = Peer(
    name="localstack",
    package="localstack-core",
    command=("-m", "localstack.runtime.main"),
    remark="in memory, lost with the process; without Docker, SERVICES=sqs",
    fastest=1_500,
    fastest_batched=8_000,
    environment={
        "OVERRIDE_IN_DOCKER": "0",
        "DNS_ADDRESS": "0",
        "LS_LOG": "warning",
        "GATEWAY_LISTEN": "127.0.0.1:{port}",
        "SERVICES": "sqs",
        "EAGER_SERVICE_LOADING": "1",
        "STRICT_SERVICE_LOADING": "1",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "SQS_ENDPOINT_STRATEGY": "path",
        "FILESYSTEM_ROOT": "{directory}",
    },
)
PEERS = (MOTO, LOCALSTACK)


def python_of(name: str) -> Path:
    """The Python of the environment that requirements/<name>.txt locks, which is made the first time.

    BenchmarkError where its packages cannot be had.
    """
    lock = ROOT / "requirements" / f"{name}.txt"
    made_of = f"{sys.version} {sha256(lock.read_bytes()).hexdigest()}"
    home = HOME / name
    python, stamp = home / "bin" / "python", home / "made-of"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != made_of:
        venv.create(home, clear=True, with_pip=True)
        argv = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes"]
        done = run([*argv, "--requirement", str(lock)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"{lock.name} cannot be installed: {done.stderr.strip()[-300:]}")
        stamp.write_text(made_of, encoding="utf-8")
    return python


def version_of(peer: Peer) -> str:
    code = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    return run([python_of(peer.name), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def peer_subject(peer: Peer, scratch: Path) -> Iterator[Subject]:
    """A fresh one with an empty queue, checked to send, receive and delete."""
    with scratch_directory(scratch, peer.name) as directory:
        port = free_port()
        put = {"port": port, "directory": directory}
        argv = [str(python_of(peer.name)), *(word.format(**put) for word in peer.command)]
        environment = {name: value.format(**put) for name, value in peer.environment.items()}
        process = Process(argv, directory / f"{peer.name}.log", env=environment)
        try:
            sqs = Sqs(port)
            process.wait_for_port(port, seconds=120)
            sqs.create()
            sqs.check()
            yield Subject(sqs, process, sqs.fill, sqs.held)
        finally:
            process.stop()
