"""Several real servers on one PostgreSQL and one real Redis: what one has answered for, each one finds."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.harness import ServerProcess, until
from tests.postgresql import PostgreSQL
from tests.redis_server import RedisServer
from tests.storm.talk import client

pytestmark = pytest.mark.storm

PATIENCE = 240.0


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    yield server
    server.close()


class Shop:
    """Servers of one database, and what they must answer."""

    def __init__(self, folder: Path, database: str, redis: RedisServer, number: int) -> None:
        self.folder, self.database, self.redis = folder, database, redis
        self.servers = [self.server(f"server-{each}") for each in range(number)]
        self.wrong: list[str] = []
        self.sources: Counter[str] = Counter()

    def server(self, name: str, *arguments: str, **environment: str) -> ServerProcess:
        """One more, not yet started; by its own data directory it is another installation."""
        settings = {
            "WINDLASS_DATABASE": self.database,
            "REDIS_URL": self.redis.url,
            "WINDLASS_BLOOM_EXPECTED_ITEMS": "20000",
            "WINDLASS_SYNCHRONOUS": "off",
        } | environment
        kept = {key: value for key, value in settings.items() if value}
        return ServerProcess(self.folder / name, *arguments, environment=kept, ready_within=PATIENCE)

    def start(self) -> None:
        """All at once, and wait until each answers from memory."""
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_until_ready()
        self.trusted()

    def trusted(self) -> None:
        for server in self.servers:
            until(partial(self.trusts, server), PATIENCE, f"trust: {server.log[-2000:]}")

    def trusts(self, server: ServerProcess) -> bool:
        return self.filter(server) == "ok"

    def filter(self, server: ServerProcess) -> str:
        """What its health says of its filter; the server is well in any case."""
        status, body = ask(server, "/health")
        assert status == 200, body
        return str(body["filter"])

    def close(self) -> None:
        for server in self.servers:
            if server.process is not None:
                server.kill()

    # --- asking -------------------------------------------------------------------------------------

    async def look(self, http: httpx.AsyncClient, product_id: str, price: float | None) -> None:
        """Look it up; `price` is what it costs, None: it is not there."""
        try:
            answer = await http.get(f"/products/{product_id}")
        except httpx.TransportError:
            return  # the server was killed, and denies nothing
        self.check(answer.status_code, answer.json(), product_id, price)

    def check(self, status: int, body: Mapping[str, Any], product_id: str, price: float | None) -> None:
        self.sources[f"{status} {body.get('source')}"] += 1
        found = body["price"] if status == 200 else None
        if status not in (200, 404) or found != price:
            self.wrong.append(f"{product_id} costs {price}, and it is {status} {body}")

    async def ask_all(
        self, all_of_them: list[httpx.AsyncClient], product_id: str, price: float | None
    ) -> None:
        await asyncio.gather(*(self.look(each, product_id, price) for each in all_of_them))

    def run(self, scenario: Callable[[list[httpx.AsyncClient]], Any]) -> None:
        """`scenario` is given a client of each server; then nothing may have been wrong."""

        async def within() -> None:
            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(asynchronous(each)) for each in self.servers]
                await scenario(clients)

        asyncio.run(asyncio.wait_for(within(), 2 * PATIENCE))
        assert not self.wrong, "\n".join(self.wrong[:20])


class Line:
    """A connection on which a question may wait for its answer."""

    def __init__(self, server: ServerProcess) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        self._connection.connect()

    def send(self, path: str) -> None:
        self._connection.request("GET", path)

    def read(self) -> tuple[int, dict[str, Any]]:
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def ask(server: ServerProcess, path: str) -> tuple[int, dict[str, Any]]:
    with Line(server) as line:
        line.send(path)
        return line.read()


def denied_from_memory(server: ServerProcess) -> bool:
    return bool(ask(server, f"/products/absent-{random.random()}")[1]["source"] == "bloom_filter")


def asynchronous(server: ServerProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, trust_env=False, verify=False)


def product(product_id: str, price: float) -> dict[str, Any]:
    return {"product_id": product_id, "name": f"the {product_id}", "price": price}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL) -> Iterator[Shop]:
    """Three servers; a test leaves them well."""
    redis = RedisServer("--appendfsync", "no")
    shop = Shop(tmp_path_factory.mktemp("shop"), postgresql.database(), redis, 3)
    try:
        shop.start()
        yield shop
    finally:
        shop.close()
        redis.close()


# --- writes ---------------------------------------------------------------------------------------


async def write_and_look(shop: Shop, clients: list[httpx.AsyncClient], name: str) -> None:
    for count in range(25):
        product_id = f"{name}-{count}"
        one = clients[count % len(clients)]
        await shop.ask_all(clients, product_id, None)
        answer = await one.post("/products", json=product(product_id, 1))
        assert answer.status_code == 201, answer.text
        await shop.ask_all(clients, product_id, 1)
        one = random.choice(clients)
        answer = await one.put(f"/products/{product_id}", json={"name": "new", "price": 2})
        assert answer.status_code == 200, answer.text
        await shop.ask_all(clients, product_id, 2)
        if count % 3 == 0:
            one = random.choice(clients)
            assert (await one.delete(f"/products/{product_id}")).status_code == 204
            await shop.ask_all(clients, product_id, None)


def test_what_one_has_answered_for_every_one_knows(shop: Shop) -> None:
    """With three servers, and with two after one has left.

    Planted defect: a guard that is told of no peers.
    """

    async def scenario(clients: list[httpx.AsyncClient]) -> None:
        names = [f"of-{len(clients)}-{each}" for each in range(2 * len(clients))]
        await asyncio.gather(*(write_and_look(shop, clients, name) for name in names))

    *_, third = all_of_them = shop.servers
    for servers in (all_of_them, all_of_them[:-1]):
        shop.servers, before = servers, shop.sources["404 bloom_filter"]
        shop.run(scenario)
        print(shop.sources)
        assert shop.sources["404 bloom_filter"] > before
        for server in servers:
            until(partial(denied_from_memory, server), PATIENCE)
        if servers is all_of_them:
            assert third.terminate() == 0
    third.start()
    shop.servers = all_of_them
    shop.trusted()


# --- a server that stands still -------------------------------------------------------------------


def test_one_that_stood_still_is_right_at_once(shop: Shop) -> None:
    """What is asked of it while it stands still waits in its socket, and was asked after the 201.

    Planted defects: a lease of a minute; a write that is answered for before all have heard of it.
    """
    writer, other, slow = shop.servers

    with client(writer, PATIENCE) as write, client(other, PATIENCE) as look, Line(slow) as known:
        steps: list[tuple[Callable[[], httpx.Response], int, float | None]] = [
            (lambda: write.post("/products", json=product("a", 1)), 201, 1),
            (lambda: write.put("/products/a", json={"name": "a", "price": 2}), 200, 2),
            (lambda: write.delete("/products/a"), 204, None),
        ]
        before: float | None = None
        for step, wanted, price in steps:
            for _ in range(2):  # it remembers what was
                known.send("/products/a")
                status, body = known.read()
                shop.check(status, body, "a", before)
            slow.signal(signal.SIGSTOP)
            try:
                assert step().status_code == wanted
                found = look.get("/products/a")
                shop.check(found.status_code, found.json(), "a", price)
                known.send("/products/a")
                new = Line(slow)
                new.send("/products/a")
            finally:
                slow.signal(signal.SIGCONT)
            with new:
                for line in (known, new):
                    shop.check(*line.read(), "a", price)
            before = price
            shop.trusted()
    assert not shop.wrong, shop.wrong


# --- a Redis that breaks --------------------------------------------------------------------------


class Trouble:
    """Two servers, and a Redis of theirs that breaks."""

    def __init__(self, folder: Path, database: str) -> None:
        folder.mkdir()
        self.redis = RedisServer("--appendfsync", "no")
        self.shop = Shop(folder, database, self.redis, 2)
        self.written: list[str] = []

    def close(self) -> None:
        self.shop.close()
        self.redis.close()

    async def bypassed(self) -> None:
        """Wait until no server trusts its memory: all is found all the while, and each is healthy."""

        async def by(server: ServerProcess) -> None:
            while (told := await asyncio.to_thread(self.shop.filter, server)) == "ok":
                await self.look()
            assert told.startswith("bypassed, so the database is asked: "), told

        await asyncio.gather(*map(by, self.shop.servers))

    async def look(self, *, past: bool = False) -> None:
        """All that was answered for is found on both; `past`: what is not there is asked of the database."""
        for server in self.shop.servers:
            async with asynchronous(server) as http:
                for product_id in self.written:
                    await self.shop.look(http, product_id, 1)
                absent = await http.get(f"/products/absent-{random.random()}")
            assert absent.status_code == 404, absent.text
            if past and absent.json()["source"] != "database":
                told = await asyncio.to_thread(self.shop.filter, server)
                assert told == "ok", told  # it has become well meanwhile

    async def write(self, name: str) -> int:
        """On both at once; what is answered by 201 is kept in mind, and all else says when to come again."""

        async def on(server: ServerProcess) -> int:
            product_id = f"{name}-{server.port}"
            async with asynchronous(server) as http:
                answer = await http.post("/products", json=product(product_id, 1))
            if answer.status_code == 201:
                self.written.append(product_id)
            else:
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) > 0
            return answer.status_code

        return max(await asyncio.gather(*map(on, self.shop.servers)))

    async def well(self) -> None:
        """Memory is trusted again by itself, and writes succeed, each known to both at once."""
        await asyncio.to_thread(self.shop.trusted)
        assert await self.write("well") == 201
        await self.look()
        for server in self.shop.servers:
            await asyncio.to_thread(until, partial(denied_from_memory, server), PATIENCE)


async def hangs(trouble: Trouble) -> None:
    """It hangs, with a write under way."""
    trouble.redis.hang()
    writing = asyncio.ensure_future(trouble.write("hanging"))
    await trouble.bypassed()
    await trouble.look(past=True)
    assert await writing == 503
    trouble.redis.resume()


async def dies(trouble: Trouble) -> None:
    """It is killed, and comes back without anything."""
    await asyncio.to_thread(trouble.redis.stop)
    writing = asyncio.ensure_future(trouble.write("dead"))
    await trouble.bypassed()
    await trouble.look(past=True)
    await asyncio.to_thread(trouble.redis.forget)
    await trouble.look()
    await writing


async def is_emptied(trouble: Trouble) -> None:
    await asyncio.to_thread(trouble.redis.empty)
    writing = asyncio.ensure_future(trouble.write("emptied"))
    await trouble.bypassed()
    await trouble.look(past=True)
    await writing


async def evicts(trouble: Trouble) -> None:
    """The filter, which the servers have all the same; then what they know of each other."""
    with trouble.redis.client() as redis:
        assert redis.delete("bloom:filter") == 1
        assert await trouble.write("evicted") == 201
        await trouble.look()
        await asyncio.to_thread(until, lambda: redis.exists("bloom:filter"), PATIENCE, "a filter saved anew")
        assert redis.delete("{bloom:filter}:views") == 1
    writing = asyncio.ensure_future(trouble.write("gone"))
    await trouble.bypassed()
    await trouble.look(past=True)
    await writing


def test_a_redis_that_breaks_denies_and_loses_nothing(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """Four shops at once, since most of it is waiting.

    Planted defects: a lease that is renewed without an answer of Redis; a health that does not tell.
    """
    harms = [hangs, dies, is_emptied, evicts]
    troubles = [Trouble(tmp_path / harm.__name__, postgresql.database()) for harm in harms]

    async def suffer(trouble: Trouble, harm: Callable[[Trouble], Coroutine[Any, Any, None]]) -> None:
        assert await trouble.write("before") == 201
        with trouble.redis.client() as redis:
            await asyncio.to_thread(until, lambda: redis.exists("bloom:filter"), PATIENCE, "a saved filter")
        await harm(trouble)
        await trouble.well()
        assert not trouble.shop.wrong, trouble.shop.wrong

    async def all_at_once() -> None:
        await asyncio.gather(*(suffer(*each) for each in zip(troubles, harms, strict=True)))

    try:
        for trouble in troubles:
            for server in trouble.shop.servers:
                server.launch()
        for trouble in troubles:
            for server in trouble.shop.servers:
                server.wait_until_ready()
            trouble.shop.trusted()
        asyncio.run(asyncio.wait_for(all_at_once(), 2 * PATIENCE))
    finally:
        for trouble in troubles:
            trouble.close()


# --- a server that dies ---------------------------------------------------------------------------


def test_what_a_killed_server_answered_for_is_found_everywhere(shop: Shop) -> None:
    """Planted defect: a write that is answered for before it is committed."""
    answered: list[str] = []
    over = asyncio.Event()

    async def write(clients: list[httpx.AsyncClient], name: str) -> None:
        count = 0
        while not over.is_set():
            count += 1
            product_id = f"{name}-{count}"
            try:
                answer = await random.choice(clients).post("/products", json=product(product_id, 1))
            except httpx.TransportError:  # it is not there
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code in (201, 503), answer.text
            if answer.status_code == 201:
                answered.append(product_id)
                await shop.ask_all(clients, product_id, 1)

    async def enough(more: int) -> None:
        wanted = len(answered) + more
        await asyncio.to_thread(until, lambda: len(answered) >= wanted, PATIENCE, "more that is answered for")

    async def scenario(clients: list[httpx.AsyncClient]) -> None:
        writing = [asyncio.ensure_future(write(clients, f"writer-{each}")) for each in range(6)]
        await enough(100)
        await asyncio.to_thread(shop.servers[0].kill)
        await enough(20)
        await asyncio.to_thread(shop.servers[0].start)
        await enough(20)
        over.set()
        await asyncio.gather(*writing)
        await asyncio.to_thread(shop.trusted)
        for product_id in answered:
            await shop.ask_all(clients, product_id, 1)

    shop.run(scenario)
    print(shop.sources)


# --- who may write beside whom --------------------------------------------------------------------


def refused(*servers: ServerProcess) -> None:
    for server in servers:
        server.launch()
    for server in servers:
        assert server.wait(PATIENCE) != 0
        assert "Another Windlass writes the products in this database" in server.log
        assert "the same --redis" in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_that_would_not_be_heard_of_is_refused(tmp_path: Path, postgresql: PostgreSQL, kind: str) -> None:
    """Planted defects: a start that takes no lock; one that is shared by all."""
    redis = RedisServer("--appendfsync", "no")
    url = postgresql.database() if kind == "postgresql" else f"sqlite:///{tmp_path / 'shop.db'}"
    shop = Shop(tmp_path, url, redis, 0)
    alone = shop.server("alone", "--database", url, REDIS_URL="", WINDLASS_DATABASE="")
    sharing = shop.server("sharing", "--redis", redis.url, REDIS_URL="")
    try:
        with alone:
            refused(shop.server("second", "--database", url, REDIS_URL="", WINDLASS_DATABASE=""), sharing)
            assert alone.running
        if kind == "postgresql":
            with sharing:
                refused(shop.server("third", REDIS_URL=""))
                assert sharing.running
    finally:
        redis.close()


# --- others write, too ----------------------------------------------------------------------------

MAX_LAG = 2.0


@pytest.mark.parametrize("shared", [False, True], ids=["without-redis", "with-redis"])
def test_what_another_program_writes_is_found_within_the_lag(
    tmp_path: Path, postgresql: PostgreSQL, shared: bool
) -> None:
    """Whoever asks later than the lag after a commit is told the truth, however slow the machine is.

    Planted defect: a follower that takes itself for current whatever it has read.
    """
    redis = RedisServer("--appendfsync", "no")
    shop = Shop(tmp_path, postgresql.database(), redis, 0)
    lag = {"WINDLASS_PRODUCTS_WRITES": "elsewhere", "WINDLASS_MAX_LAG_SECONDS": str(MAX_LAG)}
    shop.servers = [
        shop.server(name, REDIS_URL=redis.url if shared else "", **lag) for name in ("one", "other")
    ]

    async def seen(
        clients: list[httpx.AsyncClient], product_id: str, price: float | None, committed: float
    ) -> None:
        """Ask until each server has told it; one that is asked late and does not is wrong."""
        for http in clients:
            told: object = ()
            while told != price:
                late = time.monotonic() > committed + MAX_LAG
                answer = await http.get(f"/products/{product_id}")
                told = answer.json()["price"] if answer.status_code == 200 else None
                assert answer.status_code in (200, 404), answer.text
                assert told == price or not late, f"{product_id} costs {price}, and it is {answer.text}"

    try:
        shop.start()

        async def scenario(clients: list[httpx.AsyncClient]) -> None:
            with psycopg.connect(shop.database, autocommit=True) as program:
                insert = "INSERT INTO products (product_id, name, price) VALUES (%s, 'theirs', 1)"
                for number in range(5):
                    product_id = f"theirs-{number}"
                    await shop.ask_all(clients, product_id, None)
                    program.execute(insert, (product_id,))
                    await seen(clients, product_id, 1, time.monotonic())
                    program.execute("UPDATE products SET price = 2 WHERE product_id = %s", (product_id,))
                    await seen(clients, product_id, 2, time.monotonic())
                    program.execute("DELETE FROM products WHERE product_id = %s", (product_id,))
                    await seen(clients, product_id, None, time.monotonic())
                one = shop.servers[0]
                with Line(one) as line:  # one that stood still, and was asked after the lag
                    await shop.ask_all(clients, "late", None)
                    one.signal(signal.SIGSTOP)
                    try:
                        program.execute(insert, ("late",))
                        late = time.monotonic() + MAX_LAG
                        await asyncio.to_thread(until, lambda: time.monotonic() > late, PATIENCE)
                        line.send("/products/late")
                    finally:
                        one.signal(signal.SIGCONT)
                    shop.check(*line.read(), "late", 1)
            for number, http in enumerate(clients):
                answer = await http.post("/products", json=product(f"ours-{number}", 3))
                assert answer.status_code == 201
                await shop.look(http, f"ours-{number}", 3)  # this one at once, the others within the lag
                await seen(clients, f"ours-{number}", 3, time.monotonic())

        shop.run(scenario)
        for server in shop.servers:
            until(partial(denied_from_memory, server), PATIENCE)
        if shared:  # where the filter is kept; what is written is heard of by the record all the same
            with redis.client() as asking:
                until(lambda: asking.exists("bloom:filter"), PATIENCE, "a filter in Redis")
            redis.hang()
            shop.trusted()
            with client(shop.servers[0], PATIENCE) as http:
                assert http.post("/products", json=product("meanwhile", 4)).status_code == 201
    finally:
        redis.resume()
        shop.close()
        redis.close()


# --- the last one: it ends the servers of the others ----------------------------------------------


def test_one_with_a_redis_of_its_own_trusts_nothing_until_it_is_alone(tmp_path: Path, shop: Shop) -> None:
    """As with `redis://localhost` on two machines.

    Planted defect: every epoch is entered.
    """
    redis = RedisServer("--appendfsync", "no")
    mistaken = Shop(tmp_path, shop.database, redis, 1)
    (stranger,) = mistaken.servers
    try:
        stranger.start()
        until(lambda: "another Redis, or another namespace" in mistaken.filter(stranger), PATIENCE)
        assert not denied_from_memory(stranger)
        with client(shop.servers[0], PATIENCE) as write, client(stranger, PATIENCE) as there:
            assert write.post("/products", json=product("ours", 1)).status_code == 201
            assert there.get("/products/ours").status_code == 200
        shop.trusted()
        for server in shop.servers:
            server.terminate()
        mistaken.trusted()
        until(partial(denied_from_memory, stranger), PATIENCE)
        with client(stranger, PATIENCE) as there:
            assert there.post("/products", json=product("stranger's", 1)).status_code == 201
            assert there.get("/products/ours").status_code == 200
    finally:
        mistaken.close()
        redis.close()
