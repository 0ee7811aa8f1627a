"""windlass store copy: what it prints, and how it ends. What is copied is tests/contract/test_copy.py's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from windlass import logs, store
from windlass.cli import app
from windlass.errors import StoreFull
from windlass.store import Report, open_store
from windlass.store.copying import COLUMNS, Compared

NONE = dict.fromkeys(COLUMNS, 0)
ONCE = {"queues": 1, "keys": 0, "runners": 2}


@pytest.fixture(autouse=True)
def _no_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_args, **_options: None)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["store", "copy", *map(str, arguments)])


def filled(path: Path, *queues: str) -> Path:
    """A data directory with a message in each queue."""
    made = open_store(path, synchronous="off")

    async def fill() -> None:
        for queue in queues:
            await made.create_queue(queue, {})
            await made.send(queue, [b'"hello"'])

    asyncio.run(fill())
    made.close()
    return path


def report(*queues: Compared, installation: bool = True, **numbers: int) -> Report:
    once = Compared("", ONCE, ONCE, True, installation)
    counts = {"messages": 3, "renumbered": 0, "letters": 0, "dropped": 0} | numbers
    return Report(queues=queues, installation=once, seconds=1.5, **counts)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Report | BaseException], None]:
    def set_answer(found: Report | BaseException) -> None:
        def copied(_source: str, _target: str, _show: object) -> Report:
            if isinstance(found, BaseException):
                raise found
            return found

        monkeypatch.setattr(store, "copy_store", copied)

    return set_answer


def test_a_table_says_what_both_sides_hold(tmp_path: Path) -> None:
    result = run(filled(tmp_path / "a", "orders", "mail"), tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "QUEUE   READY  LEASED  DELAYED  BLOCKED  DEAD  RECORDS  DEDUP IDS  IDEMPOTENCY KEYS  ORDER",
        "orders  1      0       0        0        0     0        0          0                 same",
        "mail    1      0       0        0        0     0        0          0                 same",
        "queues   2",
        "keys     0",
        "runners  0",
    ]
    assert "2 messages in" in result.stderr
    assert "the same on both sides" in result.stderr


def test_json_has_both_sides(tmp_path: Path) -> None:
    result = run(filled(tmp_path / "a", "orders"), tmp_path / "b", "--json")
    found = json.loads(result.stdout)
    assert (found["same"], found["messages"], found["renumbered"]) == (True, 1, 0)
    (queue,) = found["queues"]
    assert (queue["queue"], queue["same"], queue["same_order"]) == ("orders", True, True)
    assert queue["from"] == queue["to"] == NONE | {"ready": 1}
    assert found["installation"]["to"] == {"queues": 1, "keys": 0, "runners": 0}


def test_what_differs_is_marked_and_is_status_1(answer: Callable[[Report], None]) -> None:
    """Planted defect: the exit status tells only whether it came to its end."""
    answer(
        report(
            Compared("a", NONE | {"ready": 2}, NONE | {"ready": 1}, False, False),
            Compared("b", NONE, NONE, True, True),
        )
    )
    result = run("a", "b")
    assert result.exit_code == 1
    _, first, second, *_ = result.stdout.splitlines()
    assert first.split() == ["a", "2", "!=", "1", *"0000000", "differs", "DIFFERS"]
    assert second.split() == ["b", *"00000000", "same"]
    assert "refused by `windlass serve`" in result.stderr
    answer(report(installation=False))
    assert run("a", "b", "--json").exit_code == 1


def test_of_many_queues_those_that_differ_are_shown(answer: Callable[[Report], None]) -> None:
    many = [Compared(f"q{n}", NONE, NONE, True, n != 70) for n in range(100)]
    answer(report(*many))
    lines = run("a", "b").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["QUEUE", "q70", "99", "queues", "keys", "runners"]


def test_what_is_not_as_it_was_is_said(answer: Callable[[Report], None]) -> None:
    answer(report(renumbered=1_234, letters=2, dropped=3))
    result = run("a", "b")
    assert result.exit_code == 0
    for words in ("1,234 messages had a number", "2 messages of dead-letter queues", "3 records of queues"):
        assert words in result.stderr


def test_a_refusal_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    result = run(filled(tmp_path / "a", "orders"), filled(tmp_path / "b", "theirs"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"windlass: {tmp_path / 'b'} is not empty: it has a database")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (StoreFull("Redis has no memory left."), 1, "Redis has no memory left."),
    ],
)
def test_an_end_on_the_way_says_what_became_of_it(
    answer: Callable[[BaseException], None], error: BaseException, status: int, said: str
) -> None:
    answer(error)
    result = run("a", "b")
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.startswith(f"windlass: {said}")
    assert "FROM is as it was" in result.stderr
