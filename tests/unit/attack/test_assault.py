"""The attack itself, on a clock that jumps, against a guard whose source counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec
import pytest

from tests.harness import Jumping
from tests.unit.attack.shop import Shop
from windlass.attack import KINDS, Assault, Kind, Plan, Report, craft
from windlass.client.errors import ServerFailed, Unauthenticated

REAL = [f"product-{number}" for number in range(200)]


class Near:
    """A shop without a network: each answer takes a thousandth of a second."""

    url = "http://shop"

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.asked: list[str] = []

    async def get(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        await asyncio.sleep(0.001)
        return await self.shop.answer(path)

    async def counts(self) -> tuple[int, int]:
        _, body = await self.get("/metrics")
        counts: Any = msgspec.json.decode(body)
        return counts["requests"], counts["requests"] - counts["database_roundtrips_saved"]


def attack(
    target: Near,
    *,
    seconds: float = 3,
    rate: float = 200,
    connections: int = 4,
    mix: str = "40:40:20",
    crafted: int = 200,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    parts: dict[Kind, int] = dict(zip(KINDS, map(int, mix.split(":")), strict=True))
    plan = Plan(seconds, rate, connections, parts)

    async def main() -> Report:
        ids = list(islice(craft(REAL, seed=1), crafted))
        return await Assault(plan, target, REAL, ids, progress).run()  # type: ignore[arg-type]

    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(main())


def test_what_it_reports_is_what_the_source_saw() -> None:
    """Planted defect: the last look comes before the last answers."""
    shop = Shop(REAL)
    report = attack(Near(shop))
    assert report.roundtrips == shop.calls > 0
    assert report.requests == report.sent == 600
    assert report.seconds == pytest.approx(3, abs=0.1)
    assert report.reduction == pytest.approx(1 - shop.calls / 600)
    assert report.denied == set()
    asked = {kind: len(tally.seconds) for kind, tally in report.kinds.items()}
    assert sum(asked.values()) == 600
    assert asked["real"] > asked["crafted"] > 0


def test_what_a_filter_without_a_key_would_cost_is_each_crafted_id_once() -> None:
    """Planted defect: an id that is sent ten times is counted ten times."""
    shop = Shop(REAL)
    report = attack(Near(shop), mix="0:0:1", crafted=30)
    stopped = report.kinds["crafted"].sources["bloom_filter"]
    assert stopped > 400
    assert report.without_key == 30
    assert report.roundtrips == shop.calls


def test_it_keeps_to_its_rate_and_its_time_and_looks_twice_a_second() -> None:
    looks: list[int] = []
    target = Near(Shop(REAL))
    report = attack(target, seconds=5, rate=50, progress=lambda report: looks.append(report.requests))
    assert report.sent == 250
    assert target.asked.count("/metrics") == len(looks) == 11
    assert [round(rates.unguarded) for rates in report.rates()] == pytest.approx([50] * len(looks[1:]), abs=5)


def test_it_ends_in_time_where_the_server_is_slower_than_its_rate() -> None:
    report = attack(Near(Shop(REAL)), seconds=2, rate=100_000, connections=2, mix="1:0:0")
    assert report.seconds == pytest.approx(2, abs=0.1)
    assert report.sent == pytest.approx(2 * 2 * 1000, rel=0.1)


def test_a_product_that_is_denied_is_told() -> None:
    """Planted defect: a 404 is a 404, whatever was asked for."""
    shop = Shop(REAL)
    shop.hidden = set(REAL[:50])
    target = Near(shop)
    denied = attack(target, mix="1:0:0").denied
    assert denied == shop.hidden & {path.rpartition("/")[2] for path in target.asked} != set()


def test_failures_are_counted_and_do_not_end_it() -> None:
    shop = Shop(REAL)
    shop.failing = set(REAL)
    report = attack(Near(shop), mix="1:1:0")
    real, missing = report.kinds["real"], report.kinds["missing"]
    assert dict(real.failures) == {"503: The database is gone.": len(real.seconds)}
    assert missing.failures.total() == 0
    assert report.denied == set()


def test_a_server_that_refuses_the_key_ends_it() -> None:
    shop = Shop(REAL)
    target = Near(shop)

    def lock(_: Report) -> None:
        shop.key = "another"

    with pytest.raises(Unauthenticated):
        attack(target, progress=lock)
    assert len(target.asked) < 20


def test_counts_that_fail_in_the_end_are_told() -> None:
    class Broken(Near):
        async def counts(self) -> tuple[int, int]:
            if len(self.asked) > 300:
                raise ServerFailed(500, "internal", "It broke.")
            return await super().counts()

    with pytest.raises(ServerFailed):
        attack(Broken(Shop(REAL)))
