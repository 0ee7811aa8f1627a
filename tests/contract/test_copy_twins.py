"""A store that is copied goes on as the one that it was copied from: random verbs on both, side by side.

A failure prints the steps that lead to it, made as few as possible, and the seed. See test_model.py.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from tests.contract.bench import Bench
from tests.contract.conftest import BACKENDS
from tests.contract.moving import QUIET, Spot, copied, shown, translated
from tests.contract.test_model import PHASES
from windlass.errors import WindlassError
from windlass.message import Acknowledgement, Extension, Life, Message, Once, Options, Sent, State
from windlass.store import Key, Runner, Store

QUEUES: dict[str, dict[str, Any]] = {
    "letters": {"max_deliveries": 1},
    "plain": {"dedup_window_seconds": 20},
    "careful": {"max_deliveries": 2, "dead_letter": "letters", "max_length": 12, "dedup_window_seconds": 5},
    "other": {"max_deliveries": 1, "dead_letter": "letters", "history_seconds": 30},
    "jobs": {"max_deliveries": 3, "history_seconds": 20, "outcome_ttl_seconds": 20, "lease_seconds": 8},
}
queues = st.sampled_from(sorted(QUEUES))
options = st.builds(
    Options,
    delay=st.sampled_from([0, 0, 0, 1_000, 10_000]),
    ttl=st.sampled_from([None, None, 1_000, 5_000, 30_000]),
    priority=st.sampled_from([0, 0, 5, 9]),
    group=st.sampled_from([None, None, "a", "ä"]),
    dedup_id=st.sampled_from([None, None, None, "x", "ÿ"]),
    headers=st.sampled_from([None, None, b'{"to":"\xc3\xa9"}']),
)
leases = st.sampled_from([1_000, 5_000, 60_000, -1])
keys = st.sampled_from([None, None, None, b"\xff" * 32, b"\x00\x80" * 16])


class Side:
    """A store, where it lies, and the numbers that its messages have there, by content."""

    def __init__(self, spot: Spot) -> None:
        self.spot = spot
        self.bench = Bench(spot)
        self.numbers: dict[bytes, tuple[int, int]] = {}
        """Content -> (queue that it was sent to, number)"""
        self.got: dict[bytes, Message] = {}

    def of(self, content: bytes) -> int:
        return self.numbers[content][1]

    def plain(self, message: Message) -> Any:
        """A message without its number."""
        content = message.content or next(c for c, (_, n) in self.numbers.items() if n == message.number)
        return replace(message, number=0, content=content)


class TwinMachine(RuleBasedStateMachine):
    """A store, and the last of a chain of copies of it, once there is one."""

    backend = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="windlass-twins-"))
        self.sides = [Side(Spot(self.backend, self.home))]
        self.spots = [self.sides[0].spot]
        self.sent = 0
        self.leased: list[tuple[str, bytes]] = []
        for name, named in QUEUES.items():
            self.sides[0].bench.create(name, **named)

    def teardown(self) -> None:
        for side in self.sides:
            side.bench.close()
        for spot in self.spots:
            spot.clear()
        shutil.rmtree(self.home)

    def both(self, call: Callable[[Side, Store], Awaitable[Any]], seen: Callable[[Side, Any], Any]) -> Any:
        """Do the same on both sides; what is seen of it has to be the same."""
        results = []
        for side in self.sides:
            try:
                result = side.bench.run(lambda store, side=side: call(side, store))  # type: ignore[misc]
                results.append(seen(side, result))
            except WindlassError as error:
                results.append(type(error))
        assert all(result == results[0] for result in results), results
        return results[0]

    # --- verbs ------------------------------------------------------------------------------------

    @rule(queue=queues, each=st.lists(options, min_size=1, max_size=4), key=keys, plain=st.booleans())
    def send(self, queue: str, each: list[Options], key: bytes | None, plain: bool) -> None:
        contents = [b'"%d"' % (self.sent + n) for n in range(len(each))]
        self.sent += len(each)
        for side in self.sides:
            side.bench.clock.advance(0.001)  # so that no two queues have the same place
        # The path is in a key's digest, so no two queues have the same.
        once = Once(key + queue.encode(), bytes([len(each)]) * 32) if key is not None else None
        if plain:
            each, once = [], None

        def seen(side: Side, sent: Sent) -> Any:
            known = {number: content for content, (_, number) in side.numbers.items()}
            for content, number in zip(contents, sent.numbers, strict=False):
                if number not in known:
                    known[number] = content
                    side.numbers[content] = sent.queue, number
            return sent.queue, [known[number] for number in sent.numbers], sent.duplicates

        self.both(lambda _, store: store.send(queue, contents, each or None, once), seen)

    @rule(queue=queues, limit=st.sampled_from([1, 2, 20]), lease=st.none() | leases, claim=st.booleans())
    def receive(self, queue: str, limit: int, lease: int | None, claim: bool) -> None:
        def seen(side: Side, got: list[Message]) -> Any:
            side.got |= {message.content: message for message in got if lease is not None}
            return [side.plain(message) for message in got]

        name = "c" if claim and lease is not None else None
        got = self.both(lambda _, store: store.receive(queue, limit, lease, "holder", claim=name), seen)
        if lease is not None:
            self.leased += [(queue, message.content) for message in got]

    @rule(data=st.data(), outcome=st.sampled_from([None, b'{"a":1}']), tell=st.booleans())
    def acknowledge(self, data: st.DataObject, outcome: bytes | None, tell: bool) -> None:
        for queue, content in self._some(data):

            def call(side: Side, store: Store, queue: str = queue, content: bytes = content) -> Any:
                message = side.got[content]
                ack = Acknowledgement(side.of(content), message.delivery, outcome, tell=tell)
                return store.acknowledge(queue, [ack, ack])

            self.both(call, lambda _, settled: settled)

    @rule(data=st.data(), lease=st.sampled_from([None, 1_000, 20_000]), anywhere=st.booleans())
    def extend(self, data: st.DataObject, lease: int | None, anywhere: bool) -> None:
        for queue, content in self._some(data):
            letters = queue == "letters"  # those are looked for where they were sent to
            where = None if anywhere and not letters else queue

            def call(
                side: Side, store: Store, where: str | None = where, content: bytes = content
            ) -> Awaitable[Any]:
                extension = Extension(side.of(content), lease, holder="holder", longest=30_000)
                return store.extend(where, [extension])

            self.both(call, lambda _, until: until)

    @rule(data=st.data(), delay=st.sampled_from([0, 3_000]), counts=st.booleans(), last=st.booleans())
    def release(self, data: st.DataObject, delay: int, counts: bool, last: bool) -> None:
        for queue, content in self._some(data):
            self.both(
                lambda side, store, queue=queue, content=content: store.release(  # type: ignore[misc]
                    queue,
                    side.of(content),
                    side.got[content].delivery,
                    delay,
                    reason="tired",
                    counts=counts,
                    last=last,
                ),
                lambda _, nothing: nothing,
            )

    def _some(self, data: st.DataObject) -> list[tuple[str, bytes]]:
        return [data.draw(st.sampled_from(self.leased[-12:]))] if self.leased else []

    @rule(data=st.data(), queue=queues, outcome=st.sampled_from([None, b"{}"]), leased=st.booleans())
    def cancel(self, data: st.DataObject, queue: str, outcome: bytes | None, leased: bool) -> None:
        known = sorted(self.sides[0].numbers)
        if known:
            content = data.draw(st.sampled_from(known))
            self.both(
                lambda side, store: store.cancel(queue, side.of(content), leased=leased, outcome=outcome),
                lambda _, nothing: nothing,
            )

    @rule(data=st.data())
    def told(self, data: st.DataObject) -> None:
        side = self.sides[0]
        ends = side.bench.run(lambda store: store.untold())
        if ends:
            number = data.draw(st.sampled_from([end.number for end in ends]))
            content = next(c for c, (_, known) in side.numbers.items() if known == number)
            self.both(lambda each, store: store.told(each.of(content), 5_000), lambda _, nothing: nothing)

    @rule(queue=queues, limit=st.sampled_from([1, 3, 1_000]))
    def redrive(self, queue: str, limit: int) -> None:
        for side in self.sides:
            side.bench.clock.advance(0.001)
        self.both(lambda _, store: store.redrive(queue, limit), lambda _, moved: moved)

    @rule(queue=queues)
    def purge(self, queue: str) -> None:
        self.both(lambda _, store: store.purge(queue), lambda _, amount: amount)

    @rule(queue=queues, paused=st.booleans(), lease=st.sampled_from([5, 8]))
    def update(self, queue: str, paused: bool, lease: int) -> None:
        self.both(
            lambda _, store: store.update_queue(queue, {"lease_seconds": lease}, paused),
            lambda _, info: replace(info, in_rate=0, out_rate=0),
        )

    @rule()
    def register(self) -> None:
        at, self.sent = self.sides[0].bench.clock.now(), self.sent + 1
        runner = Runner(0, "rün", os.urandom(32), ("gpu",), (), at, at)
        added = self.both(lambda _, store: store.add_runner(runner), lambda _, added: added)
        self.both(lambda _, store: store.seen_runner(added.number, at + 5), lambda _, nothing: nothing)
        key = Key(f"k{self.sent}", "shöp", os.urandom(32), ("send:*",), at)
        self.both(lambda _, store: store.add_key(key), lambda _, nothing: nothing)

    @rule(seconds=st.sampled_from([0.001, 0.5, 3, 10, 45]))
    def advance(self, seconds: float) -> None:
        for side in self.sides:
            side.bench.advance(seconds)

    # --- the copy ---------------------------------------------------------------------------------

    @rule(backend=st.sampled_from(BACKENDS))
    def copy(self, backend: str) -> None:
        source = self.sides[-1]
        for side in self.sides:
            side.bench.settle()
            side.bench.store.close()
            side.bench.clock.advance(QUIET)
        spot = Spot(backend, self.home)
        self.spots.append(spot)
        copied(source.spot, spot, source.bench.clock)
        for side in self.sides:
            side.bench.store = side.spot.open(side.bench.clock)
        target = Side(spot)
        target.bench.clock.advance((source.bench.clock.now() - target.bench.clock.now()) / 1000)
        target.bench.reopen()
        number = translated(source.bench.store, target.bench.store)
        target.numbers = {c: (queue, number(queue, n)) for c, (queue, n) in source.numbers.items()}
        target.got = dict(source.got)
        known = {n: queue for queue, n in source.numbers.values()}
        assert shown(target.bench, known, number) == shown(source.bench, known)
        if len(self.sides) == 2:
            self.sides.pop().bench.close()
        self.sides.append(target)
        for side in self.sides:
            side.bench.settle()

    # --- the same on both sides -------------------------------------------------------------------

    @invariant()
    def all_is_the_same(self) -> None:
        if len(self.sides) < 2:
            return
        for name in QUEUES:
            self._same_queue(name)
        for content in self.sides[0].numbers:
            self._same_life(content)
        self.both(
            lambda _, store: store.held(),
            lambda side, held: sorted((side.plain(h.message).content, h.claim, h.tentative) for h in held),
        )
        self.both(
            lambda _, store: store.untold(1_000),
            lambda side, ends: sorted((side.plain(e.life.message).content, e.outcome or b"") for e in ends),
        )

    def _same_queue(self, name: str) -> None:
        self.both(lambda _, store: store.queue(name), lambda _, info: replace(info, in_rate=0, out_rate=0))
        for state in State:
            self._same_state(name, state)

    def _same_state(self, name: str, state: State) -> None:
        def seen(side: Side, found: list[Message]) -> Any:
            if state is State.READY:
                return [side.plain(message) for message in found]
            return sorted(side.plain(message).content for message in found)

        self.both(lambda _, store: store.peek(name, 1_000, state), seen)

    def _same_life(self, content: bytes) -> None:
        """Times of events may differ: a lease that ran out ended when it was due, or when that was seen."""

        def seen(_: Side, life: Life | None) -> Any:
            return life and (
                life.state,
                life.in_queue,
                life.outcome,
                [event["event"] for event in life.events],
            )

        self.both(lambda side, store: store.find(side.of(content)), seen)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_goes_on_as_its_original(backend: str) -> None:
    """Fails when anything that a store knows is lost on the way, or is another.

    Planted defect it found: an Idempotency-Key whose fingerprint Lua cannot read. Single counts are in
    test_copy.py.
    """
    machine = type("Machine", (TwinMachine,), {"backend": backend})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("WINDLASS_MODEL_EXAMPLES", "25")),
            stateful_step_count=40,
            deadline=None,
            derandomize=bool(os.environ.get("CI")),
            print_blob=True,
            phases=PHASES,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
