"""The log is moved into the database beside the writer, and begins anew; what fails there harms no commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import sqlite_of
from windlass.store.sqlite import checkpoint
from windlass.store.sqlite.files import DATABASE

_BODY = b'"' + b"x" * 30_000 + b'"'


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of 40 pages is long."""
    monkeypatch.setattr(checkpoint, "PAGES", 40)
    monkeypatch.setattr(checkpoint, "_FEW", 10)


def log_of(bench: Bench) -> Path:
    return bench.directory / (DATABASE + "-wal")


def beginnings(bench: Bench) -> int:
    """How often the log began anew: the sequence number in its header."""
    return int.from_bytes(log_of(bench).read_bytes()[12:16])


def send_until(bench: Bench, condition: Callable[[], bool], what: str) -> int:
    """Send until `condition` holds; how many were sent."""
    deadline = time.monotonic() + 60
    for sent in range(1_000_000):
        if condition():
            return sent
        assert time.monotonic() < deadline, what
        bench.send("q", _BODY)
    raise AssertionError(what)


def test_the_log_begins_anew_again_and_again(bench: Bench) -> None:
    """Planted defect: a round that is over never leads to another."""
    bench.create("q")
    first = beginnings(bench)
    sent = send_until(bench, lambda: beginnings(bench) >= first + 5, "the log only grows")
    assert bench.info("q").ready == sent


def test_a_long_read_puts_it_off_and_no_more(bench: Bench) -> None:
    """Planted defect: after a round that could not move all there is no other."""
    bench.create("q")
    bench.send("q", _BODY)
    reader = apsw.Connection(str(bench.directory / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
    with reader:
        reader.execute("SELECT count(*) FROM messages").fetchall()
        before, size = beginnings(bench), log_of(bench).stat().st_size
        send_until(bench, lambda: log_of(bench).stat().st_size > size + 200 * 8_192, "the log was lost")
        assert beginnings(bench) == before
    reader.close()
    send_until(bench, lambda: beginnings(bench) > before, "the log was given up")


def test_the_writer_moves_what_the_thread_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under load, when more comes with each pass. Planted defect: the writer leaves it there too."""
    monkeypatch.setattr(checkpoint, "_move", lambda _: 0)
    bench.create("q")
    before = beginnings(bench)
    send_until(bench, lambda: beginnings(bench) >= before + 2, "the log only grows")


def test_a_disk_that_fails_there_fails_no_commit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defects: a checkpoint's error that ends the writer, or its own thread, for good."""
    failed = 0

    def failing(*_: Any, **__: Any) -> Any:
        nonlocal failed
        failed += 1
        raise apsw.IOError("planted")

    bench.create("q")
    checkpointer = sqlite_of(bench)._writer._checkpointer
    before, works = beginnings(bench), checkpointer._connect
    monkeypatch.setattr(checkpointer, "_connect", failing)
    send_until(bench, lambda: failed >= 2, "it was not tried again")
    monkeypatch.setattr(checkpointer, "_connect", works)
    sent = send_until(bench, lambda: beginnings(bench) > before, "the log was given up")
    assert sent is not None
