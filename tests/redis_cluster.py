"""A Redis Cluster of the tests' own: some masters, and replicas of each."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

import redis

from tests.harness import free_port, until
from tests.redis_server import PATIENCE, RedisServer

SLOTS = 16_384
BUS = 10_000
"""How far the port on which nodes talk to each other is above the one for clients."""


class ClusterNode(RedisServer):
    """One node of a cluster. It knows the others from a file that was there before its first start."""

    def __init__(self, *arguments: str, timeout: float) -> None:
        super().__init__(
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(round(1000 * timeout))),
            # A replica stays with its master, and may take over however long it has not heard of it.
            *("--cluster-allow-replica-migration", "no", "--cluster-replica-validity-factor", "0"),
            *arguments,
            port=free_port(BUS),
            start=False,
        )
        self.id = hashlib.sha1(self.address.encode()).hexdigest()

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """Address -> what this node knows of that one: node_id, flags, slots, ..."""
        told: Mapping[str, Mapping[str, Any]] = self.do("CLUSTER NODES")
        return told

    @property
    def well(self) -> bool:
        """Whether it serves and, where it is a replica, follows."""
        if self.do("CLUSTER INFO")["cluster_state"] != "ok":
            return False
        return "master" in self.nodes[self.address]["flags"] or self.in_step()

    def has_replaced(self, dead: ClusterNode) -> bool:
        """Whether it waits no longer for a node that has died, and serves that one's slots."""
        return self.well and "fail" in self.nodes[dead.address]["flags"].split(",")


class RedisCluster:
    """`masters` servers that share the slots, and `replicas` of each; ready when it is made.

    A node that is silent for `timeout` seconds is taken for dead. `arguments` are further options of all.
    """

    def __init__(self, *arguments: str, masters: int = 3, replicas: int = 0, timeout: float = 1.0) -> None:
        self.nodes: list[ClusterNode] = []
        """The masters of the first hour, then their first replicas in the same order, and so on."""
        self._masters = masters
        atexit.register(self.close)
        try:
            for _ in range(masters * (1 + replicas)):
                self.nodes.append(ClusterNode(*arguments, timeout=timeout))
            self._introduce()
            for node in self.nodes:
                node.launch()
            for node in self.nodes:
                node.wait_until_ready()
            self.wait_until_well()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(node.address for node in self.nodes[: self._masters])}"

    @property
    def living(self) -> list[ClusterNode]:
        return [node for node in self.nodes if node.running]

    def client(self) -> redis.RedisCluster:
        """A patient client of the test's own; close it."""
        return redis.RedisCluster(
            host="127.0.0.1",
            port=self.living[0].port,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
        )

    def owner(self, key: str) -> ClusterNode:
        """The master that has a key now, as the first living node says."""
        slot = int(self.living[0].do("CLUSTER KEYSLOT", key))
        for address, told in self.living[0].nodes.items():
            if any(int(first) <= slot <= int(last) for first, last in told["slots"]):
                return next(node for node in self.nodes if node.address == address)
        raise AssertionError(f"nobody has slot {slot}, of {key}")

    def wait_until_well(self) -> None:
        """Until all living nodes serve, each replica in step."""
        self._wait(lambda node: node.well, "a cluster that serves")

    def wait_for_failover(self, dead: ClusterNode) -> None:
        """Until the living nodes have given up a dead one, and another has its slots."""
        self._wait(lambda node: node.has_replaced(dead), "a failover")

    def empty(self) -> None:
        """Take away all that it holds."""
        for node in self.living:
            with contextlib.suppress(redis.ReadOnlyError):
                node.empty()

    def close(self) -> None:
        """Stop all and take everything away."""
        atexit.unregister(self.close)
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, condition: Callable[[ClusterNode], bool], what: str) -> None:
        for node in self.living:
            until(partial(condition, node), PATIENCE, what)

    def _introduce(self) -> None:
        """Write what each node shall know: its own line is `myself`, the slots are shared out evenly.

        That is what CLUSTER MEET, ADDSLOTSRANGE and REPLICATE would come to after seconds of gossip.
        """
        borders = [SLOTS * at // self._masters for at in range(self._masters + 1)]
        for myself in self.nodes:
            lines = []
            for at, node in enumerate(self.nodes):
                master = at % self._masters
                head = f"{node.id} {node.address}@{node.port + BUS} {'myself,' * (node is myself)}"
                if at == master:
                    lines.append(f"{head}master - 0 0 {at + 1} connected {borders[at]}-{borders[at + 1] - 1}")
                else:
                    lines.append(f"{head}slave {self.nodes[master].id} 0 0 {master + 1} connected")
            known = f"vars currentEpoch {self._masters} lastVoteEpoch 0"
            (myself.folder / "nodes.conf").write_text("\n".join([*lines, known, ""]))
