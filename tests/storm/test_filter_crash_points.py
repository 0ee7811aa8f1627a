"""A catalogue that crashes before and after every step of a write, a save and a rebuild, and starts again."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgresql import PostgreSQL
from tests.redis_server import RedisServer
from tests.storm.steps import LOST, OVER
from windlass.catalogue.service import DATABASE
from windlass.database import sqlite_url

pytestmark = pytest.mark.storm


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize(("database", "kept"), [("sqlite", "disk"), ("postgresql", "redis")])
def test_no_crash_loses_what_was_answered_for(
    database: str, kept: str, stack: ExitStack, tmp_path: Path
) -> None:
    """Planted defects: the header written before the bits; the mark read when the changes have been taken; a
    rebuild that saves its filter before that is filled."""
    url = sqlite_url(tmp_path / DATABASE)
    redis = None
    if database == "postgresql":
        server = PostgreSQL()
        stack.callback(server.close)
        url = server.database()
    if kept == "redis":
        redis = RedisServer()
        stack.callback(redis.close)
    lives = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "tests.storm.steps", url, str(tmp_path), *([redis.url] if redis else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(lives.kill)
    assert lives.stdin is not None
    assert lives.stdout is not None
    crashes, at = 0, 0
    statuses: list[int] = []
    while OVER not in statuses[-3:]:
        at += 1
        print(at, file=lives.stdin, flush=True)
        status = int(lives.stdout.readline())
        assert status != LOST, (tmp_path / "lost").read_text()
        assert status in (-signal.SIGKILL, OVER)
        statuses.append(status)
        crashes += status != OVER
        if redis is not None and at % 10 == 0:
            redis.stop()
            redis.start()
    print(f"{crashes} crashes")
    assert crashes > 30
    assert len((tmp_path / "answered").read_text().split()) > crashes
