"""The data directory is one server's, whichever store it has."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.redis_server import shared_redis
from windlass.directory import LOCK, DirectoryLock
from windlass.errors import StartError, StoreLocked
from windlass.server.app import Windlass
from windlass.settings import Settings, read


def test_a_directory_is_taken_once_and_says_by_whom(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path / "data")
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        DirectoryLock(tmp_path / "data")
    first.close()
    DirectoryLock(tmp_path / "data").close()


def test_who_did_not_come_to_a_clean_end_is_told_of(tmp_path: Path) -> None:
    """Planted defect: every end empties the file, or none does."""
    first = DirectoryLock(tmp_path)
    assert not first.killed
    first.close(clean=False)
    second = DirectoryLock(tmp_path)
    assert second.killed
    second.close()
    third = DirectoryLock(tmp_path)
    assert not third.killed
    third.close()


def settings(data_dir: Path, url: str) -> Settings:
    return read(data_dir=data_dir, store=f"{url}?prefix=directory", bloom_expected_items=1000)


def test_two_servers_on_one_redis_do_not_share_a_directory(tmp_path: Path) -> None:
    """Fails when the lock is SQLite's affair alone: the judge of both would be in one judge.db."""
    url = shared_redis().url
    first, same = Windlass(settings(tmp_path / "a", url)), Windlass(settings(tmp_path / "a", url))
    other = Windlass(settings(tmp_path / "b", url))
    first.open()
    try:
        with pytest.raises(StoreLocked, match="Another Windlass"):
            same.open()
        other.open()
    finally:
        for each in (first, other):
            asyncio.run(each.close())
    same.open()
    asyncio.run(same.close())
    assert (tmp_path / "a" / LOCK).read_text() == ""


def test_a_start_that_fails_lets_the_directory_go(tmp_path: Path) -> None:
    """Planted defect: the lock outlives the start that took it."""
    (tmp_path / "products.txt").write_bytes(b"\xff\n")
    with pytest.raises(StartError, match="not UTF-8"):
        Windlass(settings(tmp_path, shared_redis().url)).open()
    DirectoryLock(tmp_path).close()
