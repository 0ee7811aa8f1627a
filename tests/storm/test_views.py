"""Several real servers, one of which is stopped or killed now and then, and a real Redis that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import clean_environment, free_port, until
from tests.redis_server import RedisServer
from tests.storm.view_server import Rows

pytestmark = pytest.mark.storm

PATIENCE = 120.0


class ViewServer:
    """One process on the shared rows."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.port = free_port()
        self.log = folder / f"{self.port}.log"
        self.command = [sys.executable, "-m", "tests.storm.view_server", str(self.port)]
        self.command += [str(folder / "rows.db"), redis.url]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=clean_environment())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    async def ask(self, line: str) -> str | None:
        """Its answer, however long that takes; None where it dies first."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(line.encode() + b"\n")
            answer = await reader.readline()
            writer.close()
        except OSError:
            return None
        return answer.decode() or None

    def trusts(self) -> bool:
        answer = asyncio.run(asyncio.wait_for(self.ask("status"), PATIENCE))
        return answer is not None and json.loads(answer)[0]


class Town:
    """Servers, their Redis, and what was answered for."""

    def __init__(self, folder: Path, servers: int) -> None:
        self.redis = RedisServer("--appendfsync", "no")
        self.rows = Rows(folder / "rows.db")
        self.servers = [ViewServer(folder, self.redis) for _ in range(servers)]
        self.answered: list[str] = []
        self.denied: list[str] = []
        self.sources: Counter[str] = Counter()
        self.over = False

    def close(self) -> None:
        for server in self.servers:
            server.kill()
        self.redis.close()

    def peace(self) -> None:
        """Wait until every server trusts its memory."""
        for server in self.servers:
            until(server.trusts, PATIENCE, f"trust; {server.log.read_text()[-2000:]}")

    async def look(self, server: ViewServer, key: str, *, there: bool) -> None:
        """Look it up on a server; one that is stopped answers when it goes on, and has to know it then."""
        answer = await server.ask(f"look {key}")
        if answer is not None and not answer.startswith("unavailable"):
            value, source = json.loads(answer)
            self.sources[source] += 1
            if there and value is None:
                self.denied.append(f"{key} by {server.port}, {source}, {time.monotonic():.3f}")

    async def write_on(self, name: str) -> None:
        """Write one key after the other, on any server, and look each up on all before and after."""
        looks: set[asyncio.Task[None]] = set()
        number = 0
        while not self.over:
            number += 1
            key = f"{name}-{number}"
            early = [asyncio.ensure_future(self.look(each, key, there=False)) for each in self.servers]
            await asyncio.wait(early, timeout=0.2)
            answer = await random.choice(self.servers).ask(f"write {key}")
            if answer == "written\n":
                self.answered.append(key)
                looks |= {asyncio.ensure_future(self.look(each, key, there=True)) for each in self.servers}
            looks |= set(early)
            looks -= {look for look in looks if look.done()}
        await asyncio.wait_for(asyncio.gather(*looks), PATIENCE)

    async def storm(self, harm: asyncio.Task[None], writers: int) -> None:
        writing = [asyncio.ensure_future(self.write_on(f"key-{number}")) for number in range(writers)]
        await harm
        self.over = True
        await asyncio.wait_for(asyncio.gather(*writing), PATIENCE)

    def judge(self) -> None:
        """Nothing was denied, nor is in the end, by anybody; and memory is in use."""
        assert not self.denied
        self.peace()

        keys = self.rows.keys()  # what was written and not answered for, too

        async def all_of_it() -> None:
            for server in self.servers:
                for key in keys:
                    await self.look(server, key, there=True)
                self.sources.clear()
                await self.look(server, "nowhere", there=False)
                assert self.sources == {"bloom_filter": 1}

        asyncio.run(all_of_it())
        assert not self.denied


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path, 3)
    yield made
    made.close()


@pytest.mark.timeout(600)
def test_a_server_that_is_stopped_denies_nothing_when_it_goes_on(town: Town) -> None:
    """Planted defect: a lease of a minute: the one that was stopped trusts what it knew."""
    town.peace()
    writer, other, slow = town.servers

    async def scenario() -> None:
        reader, line = await asyncio.open_connection("127.0.0.1", slow.port)
        for number in range(3):
            key = f"key-{number}"
            for server in town.servers:
                await town.look(server, key, there=False)
            with stopped(slow.process):
                assert await writer.ask(f"write {key}") == "written\n"
                await town.look(other, key, there=True)
                line.write(f"look {key}\n".encode())
                await line.drain()
            assert json.loads(await reader.readline())[0] == key
            await town.look(slow, key, there=True)
        line.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    town.judge()


@pytest.mark.timeout(900)
def test_whatever_breaks_nothing_that_was_answered_for_is_denied(town: Town) -> None:
    """Planted defect: writes run before the others have heard of them."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    town.peace()

    def pause() -> None:
        with town.redis.client() as client:
            client.client_pause(2500, all=True)

    async def harm() -> None:
        kinds = ["stop", "stop", "kill", "hang", "restart", "empty", "forget", "pause"]
        chance.shuffle(kinds)
        for kind in kinds:
            print(kind, len(town.answered))
            server = chance.choice(town.servers)
            match kind:
                case "stop":
                    with stopped(server.process):
                        await asyncio.sleep(chance.uniform(0.3, 4))
                case "kill":
                    await asyncio.to_thread(server.kill)
                    server.start()
                case "hang":
                    town.redis.hang()
                    await asyncio.sleep(3)
                    town.redis.resume()
                case "restart":
                    await asyncio.to_thread(town.redis.stop)
                    await asyncio.to_thread(town.redis.start)
                case "empty":
                    await asyncio.to_thread(town.redis.empty)
                case "forget":
                    await asyncio.to_thread(town.redis.forget)
                case "pause":
                    await asyncio.to_thread(pause)
            await asyncio.sleep(chance.uniform(0.5, 3))

    async def scenario() -> None:
        await town.storm(asyncio.ensure_future(harm()), writers=4)

    asyncio.run(scenario())
    print(town.sources)
    assert len(town.answered) > 5
    assert town.sources["bloom_filter"] > 5
    town.judge()
