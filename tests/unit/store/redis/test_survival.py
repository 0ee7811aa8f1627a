"""The words for what survives."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from windlass.store.redis.persistence import Persistence
from windlass.store.redis.survival import survival

ALONE = Persistence(
    name="a:1",
    master=True,
    version="7.0.15",
    appendonly=True,
    appendfsync="always",
    fsync_in_rewrites=True,
    save="",
    maxmemory=0,
    maxmemory_policy="noeviction",
    min_replicas=0,
    max_lag=10,
    node_timeout=None,
    replicas=(),
    promotable=True,
    waitaof=False,
    aof_failed=False,
    aof_unfinished=False,
    file_may_be_torn=False,
)
FOLLOWED = replace(ALONE, replicas=(("b", 1), ("c", 1)))


def test_the_weakest_master_counts() -> None:
    """Planted: the first master's, or the best."""
    told = survival([ALONE, replace(ALONE, appendfsync="everysec"), ALONE], 0, False)
    assert "2 s" in told.power_cut
    assert "slow" in told.process_kill


@pytest.mark.parametrize(
    ("master", "waited_for", "words"),
    [
        (ALONE, 0, "nothing is lost; whoever"),
        (FOLLOWED, 0, "if a replica is promoted meanwhile.*as long as the partition lasts"),
        (replace(FOLLOWED, min_replicas=1), 0, r"about 10 s.*fewer than 1 replicas \(min-replicas-max-lag"),
        (replace(FOLLOWED, min_replicas=1, max_lag=0), 0, "as long as the partition lasts"),
        (replace(FOLLOWED, node_timeout=15.0), 0, r"about 15 s.*cluster-node-timeout"),
        (replace(FOLLOWED, node_timeout=15.0, min_replicas=2), 0, r"about 10 s.*fewer than 2 replicas"),
        (replace(FOLLOWED, node_timeout=5.0, min_replicas=2), 0, r"about 5 s.*cluster-node-timeout"),
        (FOLLOWED, 1, "a replica that did not have it"),
        (FOLLOWED, 2, "nothing is lost where one of the replicas"),
    ],
)
def test_a_partitions_window_is_printed(master: Persistence, waited_for: int, words: str) -> None:
    """Planted: min-replicas-max-lag where min-replicas-to-write is 0, as Redis has it from the start."""
    assert re.search(words, survival([master], waited_for, False).partition)


def test_one_master_without_a_bound_is_a_whole_without() -> None:
    """Planted: the shortest of several windows."""
    told = survival([replace(FOLLOWED, min_replicas=1), FOLLOWED], 0, False)
    assert "as long as" in told.partition


@pytest.mark.parametrize(
    ("masters", "waited_for", "on_disk", "words"),
    [
        ([ALONE], 0, False, "it has no replica"),
        ([FOLLOWED, ALONE], 0, False, "it has no replica"),
        ([FOLLOWED], 0, False, "had not reached a replica is lost"),
        ([FOLLOWED], 1, False, "a replica had it in memory"),
        ([FOLLOWED], 2, True, "2 replicas had it on disk before the answer, so that up to 2 machines"),
    ],
)
def test_a_machine_that_is_lost(
    masters: list[Persistence], waited_for: int, on_disk: bool, words: str
) -> None:
    """Planted: fsync told as if it outlived its disk."""
    assert words in survival(masters, waited_for, on_disk).machine_loss
