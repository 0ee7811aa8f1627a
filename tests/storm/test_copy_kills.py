"""`windlass store copy` killed at any moment: what it was writing is no store, and it is begun again."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import WINDLASS, clean_environment, run_cli, until
from tests.redis_server import RedisServer
from windlass.errors import StartError
from windlass.store import Store, open_store

pytestmark = pytest.mark.storm

MESSAGES = 30_000
ROUNDS = 4


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


def opened(where: str) -> Store:
    return open_store(Path(where), where if "://" in where else None, synchronous="off")


def filled(path: Path) -> str:
    store = opened(str(path))

    async def fill() -> None:
        for name in ("orders", "mail"):
            await store.create_queue(name, {})
            for at in range(0, MESSAGES // 2, 1_000):
                await store.send(name, [b'"%d"' % (at + n) for n in range(1_000)])

    asyncio.run(fill())
    store.close()
    return str(path)


def killed(source: str, target: str, progress: Path | RedisServer, part: float) -> bool:
    """Copy, and kill that once about this part is written; whether it was still under way."""
    process = subprocess.Popen(
        [str(WINDLASS), "store", "copy", source, target],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )
    until(
        lambda: _written(progress) >= part or process.poll() is not None, what="a copy that has come so far"
    )
    process.kill()
    return process.wait(60) != 0


def _written(progress: Path | RedisServer) -> float:
    """Which part of all messages is there, about."""
    if isinstance(progress, Path):
        return progress.stat().st_size / (MESSAGES * 60) if progress.exists() else 0
    with progress.client() as client:
        if client.hexists("windlass:{r}:s", "copying"):
            amount = sum(int(client.hlen(f"windlass:{{{queue}}}:m")) for queue in (1, 2))
            return max(0.001, amount / MESSAGES)
        return 0


def refused(where: str) -> str:
    with pytest.raises(StartError, match="not finished") as error:
        opened(where)
    return str(error.value)


def check(where: str) -> None:
    store = opened(where)

    async def count() -> tuple[int, list[int]]:
        return await store.totals()

    assert asyncio.run(count()) == (2, [MESSAGES, 0, 0, 0, 0])
    store.close()


@pytest.mark.timeout(600)
def test_a_copy_to_redis_that_is_killed_is_no_store(tmp_path: Path, redis_server: RedisServer) -> None:
    """Planted defects: the mark is set behind the first message, or taken away before all is compared."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    parts = random.Random(seed)
    source = filled(tmp_path / "from")
    interrupted = 0
    for _ in range(ROUNDS):
        if killed(source, redis_server.url, redis_server, parts.uniform(0, 1)):
            interrupted += 1
            told = refused(redis_server.url)
            again = run_cli("store", "copy", source, redis_server.url)
            assert again.returncode == 1
            assert "not finished" in again.stderr
            # What it says is what helps.
            found = re.search(r"\((redis-cli .*? unlink)", told)
            assert found is not None
            to_this_one = f"redis-cli -p {redis_server.port}"
            subprocess.run(
                found[1].replace("redis-cli", to_this_one), shell=True, check=True, stdout=subprocess.DEVNULL
            )
            with redis_server.client() as client:
                assert client.dbsize() == 0
        else:
            redis_server.empty()
    assert interrupted
    done = run_cli("store", "copy", source, redis_server.url, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"] == MESSAGES
    check(redis_server.url)
    check(source)


@pytest.mark.timeout(600)
def test_a_copy_to_a_directory_that_is_killed_is_no_store(tmp_path: Path, redis_server: RedisServer) -> None:
    """Planted defect: it is written under the database's name, or has that name before it is compared."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    parts = random.Random(seed)
    directory = filled(tmp_path / "made")
    assert run_cli("store", "copy", directory, redis_server.url).returncode == 0
    target = tmp_path / "to"
    interrupted = 0
    for _ in range(ROUNDS):
        if killed(redis_server.url, str(target), target / "windlass.db.copy", parts.uniform(0, 1)):
            interrupted += 1
            found = re.search(r"\((rm .*?)\)", refused(str(target)))
            assert found is not None
            subprocess.run(f"rm {shlex.quote(str(target))}/windlass.db.copy*", shell=True, check=True)
            assert found[1] == f"rm {target}/windlass.db.copy*"
        for file in target.glob("windlass.db*"):
            file.unlink()
    assert interrupted
    done = run_cli("store", "copy", redis_server.url, str(target), "--json")
    assert done.returncode == 0, done.stderr
    assert [file.name for file in target.glob("windlass.db*")] == ["windlass.db"]
    check(str(target))
    check(redis_server.url)
