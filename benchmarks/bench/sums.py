"""The arithmetic of many queues, many messages and many runners: nothing here is measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

DAY = 86_400
FULL = 0.7
"""How much of a processor may be taken on average; above that, answers wait for each other."""


def master_of(queue: int, masters: int) -> int:
    """Which of `masters`, who share the slots evenly, has the queue with this number: its keys have one."""
    return key_slot(f"windlass:{{{queue}}}:s".encode()) * masters // REDIS_CLUSTER_HASH_SLOTS


def busiest(loads: Sequence[float], masters: int) -> float:
    """The share of all load that the busiest master has; `loads` are those of queue 1, 2, 3, ..."""
    shares: Counter[int] = Counter()
    for queue, load in enumerate(loads, 1):
        shares[master_of(queue, masters)] += load  # type: ignore[assignment]
    return max(shares.values()) / sum(loads)


def alike(queues: int) -> list[float]:
    return [1.0] * queues


def zipf(queues: int) -> list[float]:
    """The second has half the load of the first, the third a third."""
    return [1 / rank for rank in range(1, queues + 1)]


@dataclass(frozen=True)
class Cost:
    """What one of something costs the processors, in microseconds."""

    windlass: float
    redis: float

    def processes(self, rate: float) -> int:
        """How many processes of Windlass it takes for `rate` of them a second, each FULL."""
        return math.ceil(rate * self.windlass / 1e6 / FULL)

    def masters(self, rate: float, uneven: float = 1.0) -> int:
        """How many Redis servers. The busiest has `uneven` times the load of the average one."""
        return math.ceil(uneven * rate * self.redis / 1e6 / FULL)

    @property
    def most_of_one_thread(self) -> float:
        """How many a second one Redis, which computes on one thread, does at most."""
        return 1e6 / self.redis


@dataclass(frozen=True)
class Day:
    """What so many messages a day, each sent, leased and acknowledged, come to."""

    average: float
    """Messages a second."""
    peak: float
    processes: int
    masters: int
    backlog: int
    """Messages that wait when nobody takes any for `hours`."""
    memory: float
    """Bytes of them in Redis, all masters together."""
    log: float
    """Bytes a day in the append-only files, before they are written anew."""


def day_of(
    messages: int, cost: Cost, *, peak: float, hours: float, waiting_bytes: float, log_bytes: float
) -> Day:
    """`peak`: times the average. `waiting_bytes`, `log_bytes`: of one message."""
    average = messages / DAY
    backlog = round(average * 3600 * hours)
    return Day(
        average,
        peak * average,
        cost.processes(peak * average),
        cost.masters(peak * average),
        backlog,
        backlog * waiting_bytes,
        messages * log_bytes,
    )


@dataclass(frozen=True)
class Runners:
    """What so many runners come to while each works on its jobs."""

    heartbeats: float
    """A second."""
    extensions: float
    """Leases that are made longer, a second."""
    processes: int
    masters: int
    queues: int
    """Queues of jobs, and so sets of labels, over which they are spread at least: each is on one thread."""
    memory: float
    """Bytes in the processes of Windlass, all together."""


def runners_of(runners: int, interval: float, jobs: int, cost: Cost, memory: float) -> Runners:
    """`cost` of a heartbeat; `interval`: seconds between two of a runner; `memory`: bytes of one."""
    rate = runners / interval
    needed = cost.masters(rate)
    return Runners(rate, rate * jobs, cost.processes(rate), needed, needed, runners * memory)
