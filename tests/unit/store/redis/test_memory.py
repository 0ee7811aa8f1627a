"""What a server remembers of the registry, while one thread reads it and another looks."""

from __future__ import annotations

from collections import UserDict
from collections.abc import ItemsView

from windlass.store.redis.memory import Memory


class Looking(UserDict[bytes, bytes]):
    """What a read goes through; meanwhile somebody looks at how far memory says that it is."""

    def __init__(self, memory: Memory, seen: list[int]) -> None:
        super().__init__()
        self._memory = memory
        self._seen = seen

    def items(self) -> ItemsView[bytes, bytes]:
        self._seen.append(self._memory.version)
        return super().items()


def test_nothing_is_said_to_be_read_before_all_of_it_is() -> None:
    """Planted defect: the version is set first: a server that the watch is just reading for takes it for
    read, tells nobody anything new, and refuses a runner that another one has registered."""
    memory, seen = Memory(), list[int]()
    names, keys, runners = (Looking(memory, seen) for _ in range(3))
    memory.read(memory.mark(), 7, names, keys, runners)
    assert len(seen) >= 3
    assert set(seen) == {-1}
    assert memory.version == 7


def test_a_slow_read_changes_nothing_and_a_registry_set_back_does() -> None:
    """Planted: the higher version counts, whenever it was read: what a failover took away is known for ever.
    Planted: what is read last counts: a slow read takes away what a faster one has brought."""
    memory = Memory()
    slow = memory.mark()
    memory.read(memory.mark(), 7, {b"a": b"1", b"b": b"2"}, {}, {})
    memory.read(slow, 6, {b"a": b"1"}, {}, {})
    assert memory.numbers == {"a": 1, "b": 2}
    memory.read(memory.mark(), 6, {b"a": b"1"}, {}, {})
    assert memory.numbers == {"a": 1}
