"""Which Redis servers there are, and who serves a key: one alone, a Cluster, or Sentinel's master."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import parse_cluster_slots
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AuthenticationError, ClusterDownError, MovedError, NoPermissionError
from redis.retry import Retry
from redis.sentinel import Sentinel

from windlass.errors import StartError, StoreUnavailable
from windlass.store.redis import connections, torn_file
from windlass.store.redis.address import Address
from windlass.store.redis.faults import UNDONE, unavailable

Place = tuple[str, int]
"""Host and port; the path and 0 for a unix socket."""

_NO_CLUSTER = "cluster support disabled"


@dataclass(frozen=True, eq=False)
class Node:
    """A master: the same object for as long as that server is one, at the same address."""

    name: str
    """`host:port`, or the path of its socket."""
    client: redis.Redis
    """Gives bytes, repeats nothing, waits `patience` for each answer; several threads may use it at once."""


@dataclass(frozen=True)
class _Map:
    nodes: list[Node]
    slots: list[Node | None]
    """Who serves each slot of a Cluster; empty where there is none."""


class Topology:
    """The masters behind an address. Several threads may use it at once.

    A client raises `faults.Unreached` for what was not sent; after any other ConnectionError, and after a
    TimeoutError, what was sent may have been done. A connection that broke is replaced by the next.
    """

    cluster: bool
    """Whether keys are spread over several masters, so that all of one script must share a hash tag."""

    def __init__(self, address: Address, *, patience: float = 5.0) -> None:
        """Connect. `patience`: seconds that a connection, and each answer, may take.

        Raises StoreUnavailable where nothing answers, StartError where waiting would not help.
        """
        self.address = address
        self.cluster = address.kind == "cluster"
        self._options: dict[str, Any] = {
            "socket_timeout": patience,
            "socket_connect_timeout": patience,
            "protocol": 2,  # with 3, redis-py takes what was left unread on a connection for notices
            **({} if address.path else {"socket_keepalive": True}),
            **address.options,
            "retry": Retry(NoBackoff(), 0),
            "redis_connect_func": torn_file.leave_behind,
        }
        self._known: dict[Place, Node] = {}
        """The masters there are, in the order in which they are asked about a Cluster."""
        self._seeds = list(address.hosts)
        """Who is asked when those do not answer."""
        self._sentinel = self._sentinels() if address.kind == "sentinel" else None
        self._refreshing = Lock()
        self._begun = 0
        self._learned = 0
        try:
            self._map = self._learn(None)
            if not self.cluster:
                self._examine(self._map.nodes[0].client)
        except StoreUnavailable as error:
            self.close()
            if _NO_CLUSTER in str(error.__cause__):
                raise StartError(f"The store {address} is no Cluster: write redis:// instead.") from error
            told = f"The store {address}: {error.detail} ({error.__cause__})"
            if isinstance(error.__cause__, AuthenticationError | NoPermissionError):
                raise StartError(told) from error
            raise StoreUnavailable(told, retry_after=error.retry_after) from error
        except BaseException:
            self.close()
            raise

    def nodes(self) -> list[Node]:
        """All masters, in the order of their addresses."""
        return list(self._map.nodes)

    def node(self, key: bytes) -> Node:
        """The master that serves this key. Raises StoreUnavailable when there is none in the Cluster."""
        known = self._map
        if not self.cluster:
            return known.nodes[0]
        found = known.slots[key_slot(key)]
        if found is None:
            raise unavailable(ClusterDownError("no node serves this slot"))
        return found

    def refresh(self, after: Exception | None = None) -> None:
        """Learn anew who serves what: after MOVED, READONLY, CLUSTERDOWN or a lost connection.

        `after` is that error: the node that a MOVED names is asked first. Who stays keeps its client.
        Raises StoreUnavailable when nobody can tell; then all is as it was.
        """
        asked = self._begun
        with self._refreshing:
            if self._learned > asked:
                return  # another thread began after this one asked, and has learned it
            self._begun += 1
            before, self._map = self._map, self._learn(after)
            self._learned = self._begun
            for node in before.nodes:
                if node not in self._map.nodes:
                    # What another thread has under way there ends by itself.
                    node.client.connection_pool.disconnect(inuse_connections=False)

    def beside(self, place: Place, patience: float) -> redis.Redis:
        """A client for a server that is no master, a replica say; whoever asked closes it."""
        return self._client(place, socket_timeout=patience, socket_connect_timeout=patience)

    def close(self) -> None:
        """Close all connections; what other threads have under way on them fails."""
        for node in list(self._known.values()):
            node.client.close()
        if self._sentinel is not None:
            self._sentinel.close()

    # --- learning ---------------------------------------------------------------------------------

    def _learn(self, after: Exception | None) -> _Map:
        if self.cluster:
            return self._learn_cluster(after)
        if self._sentinel is not None:
            return self._learn_master(self._sentinel)
        place = (self.address.path, 0) if self.address.path else self.address.hosts[0]
        if place not in self._known:
            self._known = {place: Node(named(place), self._client(place))}
        return _Map(list(self._known.values()), [])

    def _learn_master(self, sentinel: Sentinel) -> _Map:
        """Ask the Sentinels, one after the other, who is master."""
        try:
            host, port = sentinel.discover_master(self.address.service)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            raise StoreUnavailable(
                f"No Sentinel names a master for {self.address.service!r}: look whether they run, whether"
                f" they know that name, and whether one is being elected (SENTINEL MASTERS). {UNDONE}",
                retry_after=1,
            ) from error
        place = (str(host), int(port))
        if place not in self._known:
            # Each new connection asks Sentinel, too: a former master that comes back, and has not been told
            # that it is none, is not written to.
            kind = connections.TlsMasterConnection if self.address.tls else connections.MasterConnection
            client = sentinel.master_for(self.address.service, connection_class=kind, **self._options)  # type: ignore[no-untyped-call]
            self._known = {place: Node(named(place), client)}
        return _Map(list(self._known.values()), [])

    def _learn_cluster(self, after: Exception | None) -> _Map:
        """Ask one node after the other until one knows a master for every slot.

        When none does, the one that knows most is believed: a Cluster may go on in part.
        """
        best: dict[range, Place] = {}
        who: Place | None = None
        failed: dict[Place, redis.RedisError] = {}
        for place in dict.fromkeys([*_named_by(after), *self._known, *self._seeds]):
            try:
                found = self._seen_from(place)
            except redis.RedisError as error:
                failed[place] = error
                continue
            if _covered(found) > _covered(best):
                best, who = found, place
            if _covered(best) == REDIS_CLUSTER_HASH_SLOTS:
                break
        if not best:
            raise unavailable([*failed.values(), ClusterDownError("no node serves any slot")][0])
        known = {
            place: self._known.get(place) or Node(named(place), self._client(place))
            for place in dict.fromkeys([*self._known, *sorted(set(best.values()))])
            if place in best.values()
        }
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for served, place in best.items():
            slots[served.start : served.stop] = [known[place]] * len(served)
        # The next time another is asked first, so that a view that is behind does not stay the one that
        # counts, and those that did not answer are asked last.
        self._known = {place: known[place] for place in sorted(known, key=lambda p: (p in failed, p == who))}
        self._seeds.sort(key=failed.__contains__)
        return _Map([known[place] for place in sorted(known)], slots)

    def _seen_from(self, place: Place) -> dict[range, Place]:
        """The slots of each master as one node sees them; none when it says that it sees too little."""
        node = self._known.get(place)
        client = node.client if node is not None else self._client(place)
        try:
            state = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
            reply = client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        finally:
            if node is None:
                client.close()
        if state.get("cluster_state") != "ok":
            return {}
        told: Mapping[tuple[int, int], Any] = parse_cluster_slots(reply, current_host=place[0])
        return {range(first, last + 1): each["primary"] for (first, last), each in told.items()}

    # --- connecting -------------------------------------------------------------------------------

    def _client(self, place: Place, **options: Any) -> redis.Redis:
        host, port = place
        if not port:
            kind: type[Any] = connections.UnixConnection
            where: dict[str, Any] = {"path": host}
        else:
            kind = connections.TlsConnection if self.address.tls else connections.TcpConnection
            where = {"host": host, "port": port}
        pool = redis.ConnectionPool(connection_class=kind, **where, **{**self._options, **options})
        return redis.Redis.from_pool(pool)

    def _sentinels(self) -> Sentinel:
        """The Sentinels, reached as the servers are, but for who one is to them."""
        of_the_link = {
            name: value
            for name, value in self._options.items()
            if name.startswith(("socket_", "ssl_")) or name in ("protocol", "retry")
        }
        return Sentinel(  # type: ignore[no-untyped-call]
            list(self.address.hosts),
            sentinel_kwargs={**of_the_link, "ssl": self.address.tls, **self.address.sentinel_options},
        )

    def _examine(self, client: redis.Redis) -> None:
        """Whether this is a server of the kind that the address says, and awake."""
        try:
            client.ping()
            info = client.info()
        except NoPermissionError:
            return  # the rest shows when it is used
        except redis.RedisError as error:
            raise unavailable(error) from error
        mode = info.get("redis_mode", "standalone")
        if mode != "standalone":
            raise StartError(
                f"The store {self.address} is "
                + (
                    "a node of a Cluster: write redis+cluster:// for redis://."
                    if mode == "cluster"
                    else "a Sentinel: write redis+sentinel://host:port/service."
                )
            )
        if info.get("role") == "slave" and self._sentinel is None:
            raise StartError(
                f"The store {self.address} is a replica of {info.get('master_host')}:"
                f"{info.get('master_port')}: name the master, or its Sentinels (redis+sentinel://)."
            )


def named(place: Place) -> str:
    """`host:port`, or the path of a socket."""
    host, port = place
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _named_by(error: Exception | None) -> list[Place]:
    """Whom a MOVED names."""
    return [error.node_addr] if isinstance(error, MovedError) and error.host else []


def _covered(served: Mapping[range, Place]) -> int:
    return sum(map(len, served))
