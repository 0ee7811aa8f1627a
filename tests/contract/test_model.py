"""Random verbs against the store and a plain model of it, side by side.

A failure prints the steps that lead to it, made as few as possible, and the seed. In CI (CI=true) the
runs are the same each time; elsewhere each run is new, and `--hypothesis-seed` repeats one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.contract.bench import Bench
from tests.contract.conftest import BACKENDS, ground
from tests.contract.model import Item, Model
from windlass.errors import MessageGone, MessageLeased, QueueFull, ReceiptGone, ReceiptStale
from windlass.message import Message, Options, QueueSettings, Settled, State

QUEUES: dict[str, dict[str, Any]] = {
    "letters": {"max_deliveries": 1},
    "plain": {"dedup_window_seconds": 20},
    "careful": {"max_deliveries": 2, "dead_letter": "letters", "max_length": 12, "dedup_window_seconds": 5},
    "other": {"max_deliveries": 1, "dead_letter": "letters", "history_seconds": 30},
    "short": {"retention_seconds": 20, "outcome_ttl_seconds": 10},
}
queues = st.sampled_from(sorted(QUEUES))
options = st.builds(
    Options,
    delay=st.sampled_from([0, 0, 0, 1_000, 10_000]),
    ttl=st.sampled_from([None, None, 1_000, 5_000, 30_000]),
    priority=st.sampled_from([0, 0, 5, 9]),
    group=st.sampled_from([None, None, "a", "b"]),
    dedup_id=st.sampled_from([None, None, None, "x", "y"]),
)
leases = st.sampled_from([1_000, 5_000, 60_000])


PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


class StoreMachine(RuleBasedStateMachine):
    """One store and its model."""

    backend = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="windlass-model-"))
        self.bench = Bench(ground(self.backend, self.home))
        for name, named in QUEUES.items():
            self.bench.create(name, **named)
        kept = {name: QueueSettings(**named) for name, named in QUEUES.items()}
        store = self.bench.store
        numbers = {name: store.queue_number(name) for name in QUEUES} if store.spread else None
        self.model = Model(kept, self.bench.clock.now(), numbers)
        self.sent = 0
        self.highest: dict[str, int] = {}
        """By queue, where each has numbers of its own."""
        self.receipts: list[tuple[str, Message]] = []

    def teardown(self) -> None:
        self.bench.close()
        shutil.rmtree(self.home)

    # --- in -----------------------------------------------------------------------------------------

    @rule(queue=queues, amount=st.sampled_from([1, 1, 2, 9]))
    def send_plain(self, queue: str, amount: int) -> None:
        self._send(queue, [Options()] * amount, plain=True)

    @rule(queue=queues, each=st.lists(options, min_size=1, max_size=4))
    def send(self, queue: str, each: list[Options]) -> None:
        if queue == "short":  # there, one that is over may block its group for a second
            each = [Options(delay=o.delay, ttl=o.ttl, priority=o.priority) for o in each]
        self._send(queue, each, plain=False)

    def _send(self, queue: str, each: list[Options], *, plain: bool) -> None:
        contents = [b"%d" % (self.sent + n) for n in range(len(each))]
        self.sent += len(each)
        room = self.model.room(queue, each)
        if room is None:
            with pytest.raises(QueueFull):
                self.bench.run(lambda s: s.send(queue, contents, None if plain else each))
            return
        sent = self.bench.run(lambda s: s.send(queue, contents, None if plain else each))
        duplicates = sent.duplicates or [False] * len(each)
        fresh: list[int] = []
        for number, duplicate, content, opts in zip(sent.numbers, duplicates, contents, each, strict=True):
            known = self.model.known(queue, opts.dedup_id)
            assert duplicate == (known is not None)
            if known is None:
                fresh.append(number)
                self.model.put(queue, number, content, opts)
            else:
                assert number == known
        assert len(fresh) == room
        assert not fresh or fresh == list(range(fresh[0], fresh[0] + len(fresh)))
        counted = queue if self.bench.store.spread else ""
        assert not fresh or fresh[0] > self.highest.get(counted, 0)
        self.highest[counted] = max([self.highest.get(counted, 0), *fresh])

    # --- out ----------------------------------------------------------------------------------------

    @rule(queue=queues, limit=st.sampled_from([1, 1, 2, 5, 20]))
    def receive(self, queue: str, limit: int) -> None:
        expected = self.model.receive(queue, limit, None)
        self._same(self.bench.receive(queue, limit), expected, leased=False)

    @rule(queue=queues, limit=st.sampled_from([1, 1, 3, 20]), lease=leases, whole_groups=st.booleans())
    def lease(self, queue: str, limit: int, lease: int, whole_groups: bool) -> None:
        expected = self.model.receive(queue, limit, lease, whole_groups=whole_groups)
        received = self.bench.receive(queue, limit, lease, "machine", whole_groups=whole_groups)
        self._same(received, expected, leased=True)
        self.receipts += [(queue, message) for message in received]

    @rule(queue=queues, lease=leases, several=st.lists(st.booleans(), min_size=2, max_size=4))
    def receive_together(self, queue: str, lease: int, several: list[bool]) -> None:
        """Receives of one commit, some with a lease and some without, in the order in which they came."""
        whole = several[0]  # of the first lease; the others take what is ready
        expected = [
            self.model.receive(queue, 2, lease if leased else None, whole_groups=whole and not n)
            for n, leased in enumerate(several)
        ]
        calls = [
            lambda s, n=n, leased=leased: s.receive(
                queue, 2, lease if leased else None, whole_groups=whole and not n
            )
            for n, leased in enumerate(several)
        ]
        for received, items, leased in zip(self.bench.together(*calls), expected, several, strict=True):
            self._same(received, items, leased=leased)
            if leased:
                self.receipts += [(queue, message) for message in received]

    def _same(self, received: list[Message], expected: list[Item], *, leased: bool) -> None:
        assert [(m.number, m.content, m.deliveries, m.enqueued_at) for m in received] == [
            (i.number, i.content, i.count, i.at) for i in expected
        ]
        assert [(m.delivery, m.lease_until) for m in received] == [
            (i.token, i.due) if leased else (0, 0) for i in expected
        ]
        assert [(m.priority, m.group) for m in received] == [
            (i.options.priority, i.options.group) for i in expected
        ]

    @rule(data=st.data(), outcome=st.sampled_from([None, b"{}"]), several=st.booleans(), late=st.booleans())
    def acknowledge(self, data: st.DataObject, outcome: bytes | None, several: bool, late: bool) -> None:
        for queue, message in self._some(data):
            self._acknowledge(queue, message, outcome, several=several, late=late)

    @rule(data=st.data(), limit=st.sampled_from([1, 3]), times=st.sampled_from([1, 2]), several=st.booleans())
    def be_late(self, data: st.DataObject, limit: int, times: int, several: bool) -> None:
        """Take what there is, and acknowledge it after its lease, by each of its receipts."""
        busy = [queue for queue in QUEUES if self.model.at_place(queue, State.READY)]
        if busy:
            taken = len(self.receipts)
            chosen = data.draw(st.sampled_from(busy))
            for _ in range(times):
                self.lease(chosen, limit, 1_000, several)
                self.advance(1)
            for queue, message in self.receipts[taken:]:
                self._acknowledge(queue, message, None, several=several, late=True)

    def _acknowledge(
        self, queue: str, message: Message, outcome: bytes | None, *, several: bool, late: bool
    ) -> None:
        holder = self.model.holder(queue, message.number, message.delivery, late=late)
        how, token, _ = self.model.ended.get(message.number, ("", -1, 0))
        if isinstance(holder, Item):
            expected = Settled.ACKNOWLEDGED
            self.model.end(holder, "acknowledged", outcome=outcome is not None)
        elif holder == "gone":
            again = how == "acknowledged" and token == message.delivery
            expected = Settled.ACKNOWLEDGED if again else Settled.GONE
        else:
            expected = Settled.STALE
        again_expected = expected
        if isinstance(holder, Item) and message.number not in self.model.ended:
            again_expected = Settled.GONE
        if several:
            results = self.bench.acknowledge(queue, message, message, outcome=outcome, late=late)
            assert results == [expected, again_expected]
        else:
            assert self.bench.acknowledge(queue, message, outcome=outcome, late=late) == [expected]

    @rule(data=st.data(), lease=leases)
    def extend(self, data: st.DataObject, lease: int) -> None:
        for queue, message in self._some(data):
            holder = self.model.holder(queue, message.number, message.delivery)
            if isinstance(holder, Item):
                holder.due = self.model.now + lease
                assert self.bench.extend(queue, message, lease) == holder.due
            else:
                with pytest.raises(ReceiptGone if holder == "gone" else ReceiptStale):
                    self.bench.extend(queue, message, lease)

    @rule(data=st.data(), delay=st.sampled_from([0, 0, 3_000]))
    def release(self, data: st.DataObject, delay: int) -> None:
        for queue, message in self._some(data):
            holder = self.model.holder(queue, message.number, message.delivery)
            if isinstance(holder, Item):
                self.model.fail(holder, delay)
                self.bench.release(queue, message, delay)
            else:
                with pytest.raises(ReceiptGone if holder == "gone" else ReceiptStale):
                    self.bench.release(queue, message, delay)

    def _some(self, data: st.DataObject) -> list[tuple[str, Message]]:
        return [data.draw(st.sampled_from(self.receipts[-12:]))] if self.receipts else []

    # --- what people do -----------------------------------------------------------------------------

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        numbers = [item.number for item in self.model.items] + list(self.model.ended)
        if not numbers:
            return
        number = data.draw(st.sampled_from(numbers))
        item = next((item for item in self.model.items if item.number == number), None)
        queue = item.queue if item is not None else "plain"
        if item is None:
            with pytest.raises(MessageGone):
                self.bench.cancel(queue, number)
        elif item.state is State.LEASED:
            with pytest.raises(MessageLeased):
                self.bench.cancel(queue, number)
        else:
            self.model.end(item, "cancelled")
            self.bench.cancel(queue, number)

    @rule(queue=queues)
    def purge(self, queue: str) -> None:
        kept = [item for item in self.model.items if item.queue != queue]
        purged = self.bench.purge(queue)
        assert purged >= len(self.model.items) - len(kept)
        assert queue == "short" or purged == len(self.model.items) - len(kept)
        self.model.items = kept

    @rule(queue=queues)
    def pause_or_resume(self, queue: str) -> None:
        self.model.paused ^= {queue}
        assert self.bench.update(queue, paused=queue in self.model.paused).paused is (
            queue in self.model.paused
        )

    @rule(queue=queues, limit=st.sampled_from([1, 3, 1_000]))
    def redrive(self, queue: str, limit: int) -> None:
        moved = self.model.redrive(queue, limit)
        assert self.bench.redrive(queue, limit) == (moved, moved < limit)

    # --- time and harm ------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.001, 0.5, 1, 3, 10, 45]))
    def advance(self, seconds: float) -> None:
        self.bench.advance(seconds)
        self.model.tick(self.bench.clock.now())
        if seconds >= 1:  # by then, retention has been looked at
            for item in self.model.living("short"):
                if item.state is State.READY and self.model.old(item):
                    self.model.end(item, "expired")

    @rule()
    def reopen(self) -> None:
        self.bench.reopen()

    @rule()
    def crash(self) -> None:
        self.bench.crash()

    # --- the same on both sides ---------------------------------------------------------------------

    @invariant()
    def counts_agree(self) -> None:
        for queue in QUEUES:
            assert self.bench.counts(queue) == self.model.counts(queue), queue
        total = [0] * len(State)
        for item in self.model.items:
            total[self.model.place(item)] += 1
        assert self.bench.totals() == (len(QUEUES), total)

    @invariant()
    def peeks_agree(self) -> None:
        looks = [(queue, state) for queue in QUEUES for state in State if self.model.at_place(queue, state)]
        calls = [lambda s, q=queue, state=state: s.peek(q, 1_000, state) for queue, state in looks]
        for (queue, state), found in zip(looks, self.bench.together(*calls), strict=True):
            items = self.model.at_place(queue, state)
            if state is State.READY:
                items = [item for item in items if not self.model.old(item)]
                assert [m.number for m in found] == [item.number for item in items]
            else:
                assert {m.number for m in found} == {item.number for item in items}
        for queue in QUEUES:
            at = [item.at for item in self.model.at_place(queue, State.READY) if not self.model.old(item)]
            if at:
                assert self.bench.oldest(queue) == min(at)

    @invariant()
    def lives_agree(self) -> None:
        for number, (how, _, _) in list(self.model.ended.items())[-3:]:
            life = self.bench.find(number)
            assert life is not None
            assert life.state == how
        for item in self.model.items[-3:]:
            life = self.bench.find(item.number)
            assert life is not None
            assert (life.state, life.in_queue) == (self.model.place(item).name.lower(), item.queue)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_store_does_what_its_model_does(backend: str) -> None:
    """Fails when any verb, in any order, leaves the store otherwise than the model.

    Planted defects it finds: a group freed too early, a count off by one after a crash, a ttl that ends a
    dead letter, a redriven message in the wrong place, a late acknowledgement by any receipt or of the dead.
    """
    machine = type("Machine", (StoreMachine,), {"backend": backend})
    examples = int(os.environ.get("WINDLASS_MODEL_EXAMPLES", "25"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=bool(os.environ.get("CI")),
            print_blob=True,
            phases=PHASES,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
