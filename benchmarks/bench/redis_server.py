"""A redis-server for measurements, or a Cluster of some: Debian's binary, on the disk that the others use."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis

from bench.processes import BenchmarkError, Process, free_port, scratch_directory, wait_until

SLOTS = 16_384
BUS = 10_000
"""How far the port on which nodes of a Cluster talk to each other is above the one for clients."""


class Redis:
    """One server."""

    def __init__(self, directory: Path, appendfsync: str, *more: str, port: int | None = None) -> None:
        found = shutil.which("redis-server")
        if found is None:
            raise BenchmarkError("there is no redis-server: apt-get install redis-server")
        self.directory = directory
        self.port = port or free_port()
        argv = [
            found, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(directory), "--save", "",
            "--appendonly", "yes", "--appendfsync", appendfsync, *more,
        ]  # fmt: skip
        self.process = Process(argv, directory / "redis.log", env=dict(os.environ))
        self.process.wait_for_port(self.port)
        self.client = redis.Redis(port=self.port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def version(self) -> str:
        return str(self.client.info("server")["redis_version"])

    def cpu_seconds(self) -> float:
        return self.process.cpu_seconds()

    def memory(self) -> int:
        """Bytes that it says it has allocated for what it holds."""
        return int(self.client.info("memory")["used_memory_dataset"])

    def log_bytes(self) -> int:
        """The size of its append-only files."""
        return sum(path.stat().st_size for path in (self.directory / "appendonlydir").iterdir())

    def rewrite_log(self) -> None:
        """Have the append-only files written anew, and wait for it."""
        self.client.bgrewriteaof()
        wait_until(lambda: not self.client.info("persistence")["aof_rewrite_in_progress"], "a new log")

    def function_calls(self) -> tuple[int, float]:
        """How many functions it has called so far, and for how many seconds."""
        told = self.client.info("commandstats").get("cmdstat_fcall", {"calls": 0, "usec": 0})
        return int(told["calls"]), int(told["usec"]) / 1e6

    def stop(self) -> None:
        self.client.close()
        self.process.stop()


class Cluster:
    """Some masters without replicas."""

    def __init__(self, masters: list[Redis]) -> None:
        self.masters = masters

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{master.port}" for master in self.masters)

    def cpu_seconds(self) -> float:
        """Of all masters."""
        return sum(master.cpu_seconds() for master in self.masters)


@contextmanager
def redis_server(scratch: Path, appendfsync: str) -> Iterator[Redis]:
    """A fresh one. `appendfsync`: always or everysec."""
    with scratch_directory(scratch, "redis") as directory:
        server = Redis(directory, appendfsync)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def redis_cluster(scratch: Path, appendfsync: str, masters: int) -> Iterator[Cluster]:
    """A fresh Cluster that serves. Its nodes know each other from a file, as those of the tests do."""
    ports: list[int] = []
    while len(ports) < masters:
        port = _port_with_bus()
        if port not in ports:
            ports.append(port)
    with ExitStack() as stack:
        nodes: list[Redis] = []
        for port in ports:
            directory = stack.enter_context(scratch_directory(scratch, "redis"))
            (directory / "nodes.conf").write_text(_nodes(ports, port), encoding="ascii")
            node = Redis(directory, appendfsync, "--cluster-enabled", "yes", port=port)
            stack.callback(node.stop)
            nodes.append(node)
        for node in nodes:
            node.process.wait_for(lambda node=node: _serves(node), "a cluster")  # type: ignore[misc]
        yield Cluster(nodes)


def _serves(node: Redis) -> bool:
    with suppress(redis.RedisError):
        told = node.client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        return bool(told["cluster_state"] == "ok")
    return False


def _port_with_bus() -> int:
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + BUS))
            return port


def _nodes(ports: list[int], own: int) -> str:
    """The nodes.conf of one of these: the slots are shared out evenly."""
    borders = [SLOTS * at // len(ports) for at in range(len(ports) + 1)]
    lines = [
        f"{hashlib.sha1(str(port).encode()).hexdigest()} 127.0.0.1:{port}@{port + BUS}"
        f" {'myself,' * (port == own)}master - 0 0 {at + 1} connected {borders[at]}-{borders[at + 1] - 1}"
        for at, port in enumerate(ports)
    ]
    return "\n".join([*lines, f"vars currentEpoch {len(ports)} lastVoteEpoch 0", ""])
