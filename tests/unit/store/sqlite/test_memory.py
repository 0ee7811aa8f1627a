"""What is kept in memory: rates and names."""

from __future__ import annotations

from windlass.message import QueueSettings
from windlass.store.sqlite.memory import Memory, QueueState, Rate


def test_a_rate_forgets_what_is_older_than_a_minute() -> None:
    """Fails when a second of an earlier round of the ring is counted again."""
    rate = Rate()
    assert rate.per_second(5) == 0
    rate.add(100, 60)
    rate.add(130, 120)
    assert rate.per_second(130) == 3
    assert rate.per_second(159) == 3
    assert rate.per_second(160) == 2
    assert rate.per_second(190) == 0
    rate.add(5_000, 60)
    assert rate.per_second(5_000) == 1


def test_asking_changes_nothing() -> None:
    """Fails when a look from another thread moves the ring under the writer."""
    rate = Rate()
    rate.add(100, 60)
    assert rate.per_second(10_000) == 0
    assert rate.per_second(100) == 1


def test_a_rate_takes_a_late_second() -> None:
    """Fails when a commit that began a second ago clears the newer one."""
    rate = Rate()
    rate.add(100, 30)
    rate.add(99, 30)
    assert rate.per_second(100) == 1


def test_names_follow_the_queues() -> None:
    """Fails when the sorted names are kept although a queue came or went."""
    memory = Memory()
    queues = [QueueState(n, name, n, QueueSettings(), False, 0) for n, name in enumerate("bca")]
    for queue in queues:
        memory.put(queue)
        assert memory.names() == sorted(memory.by_name)
    memory.remove(queues[0])
    assert memory.names() == ["a", "c"]


def test_queues_with_a_retention_are_known() -> None:
    """Fails when upkeep has to ask every queue, or forgets one whose settings changed."""
    memory = Memory()
    queue = QueueState(7, "q", 7, QueueSettings(retention_seconds=5), False, 0)
    memory.put(queue)
    assert memory.retaining == {7}
    memory.configure(queue, QueueSettings())
    assert memory.retaining == set()
    memory.configure(queue, QueueSettings(retention_seconds=5))
    memory.remove(queue)
    assert memory.retaining == set()


def test_where_a_retention_got_to_is_forgotten_with_the_setting() -> None:
    """Fails when a longer retention goes on hiding what the shorter one had passed."""
    memory = Memory()
    queue = QueueState(7, "q", 7, QueueSettings(retention_seconds=5), False, 0)
    memory.put(queue)
    queue.past = 12
    memory.configure(queue, QueueSettings(retention_seconds=50))
    assert queue.past == -1
