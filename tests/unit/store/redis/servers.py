"""Redis in each of its forms: a Cluster, a master with a Sentinel, one that breaks off."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from tests.harness import free_port, until
from tests.redis_server import RedisServer


def command(client: redis.Redis, *words: str | int) -> Any:
    """The answer to a command."""
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def replica_of(port: int, *arguments: str) -> RedisServer:
    """A server that follows another, and is in step."""
    made = RedisServer(
        *("--replicaof", "127.0.0.1", str(port), "--repl-diskless-sync-delay", "0", *arguments)
    )
    with made.client() as client:
        until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica in step")
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], what="its file")
    return made


class Cluster:
    """Masters that share the slots, and a replica of each if wished for."""

    def __init__(self, masters: int = 3, *, replicas: bool = False) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        self.masters = [RedisServer(*options) for _ in range(masters)]
        self.replicas = [RedisServer(*options) for _ in self.masters] if replicas else []
        self.servers = [*self.masters, *self.replicas]
        self.clients = {server.port: server.client() for server in self.servers}
        self.ids = {port: command(client, "CLUSTER MYID") for port, client in self.clients.items()}
        borders = [REDIS_CLUSTER_HASH_SLOTS * at // masters for at in range(masters + 1)]
        for at, server in enumerate(self.servers):
            client = self.clients[server.port]
            command(client, "CLUSTER SET-CONFIG-EPOCH", at + 1)
            if server in self.masters:
                command(client, "CLUSTER ADDSLOTSRANGE", borders[at], borders[at + 1] - 1)
            command(client, "CLUSTER MEET", "127.0.0.1", self.servers[0].port)
        for server in self.servers:
            until(partial(self._knows_all, server), what="a Cluster whose nodes know each other")
        for master, replica in zip(self.masters, self.replicas, strict=bool(self.replicas)):
            command(self.clients[replica.port], "CLUSTER REPLICATE", self.ids[master.port].decode())
        for server in self.servers:
            until(partial(self._well, server), what="a Cluster that is up")

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def _knows_all(self, server: RedisServer) -> bool:
        known = command(self.clients[server.port], "CLUSTER NODES")
        return len(known) == len(self.servers) and all(
            "handshake" not in each["flags"] for each in known.values()
        )

    def _well(self, server: RedisServer) -> bool:
        client = self.clients[server.port]
        told = client.info("replication")
        return command(client, "CLUSTER INFO")["cluster_state"] == "ok" and (
            server in self.masters or told.get("master_link_status") == "up"
        )

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        for server in self.servers:
            server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Watched:
    """A master, a replica, and a Sentinel that knows them as `shop`."""

    def __init__(self) -> None:
        self.master = RedisServer()
        self.replica = replica_of(self.master.port)
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="windlass-sentinel-"))
        file = self.folder / "sentinel.conf"
        file.write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {self.folder}\n"
            f"sentinel monitor shop 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 2000\n"
        )
        self._process = subprocess.Popen(
            ["redis-server", str(file), "--sentinel"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self.client = redis.Redis(port=self.port)
        until(self._ready, what="a Sentinel that knows the replica")

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/shop"

    def _ready(self) -> bool:
        try:
            known = command(self.client, "SENTINEL SLAVES", "shop")
        except redis.ConnectionError:
            return False
        return any(each["master-link-status"] == "ok" for each in known)

    def close(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait(30)
        for server in (self.master, self.replica):
            server.close()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BreakingOff:
    """Something that answers like a Redis, and closes the connection when it is told `word`."""

    def __init__(self, word: bytes, answer: Callable[[bytes], bytes]) -> None:
        self.heard = 0
        """How often it was told that."""
        self._word = word
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                while asked := connection.recv(65_536):
                    if self._word in asked:
                        self.heard += 1
                        break
                    connection.sendall(self._answer(asked))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(30)
