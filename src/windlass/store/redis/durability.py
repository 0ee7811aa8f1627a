"""Whether Redis keeps what it is given as was asked: read from the servers, judged, and told."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import redis

from windlass.errors import OutcomeUnknown, StartError, StoreUnavailable
from windlass.store.redis import persistence
from windlass.store.redis.persistence import LEVELS, Level, Persistence
from windlass.store.redis.survival import LOSES, Survival, survival, weakest
from windlass.store.redis.topology import Place, Topology, named

Asked = Literal["fsync", "everysec", "memory", "replicated"]

_NEEDED: dict[Asked, Level] = {
    "fsync": "always",
    "replicated": "always",
    "everysec": "everysec",
    "memory": "nothing",
}
_OLDEST = (7, 0)
_PATIENCE = 1.0
"""Seconds for a replica's answer: that it tells its settings is not worth more."""
_PAUSE = 10
"""Readings in which a replica that did not answer is not asked again."""


class Lack(msgspec.Struct, frozen=True):
    """One thing in which a server gives less than was asked."""

    server: str
    why: str
    settings: tuple[str, ...] = ()
    """The lines of redis.conf that mend it; each is a CONFIG SET as well."""
    breaks: bool = True
    """Whether what is answered may be lost by it: of a master that runs so, nothing is taken."""

    def __str__(self) -> str:
        mend = "; ".join(f"CONFIG SET {setting}" for setting in self.settings)
        return f"{self.server}: {self.why}" + (f" ({mend})" if mend else "")


class Confirmation(msgspec.Struct, frozen=True):
    """What is sent behind writes, on their connection, so that replicas have them before the answer."""

    commands: tuple[tuple[str | int, ...], ...]
    replicas: int

    def judge(self, reply: Any) -> None:
        """Raises OutcomeUnknown unless the last reply, or an error in its place, says that enough have it."""
        local, had = reply if isinstance(reply, list) else (1, reply)
        if isinstance(had, int) and had >= self.replicas and local:
            return
        count = f"{had} of {self.replicas}" if isinstance(had, int) else f"not all {self.replicas}"
        raise OutcomeUnknown(
            f"This was done, and {count} replicas confirmed it in time: a failover may undo it. Look, or"
            " repeat it with the same Idempotency-Key.",
            retry_after=1,
        ) from (had if isinstance(had, Exception) else None)


class Durability(msgspec.Struct, frozen=True):
    """What the servers give at one moment, beside what was asked."""

    asked: Asked
    wanted: int
    """How many replicas `replicated` waits for."""
    masters: tuple[Persistence, ...]
    replicas: tuple[Persistence, ...]
    """Those that could be asked."""
    unread: tuple[str, ...]
    """The names of those that could not."""

    @property
    def survives(self) -> Survival:
        """What an acknowledged message survives."""
        waited_for = self.wanted if self.asked == "replicated" else 0
        return survival(self.masters, waited_for, self._on_disks)

    @property
    def lacks(self) -> list[Lack]:
        """In what this is less than was asked; empty: in nothing."""
        found = [lack for server in (*self.masters, *self.replicas) for lack in self._lacks(server)]
        if self.asked == "replicated":
            found += [
                Lack(
                    master.name,
                    f"{len(master.replicas)} replicas are connected and in step, of {self.wanted} that"
                    f" --replicas asks for; on a replica: REPLICAOF {master.name.replace(':', ' ')}",
                    breaks=False,  # who waits for them in vain is told so
                )
                for master in self.masters
                if len(master.replicas) < self.wanted
            ]
        return found

    @property
    def advice(self) -> list[str]:
        """What might be better and is not refused."""
        found = []
        for master in self.masters:
            if not master.maxmemory:
                found.append(
                    f"{master.name}: without maxmemory the kernel kills Redis when the machine is full; with"
                    " it, clients are told (CONFIG SET maxmemory 4gb, say)"
                )
            if master.file_may_be_torn and master.told:
                found.append(
                    f"{master.name}: Windlass may not have it begin a new file after its start, and a write"
                    " that a power cut tore may undo answers later (ACL SETUSER … +bgrewriteaof)"
                )
            if self.asked == "replicated" and (master.min_replicas or 0) < self.wanted:
                found.append(
                    f"{master.name}: cut off from its replicas it goes on taking what it cannot keep (CONFIG"
                    f" SET min-replicas-to-write {self.wanted}; CONFIG SET min-replicas-max-lag 10)"
                )
            if master.replicas and master.level == "nothing":
                found.append(
                    f"{master.name}: started again it is empty, and so are its replicas then; nothing may"
                    " start it by itself"
                )
        found += [f"the replica {name} does not tell its settings" for name in self.unread]
        if self.asked == "replicated" and not self._on_disks:
            found.append("replicas confirm what they have in memory, not on disk")
        return found

    def shown(self) -> dict[str, Any]:
        """For /status and /health, as JSON has it."""
        return {
            "asked": self.asked,
            "keeps": weakest(self.masters),
            "replicas": min(len(master.replicas) for master in self.masters),
            "survives": msgspec.to_builtins(self.survives),
            "lacks": [str(lack) for lack in self.lacks],
            "advice": self.advice,
        }

    def since(self, before: Durability) -> list[str]:
        """What is other than at an earlier reading, a line for each server; empty: nothing."""
        then = {each.name: each for each in (*before.masters, *before.replicas)}
        now = {each.name: each for each in (*self.masters, *self.replicas)}
        found = [
            f"{name}: {', '.join(changes)}"
            for name, server in now.items()
            if name in then and (changes := server.since(then[name]))
        ]
        found += [f"{name}: is a {_role(now[name])} now" for name in now if name not in then]
        return found + [f"{name}: was a {_role(then[name])}, and is gone" for name in then if name not in now]

    def confirmation(self, within: float) -> Confirmation | None:
        """What to send behind writes, None where replicas are not waited for. `within`: seconds, over 0.

        Those have to be fewer than the connection's patience, or it gives up first.
        """
        if self.asked != "replicated":
            return None
        milliseconds = max(3, int(within * 1000))  # 0 would be for ever
        if self._on_disks:
            # A replica that WAITAOF asks answers before it syncs what it has just read, and tells of its disk
            # a second later by itself. Behind WAIT it has synced that.
            first = milliseconds // 3
            commands = ("WAIT", self.wanted, first), ("WAITAOF", 1, self.wanted, milliseconds - first)
            return Confirmation(commands, self.wanted)
        return Confirmation((("WAIT", self.wanted, milliseconds),), self.wanted)

    @property
    def _on_disks(self) -> bool:
        """Whether to wait for the disks of replicas: those without `always` confirm late, or never."""
        return (
            bool(self.replicas)
            and not self.unread
            and all(replica.level == "always" for replica in self.replicas)
            and all(master.waitaof for master in self.masters)
        )

    def _lacks(self, server: Persistence) -> list[Lack]:
        name = server.name if server.master else f"the replica {server.name}"
        found = []
        if tuple(int(part) for part in server.version.split(".")[:2] if part.isdecimal()) < _OLDEST:
            found.append(
                Lack(name, f"Redis {server.version} is too old: install Redis 7 or Valkey", breaks=False)
            )
        if server.maxmemory_policy != "noeviction":
            found.append(
                Lack(
                    name,
                    f"it throws messages away when it is full (maxmemory-policy {server.maxmemory_policy})",
                    ("maxmemory-policy noeviction",),
                )
            )
        if server.aof_failed:
            why = "it cannot write its append-only file: make room, and look at its log"
            found.append(Lack(name, why, breaks=False))  # it refuses by itself
        needed = _NEEDED[self.asked]
        if LEVELS.index(server.level) >= LEVELS.index(needed) or not (server.master or server.promotable):
            return found
        if server.aof_unfinished:
            why = "its append-only file is not whole yet: wait until INFO says aof_rewrite_in_progress:0"
            return [*found, Lack(name, why)]
        if not server.told:
            why = (
                "it does not let its settings be read (CONFIG GET), and what nobody can read is not promised:"
                " allow it with ACL SETUSER … +config|get, or ask for --durability memory"
            )
            return [*found, Lack(name, why)]
        settings = []
        if not server.appendonly:
            settings.append("appendonly yes")
        if server.appendfsync != "always" and server.appendfsync != needed:
            settings.append(f"appendfsync {needed}")
        if not server.fsync_in_rewrites:
            settings.append("no-appendfsync-on-rewrite no")
        return [*found, Lack(name, f"in a power cut, {LOSES[server.level]}", tuple(settings))]


class Reader:
    """Reads the servers' settings again and again: a round trip to each master and each replica."""

    def __init__(self, topology: Topology, asked: Asked, replicas: int = 1) -> None:
        self._topology = topology
        self._asked: Asked = asked
        self._wanted = replicas
        self._replicas: dict[Place, redis.Redis] = {}
        self._silent: dict[Place, int] = {}
        """Replicas that did not answer, and in how many readings more they are passed over."""

    def read(self) -> Durability:
        """Ask all. Blocks; one thread at a time. Raises StoreUnavailable when a master does not answer."""
        cluster = self._topology.cluster
        masters = tuple(
            persistence.read(node.name, node.client, cluster=cluster) for node in self._topology.nodes()
        )
        found: list[Persistence] = []
        unread: list[str] = []
        places = dict.fromkeys(place for master in masters for place in master.replicas)
        for place in places:
            replica = self._read_replica(place, cluster)
            if replica is None:
                unread.append(named(place))
            else:
                found.append(replica)
        for place in self._replicas.keys() - places.keys():
            self._replicas.pop(place).close()
        return Durability(self._asked, self._wanted, masters, tuple(found), tuple(unread))

    def close(self) -> None:
        """Close the connections to replicas."""
        for client in self._replicas.values():
            client.close()

    def _read_replica(self, place: Place, cluster: bool) -> Persistence | None:
        if self._silent.get(place, 0) > 0:
            self._silent[place] -= 1
            return None
        if place not in self._replicas:
            self._replicas[place] = self._topology.beside(place, _PATIENCE)
        try:
            return persistence.read(named(place), self._replicas[place], cluster=cluster)
        except StoreUnavailable:
            self._silent[place] = _PAUSE
            return None


def check(durability: Durability) -> None:
    """Raises StartError when the servers give less than was asked, with the lines that mend it."""
    lacks = durability.lacks
    if not lacks:
        return
    lines = [f"The store gives less than --durability {durability.asked} promises."]
    for lack in lacks:
        lines.append(f"  {lack.server}: {lack.why}.")
        lines += [f"      CONFIG SET {setting}" for setting in lack.settings]
    if any(lack.settings for lack in lacks):
        lines.append(
            "Then CONFIG REWRITE, so that it stays; or write the same, without CONFIG SET, into redis.conf."
        )
    level = weakest(durability.masters)
    if LEVELS.index(level) < LEVELS.index(_NEEDED[durability.asked]):
        less = level if level == "everysec" else "memory"
        lines.append(f"Or ask for less, and know what may be lost: --durability {less}.")
    raise StartError("\n".join(lines))


def _role(server: Persistence) -> str:
    return "master" if server.master else "replica"
