"""Redis that lost what it held, all or the last of it, while servers run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.unit.store.redis.pair import Pair
from windlass.errors import QueueNotFound, StoreUnavailable
from windlass.store.redis.call import REGISTRY


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_what_an_emptied_redis_holds_is_nothing_of_theirs(pair: Pair) -> None:
    """Planted: no look at the secret: the number of a queue that was lost is another's by then, and so are
    the messages that are sent to it; and keys are forgotten, so that anybody may come in."""
    client = pair.one._link.topology.nodes()[0].client
    number = pair.create("old")
    client.flushall()
    with pytest.raises(StoreUnavailable, match="emptied"):
        pair.run(lambda: pair.one.create_queue("new", {}))
    later = pair.open()
    try:
        pair.run(lambda: later.create_queue("new", {}))
        assert later.queue_number("new") == number
        with pytest.raises(StoreUnavailable, match="start all servers again"):
            pair.run(pair.other.refresh)
        for store in (pair.one, pair.other):
            for call in (lambda s=store: s.send("old", [b"1"]), lambda s=store: s.receive("old", 1, None)):
                with pytest.raises(StoreUnavailable, match="emptied"):
                    pair.run(call)
            with pytest.raises(StoreUnavailable, match="emptied"):
                pair.run(store.ping)
        assert pair.run(lambda: later.queue("new")).ready == 0
    finally:
        later.close()


def test_what_is_brought_back_is_served_again(pair: Pair) -> None:
    """Planted: what was refused once is refused for good."""
    client = pair.one._link.topology.nodes()[0].client
    pair.create("q")
    held = {key: client.dump(key) for key in client.scan_iter()}
    client.flushall()
    with pytest.raises(StoreUnavailable):
        pair.run(pair.one.refresh)
    for key, packed in held.items():
        assert packed is not None
        client.restore(key, 0, packed)
    pair.run(pair.one.refresh)
    assert pair.send("q", b"1")


def test_a_registry_that_was_set_back_is_believed(pair: Pair) -> None:
    """Planted: versions are counted: as many changes as were lost, and the number of a queue that was lost
    in a failover is another's, for whoever knew of it."""
    client = pair.one._link.topology.nodes()[0].client
    keys = [pair.one._link.key_of(REGISTRY)[0][:-1] + name for name in ("s", "names")]
    pair.create("before")
    held = [client.dump(key) for key in keys]
    number = pair.create("lost")
    pair.run(pair.one.refresh)
    for key, packed in zip(keys, held, strict=True):
        assert packed is not None
        client.restore(key, 0, packed, replace=True)
    client.delete(*pair.one._link.key_of(number))
    pair.run(lambda: pair.other.create_queue("new", {}))
    assert pair.other.queue_number("new") == number
    pair.run(pair.one.refresh)
    with pytest.raises(QueueNotFound):
        pair.run(lambda: pair.one.send("lost", [b"1"]))
    assert pair.ready("new") == 0


def test_a_queue_whose_name_alone_is_left_can_be_made_again(pair: Pair) -> None:
    """The master of a queue failed over and lost it, that of the registry did not.

    Planted: nobody looks whether a registered queue is there: to make it is 503 for ever.
    """
    client = pair.one._link.topology.nodes()[0].client
    number = pair.create("lost")
    pair.create("q", dead_letter="lost")
    client.delete(*(key for key in client.scan_iter(f"windlass:{{{number}}}:*")))
    for store in (pair.one, pair.other):
        info, _ = pair.run(partial(store.create_queue, "lost", {"lease_seconds": 7}))
        assert info.settings.lease_seconds == 7
        assert store.queue_number("lost") == number
    assert pair.send("lost", b"1")


def test_a_queue_whose_name_is_lost_is_nobody_elses(pair: Pair) -> None:
    """The master of the registry failed over and lost a name, that of the queue did not.

    Planted: a number that is given out again is taken for new: its messages are another queue's. Planted:
    what is left is cleared away as a queue that was never made.
    """
    client = pair.one._link.topology.nodes()[0].client
    keys = [pair.one._link.key_of(REGISTRY)[0][:-1] + name for name in ("s", "names")]
    pair.create("before")
    held = [client.dump(key) for key in keys]
    number = pair.create("lost")
    pair.send("lost", b"1")
    for key, packed in zip(keys, held, strict=True):
        assert packed is not None
        client.restore(key, 0, packed, replace=True)
    info, made = pair.run(lambda: pair.other.create_queue("new", {}))
    assert (info.ready, made) == (0, True)
    assert pair.other.queue_number("new") != number
    pair.clock.advance(120_000)
    pair.settle(pair.other)
    assert client.exists(pair.one._link.key_of(number)[0])  # for whoever mends it by hand
