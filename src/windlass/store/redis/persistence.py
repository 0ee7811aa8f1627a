"""What one Redis server says of how it keeps what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import redis
from redis.exceptions import ResponseError

from windlass.store.redis.faults import unavailable
from windlass.store.redis.torn_file import may_be_torn

Level = Literal["nothing", "snapshots", "unsynced", "everysec", "always"]

LEVELS: tuple[Level, ...] = ("nothing", "snapshots", "unsynced", "everysec", "always")
"""From the least to the most that a server keeps by itself."""

_READ = (
    "appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "min-replicas-to-write",
    "min-replicas-max-lag", "cluster-node-timeout", "aof-load-truncated",
)  # fmt: skip


@dataclass(frozen=True)
class Persistence:
    """One server's settings. What it does not tell is None."""

    name: str
    """`host:port`, or the path of its socket."""
    master: bool
    version: str
    """As compatible servers count, too: 7.2.4 of Valkey 8, say."""
    appendonly: bool
    appendfsync: str | None
    fsync_in_rewrites: bool | None
    save: str | None
    """The rules for snapshots, empty without any."""
    maxmemory: int
    """Bytes; 0: no limit."""
    maxmemory_policy: str
    min_replicas: int | None
    max_lag: int | None
    """Seconds after which a silent replica does not count for `min_replicas`; 0: it always does."""
    node_timeout: float | None
    """Seconds after which a node of a Cluster that is cut off takes no more writes; None outside of one."""
    replicas: tuple[tuple[str, int], ...]
    """Those that follow a master and are in step, as it calls them."""
    promotable: bool
    """Whether Sentinel may make a master of it."""
    waitaof: bool
    """Whether it can be asked to wait for the disks of replicas."""
    aof_failed: bool
    """Its last write to the append-only file failed: it refuses writes."""
    aof_unfinished: bool
    """The append-only file was just turned on and is not whole: a crash would lose what is in memory."""
    file_may_be_torn: bool
    """Half of a write may be at the end of the append-only file, and it was not let begin a new one."""

    @property
    def told(self) -> bool:
        """Whether it lets its settings be read."""
        return self.appendfsync is not None

    @property
    def level(self) -> Level:
        """What it certainly keeps by itself."""
        if not self.appendonly or self.aof_unfinished:
            return "snapshots" if self.save else "nothing"
        if not self.fsync_in_rewrites:  # or it is not told
            return "unsynced"
        if self.appendfsync == "always":
            return "always"
        return "everysec" if self.appendfsync == "everysec" else "unsynced"

    def since(self, before: Persistence) -> list[str]:
        """What is other than before, in words: "appendfsync is everysec, was always"."""
        return [
            f"{field.name.replace('_', '-')} is {_said(now)}, was {_said(then)}"
            for field in fields(self)
            if (now := getattr(self, field.name)) != (then := getattr(before, field.name))
        ]


def read(name: str, client: redis.Redis, *, cluster: bool = False) -> Persistence:
    """Ask a server, in one round trip. Raises StoreUnavailable when it does not answer."""
    pipeline = client.pipeline(transaction=False)
    pipeline.info()
    pipeline.execute_command("CONFIG GET", *_READ)  # type: ignore[no-untyped-call]
    pipeline.execute_command("COMMAND INFO", "WAITAOF")  # type: ignore[no-untyped-call]
    try:
        info, config, commands = pipeline.execute(raise_on_error=False)
    except redis.RedisError as error:
        raise unavailable(error) from error
    if isinstance(info, Exception):
        raise unavailable(info) from info
    # Services that forbid CONFIG say so, or that there is no such command.
    settings: Mapping[str, str] = {} if isinstance(config, ResponseError) else config
    return _of(name, info, settings, waitaof=_known(commands), cluster=cluster)


def _of(
    name: str, info: Mapping[str, Any], config: Mapping[str, str], *, waitaof: bool, cluster: bool
) -> Persistence:
    def number(setting: str) -> int | None:
        return int(config[setting]) if setting in config else None

    timeout = number("cluster-node-timeout")
    on_rewrite = config.get("no-appendfsync-on-rewrite")
    return Persistence(
        name=name,
        master=info.get("role", "master") == "master",
        version=str(info.get("redis_version", "0")),
        appendonly=bool(info.get("aof_enabled")),
        appendfsync=config.get("appendfsync"),
        fsync_in_rewrites=None if on_rewrite is None else on_rewrite == "no",
        save=config.get("save"),
        maxmemory=int(info.get("maxmemory", 0)),
        maxmemory_policy=str(info.get("maxmemory_policy", "unknown")),
        min_replicas=number("min-replicas-to-write"),
        max_lag=number("min-replicas-max-lag"),
        node_timeout=timeout / 1000 if cluster and timeout is not None else None,
        replicas=_replicas(info),
        promotable=info.get("slave_priority", 100) != 0,
        waitaof=waitaof,
        aof_failed=info.get("aof_last_write_status", "ok") != "ok",
        aof_unfinished=bool(
            info.get("aof_enabled")
            and (info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled"))
            and not info.get("aof_base_size")
            and not info.get("aof_current_size")
        ),
        file_may_be_torn=may_be_torn(info, config.get("aof-load-truncated")),
    )


def _replicas(info: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    found = (info.get(f"slave{number}") for number in range(int(info.get("connected_slaves", 0))))
    return tuple(
        sorted(
            (str(each["ip"]), int(each["port"]))
            for each in found
            if isinstance(each, Mapping) and each.get("state") == "online"
        )
    )


def _known(commands: Any) -> bool:
    """Whether COMMAND INFO told of a command; redis-py gives a mapping, or a list as it came."""
    if isinstance(commands, Exception):
        return False
    return any(each is not None for each in commands) if isinstance(commands, list) else bool(commands)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"{host}:{port}" for host, port in value) or "none"
    return "not told" if value is None else str(value) if value != "" else "none"
