"""The log: what reaches stderr."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from windlass import logs


class Pieces(io.StringIO):
    """A stderr that keeps each piece as it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)


def written(log_format: str, *, quiet: bool = False, worker: int | None = None) -> list[str]:
    """What two records are on stderr, our own and one of a library's that warns."""
    with contextlib.redirect_stderr(Pieces()) as stderr:
        logs.configure(log_format, quiet=quiet, worker=worker)
        structlog.get_logger().info("our_own", number=1)
        logging.getLogger("other").warning("a library's")
    return stderr.pieces


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_line_is_written_in_one_piece(log_format: str) -> None:
    """So the lines of several workers do not mix. Planted defect: the end of the line comes after it."""
    ours, other = written(log_format)
    assert ours.endswith("\n")
    assert "our_own" in ours
    assert other.endswith("\n")
    assert "a library's" in other


def test_each_line_says_which_worker_it_is_of() -> None:
    assert [json.loads(each)["worker"] for each in written("json", worker=2)] == [2, 2]


def test_quiet_says_only_what_goes_wrong() -> None:
    assert [json.loads(each)["event"] for each in written("json", quiet=True)] == ["a library's"]
