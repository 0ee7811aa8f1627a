"""The arithmetic of docs/scale.md, and what the suites `store` and `scale` take for granted."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from bench.measure import verify
from bench.processes import BenchmarkError
from bench.redis_server import redis_cluster
from bench.sums import Cost, alike, busiest, day_of, master_of, runners_of, zipf
from bench.wrk import WrkRun


def test_a_queue_is_where_the_cluster_has_its_keys() -> None:
    """Fails when the sums and Redis disagree about a slot, or the slots are shared out in another way."""
    with redis_cluster(Path("/var/tmp"), "everysec", 3) as cluster:
        for queue in range(1, 31):
            serves = []
            for at, node in enumerate(cluster.masters):
                try:
                    node.client.exists(f"windlass:{{{queue}}}:s")
                    serves.append(at)
                except redis.exceptions.MovedError:
                    continue
            assert serves == [master_of(queue, 3)]


@pytest.mark.parametrize("masters", [3, 6, 12])
def test_many_queues_are_spread_evenly_and_few_are_not(masters: int) -> None:
    """Fails when queues share a tag, so that one master has them all."""
    assert 1 < masters * busiest(alike(10_000), masters) < 1.1
    assert masters * busiest(alike(10), masters) >= 1.2


def test_one_hot_queue_is_on_one_master_however_many_there_are() -> None:
    assert busiest([97.0, 1.0, 1.0, 1.0], 1_000) >= 0.97
    assert busiest(zipf(1_000), 12) > 1 / sum(zipf(1_000))


def test_a_cost_becomes_processes_and_servers() -> None:
    cost = Cost(windlass=140, redis=70)
    assert (cost.processes(5_000), cost.processes(5_001)) == (1, 2)
    assert (cost.masters(10_000), cost.masters(10_000, uneven=1.5)) == (1, 2)
    assert cost.most_of_one_thread == pytest.approx(14_286, abs=1)


def test_a_billion_a_day() -> None:
    day = day_of(1_000_000_000, Cost(140, 70), peak=3, hours=1, waiting_bytes=300, log_bytes=200)
    assert (round(day.average), round(day.peak)) == (11_574, 34_722)
    assert (day.processes, day.masters) == (7, 4)
    assert day.backlog == 41_666_667
    assert day.memory == pytest.approx(12.5e9)
    assert day.log == pytest.approx(200e9)


def test_a_million_runners() -> None:
    fleet = runners_of(1_000_000, 15, 8, Cost(350, 104), 30_000)
    assert (round(fleet.heartbeats), round(fleet.extensions)) == (66_667, 533_333)
    assert (fleet.processes, fleet.masters, fleet.queues) == (34, 10, 10)
    assert fleet.memory == 30e9


def test_an_exchange_that_leaves_messages_behind_is_an_error() -> None:
    """Planted: receives that bring less than was sent, each answered 200."""
    run = WrkRun(requests=2_000, seconds=1.0, p50_ms=1.0, p99_ms=1.0)
    verify("exchange", run, 640, 672, connections=32, batch=1)
    with pytest.raises(BenchmarkError, match="changed by 33"):
        verify("exchange", run, 640, 673, connections=32, batch=1)
