"""Reading beside the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import sqlite_of
from windlass.errors import StoreUnavailable
from windlass.store import Store


def looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Filled with the messages of each look at the database."""
    readers = sqlite_of(bench)._readers
    find, seen = readers._find, []

    def noted(db: Any, ids: Any) -> Any:
        seen.append(list(ids))
        return find(db, ids)

    monkeypatch.setattr(readers, "_find", noted)
    return seen


def test_what_is_looked_for_meanwhile_is_one_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defects: a thread's turn for each message; all in one look, whatever they weigh; the life of
    one told as another's."""
    bench.create("q", history_seconds=60)
    sent = bench.send("q", *[b"%d" % n for n in range(20)]).numbers
    (first, *_) = bench.receive("q", 1, 60_000)
    bench.acknowledge("q", first)
    seen = looks(bench, monkeypatch)
    wanted = [*sent, 12345, *sent[:3]]

    def find(number: int) -> Callable[[Store], Any]:
        return lambda s: s.find(number)

    lives = bench.together(*map(find, wanted))
    assert [life and (life.message.number, life.state) for life in lives] == [
        (sent[0], "acknowledged"), *[(n, "ready") for n in sent[1:]], None,
        (sent[0], "acknowledged"), (sent[1], "ready"), (sent[2], "ready"),
    ]  # fmt: skip
    assert [life.message.content for life in lives[1:20]] == [b"%d" % n for n in range(1, 20)]
    assert [len(ids) for ids in seen] == [16, 8]


def test_a_look_that_fails_fails_for_all_of_it_and_not_for_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: a look that never ends, because the one before it failed."""
    bench.create("q")
    (number,) = bench.send("q", b"1").numbers
    readers = sqlite_of(bench)._readers

    def broken(*_: object) -> Any:
        raise StoreUnavailable("not now")

    with monkeypatch.context() as patch:
        patch.setattr(readers, "_find", broken)
        answers = bench.together(*[lambda s: s.find(number)] * 20)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 20
    found = bench.run(lambda s: s.find(number))
    assert found is not None
    assert found.state == "ready"


def test_one_that_looks_no_more_disturbs_no_other(bench: Bench) -> None:
    bench.create("q")
    (number,) = bench.send("q", b"1").numbers

    async def scenario(store: Store) -> None:
        gone = asyncio.ensure_future(store.find(number))
        stays = asyncio.ensure_future(store.find(number))
        await asyncio.sleep(0)
        gone.cancel()
        found = await asyncio.wait_for(stays, 60)
        assert found is not None
        assert gone.cancelled()

    bench.run(scenario)
