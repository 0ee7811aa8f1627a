"""The peers, started for real: each a durable queue "bench" with its data on the same disk as Windlass's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import BenchmarkError, Process, free_port, scratch_directory

BENCH_ROOT = Path(__file__).resolve().parents[1]
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def compile_closed_loop(directory: Path) -> Path | None:
    """Compile closed_loop.c into `directory`; None where there is no gcc."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return None
    program = directory / "closed_loop"
    source = Path(__file__).with_name("closed_loop.c")
    subprocess.run([gcc, "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return program


def python_client(
    name: str, operation: str, port: int, *, connections: int, seconds: float = 0, count: int = 0
) -> float:
    """Operations a second of a client of bench/load.py in a process of its own."""
    argv = [sys.executable, "-m", "bench.load", name, operation, str(port)]
    return operations_a_second([*argv, str(connections), str(seconds), str(count)], seconds)


def c_client(
    program: Path,
    protocol: str,
    operation: str,
    port: int,
    *,
    connections: int,
    seconds: float = 0,
    count: int = 0,
) -> float:
    """Operations a second of closed_loop.c."""
    argv = [str(program), protocol, operation, str(port), str(connections), str(seconds), str(count)]
    return operations_a_second(argv, seconds)


def operations_a_second(argv: list[str], seconds: float) -> float:
    """What a program does that prints `completed=N microseconds=N`; BenchmarkError where it fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=BENCH_ROOT, timeout=seconds + 300
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(
            f"{' '.join(argv)} hangs: the queue ran dry, or the server stands still"
        ) from error
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(argv)} failed: {done.stderr[-2000:]}")
    numbers = dict(pair.split("=") for pair in done.stdout.split())
    return int(numbers["completed"]) / (int(numbers["microseconds"]) / 1e6)


class Peer(ABC):
    """A broker with an empty durable queue "bench".

    `name` is its name in bench/load.py, `protocol` that in closed_loop.c (None where it has none),
    `durability` what it does before it confirms.
    """

    name: str
    program: str
    protocol: str | None = None
    durability: str
    #: Messages a second that no client here receives, so that a preload of as many never runs dry.
    fastest: int

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()

    @classmethod
    def installed(cls) -> bool:
        return shutil.which(cls.program) is not None

    @abstractmethod
    def start(self) -> Process:
        """Start the broker, which need not accept yet."""

    def stopped(self) -> None:
        """End helpers of the broker."""
        return


class Beanstalkd(Peer):
    name = "beanstalkd"
    program = "beanstalkd"
    protocol = "beanstalk"
    durability = "-f0: write and fsync of its log before each answer"
    fastest = 12_000

    def start(self) -> Process:
        data = self.directory / "log"
        data.mkdir()
        argv = [self.program, "-l", "127.0.0.1", "-p", str(self.port), "-b", str(data), "-f0"]
        return Process(argv, self.directory / "beanstalkd.log")


class RabbitMQ(Peer):
    name = "rabbitmq"
    program = str(RABBITMQ)
    protocol = "amqp"
    durability = (
        "durable classic queue, persistent messages, publisher confirms (fsync, batched by the broker)"
    )
    fastest = 25_000

    def start(self) -> Process:
        distribution, names = free_port(), free_port()
        settings = {
            "HOME": str(self.directory),
            "RABBITMQ_NODENAME": f"bench{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        # Erlang's port mapper would go on as a daemon after the broker: start it as our own child.
        self._names = Process(["epmd", "-port", str(names)], self.directory / "epmd.log", env=settings)
        self._names.wait_for_port(names)
        return Process([self.program], self.directory / "rabbitmq.log", env=settings)

    def stopped(self) -> None:
        self._names.stop()


class Nats(Peer):
    name = "nats"
    program = "nats-server"
    without_fsync = "NO fsync before a confirmation: this version knows no sync_interval (2 minutes, fixed)"
    durability = "fsync of the stream before each confirmation (sync_interval: always)"
    fastest = 25_000

    def start(self) -> Process:
        configuration = self.directory / "nats.conf"
        for line in ('sync_interval: "always"', ""):
            store = f'jetstream {{\n  store_dir: "{self.directory / "store"}"\n  {line}\n}}\n'
            configuration.write_text(f'listen: "127.0.0.1:{self.port}"\n{store}', encoding="utf-8")
            test = [self.program, "-t", "-c", str(configuration)]
            if subprocess.run(test, capture_output=True, check=False).returncode == 0:
                break
        if not line:
            type(self).durability = self.without_fsync
        return Process([self.program, "-c", str(configuration)], self.directory / "nats.log")


class Redis(Peer):
    name = "redis"
    program = "redis-server"
    protocol = "redis"
    durability = "appendonly yes, appendfsync always"
    fastest = 60_000

    def start(self) -> Process:
        argv = [self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        argv += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"]
        return Process(argv, self.directory / "redis.log")


PEERS: tuple[type[Peer], ...] = (Beanstalkd, RabbitMQ, Nats, Redis)


@contextmanager
def running(kind: type[Peer], scratch: Path) -> Iterator[Peer]:
    """A fresh broker, checked: a message sent is received with its content and acknowledged."""
    with scratch_directory(scratch, kind.name) as directory:
        peer = kind(directory)
        process: Process | None = None
        try:
            process = peer.start()
            process.wait_for_port(peer.port, seconds=120)
            python_client(kind.name, "check", peer.port, connections=1)
            yield peer
        finally:
            if process is not None:
                process.stop()
            peer.stopped()
