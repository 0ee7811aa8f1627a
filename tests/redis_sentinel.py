"""A master, a replica, and a Sentinel that promotes it when the master is dead: the tests' own."""

from __future__ import annotations

import atexit
from typing import Any, Self

from tests.harness import until
from tests.redis_server import PATIENCE, RedisServer

SERVICE = "windlass"


class Sentinel(RedisServer):
    """One process that watches a master, and takes it for dead after `timeout` seconds of silence."""

    def __init__(self, master: RedisServer, timeout: float) -> None:
        super().__init__(start=False)
        self._settings = self.folder / "sentinel.conf"
        self._settings.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} {round(1000 * timeout)}\n"
            f"sentinel failover-timeout {SERVICE} {round(5000 * timeout)}\n"
        )
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def told(self) -> dict[str, Any]:
        """What it knows of the master."""
        known: dict[str, Any] = self.do("SENTINEL MASTER", SERVICE)
        return known

    def _command(self) -> list[str]:
        command = ["redis-server", str(self._settings), "--sentinel"]
        return [*command, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]


class RedisWithSentinel:
    """One master, some replicas, a Sentinel; ready when made. `arguments` are those of the servers."""

    def __init__(self, *arguments: str, replicas: int = 1, timeout: float = 3.0) -> None:
        self.servers: list[RedisServer] = []
        self.sentinel: Sentinel | None = None
        atexit.register(self.close)
        try:
            self.servers.append(RedisServer(*arguments))
            for _ in range(replicas):
                self.servers.append(self.servers[0].replica(*arguments))
            self.sentinel = Sentinel(self.servers[0], timeout)
            until(self._watched, PATIENCE, "a Sentinel that knows the replicas")
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        assert self.sentinel is not None
        return f"redis+sentinel://{self.sentinel.address}/{SERVICE}"

    @property
    def master(self) -> RedisServer:
        """The server that is the master now, as the Sentinel says."""
        assert self.sentinel is not None
        port = self.sentinel.told()["port"]
        return next(server for server in self.servers if server.port == port)

    def wait_for_failover(self, dead: RedisServer) -> RedisServer:
        """The new master, once the Sentinel has promoted it."""

        def promoted() -> RedisServer | None:
            master = self.master
            return master if master is not dead and master.role == "master" else None

        return until(promoted, PATIENCE, "a failover")  # type: ignore[return-value]

    def empty(self) -> None:
        """Take away all that it holds."""
        self.master.empty()

    def close(self) -> None:
        """Stop all and take everything away."""
        atexit.unregister(self.close)
        for server in (self.sentinel, *self.servers):
            if server is not None:
                server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watched(self) -> bool:
        assert self.sentinel is not None
        replicas = self.sentinel.do("SENTINEL SLAVES", SERVICE)
        ready = [each for each in replicas if each["master-link-status"] == "ok"]
        return len(ready) == len(self.servers) - 1
