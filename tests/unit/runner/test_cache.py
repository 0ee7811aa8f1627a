"""Test data by checksum: fetched once, whole or not at all, never changed under a reader."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.unit.runner.server import DROP, HANG, SECRET, Server
from windlass.client.errors import WindlassError as ClientError
from windlass.errors import Invalid, TooLarge
from windlass.runner import cache as caching
from windlass.runner.cache import Cache, Unavailable
from windlass.runner.link import Link
from windlass.runner.registration import Registration
from windlass.runner.wire import Malformed

ONE = {"0101.in": b"1\n", "0101.out": b"one\n"}
TWO = {"0101.in": b"2\n", "0101.out": b"two\n"}


@asynccontextmanager
async def opened(server: Server, folder: Path, room: int = 1 << 30) -> AsyncIterator[Cache]:
    link = Link(server.url, httpx_transport=server.transport)
    cache = Cache(folder, link, Registration(link, None, name="r", token=SECRET), room)
    cache.open()
    yield cache
    assert list((folder / "new").iterdir()) == []


def run(
    server: Server, folder: Path, scenario: Callable[[Cache], Awaitable[None]], room: int = 1 << 30
) -> None:
    async def main() -> None:
        async with opened(server, folder, room) as cache:
            await scenario(cache)

    asyncio.run(main())


def fetched(server: Server) -> int:
    return sum(request.path.endswith("/testdata") for request in server.requests)


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"new"}


def test_it_is_fetched_once_and_again_when_its_checksum_is_another(tmp_path: Path) -> None:
    """Planted defect: a cache by problem, which gives the old data for the new checksum."""
    server = Server()

    async def scenario(cache: Cache) -> None:
        server.problem(7, ONE)
        for _ in range(3):
            async with cache.testdata(7, [1]) as data:
                assert (data / "0101.out").read_bytes() == b"one\n"
        assert fetched(server) == 1
        server.problem(7, TWO)
        async with cache.testdata(7, [1]) as data:
            assert (data / "0101.out").read_bytes() == b"two\n"
        assert fetched(server) == 2

    run(server, tmp_path, scenario)


def test_a_refresh_leaves_what_others_read(tmp_path: Path) -> None:
    """Planted defect: test data deleted, or written over, while a job reads it."""
    server = Server()

    async def scenario(cache: Cache) -> None:
        server.problem(7, ONE)
        async with cache.testdata(7, [1]) as old:
            with (old / "0101.out").open("rb") as reading:
                server.problem(7, TWO)
                async with cache.testdata(7, [1]) as new:
                    assert (new / "0101.out").read_bytes() == b"two\n"
                    assert (old / "0101.in").read_bytes() == b"1\n"
                    assert reading.read() == b"one\n"
            # There is room for one only, and yet the one that is read stays.
            assert (old / "0101.out").read_bytes() == b"one\n"
        server.problem(8, {"0101.in": b"8", "0101.out": b"8"})
        async with cache.testdata(8, [1]):
            pass
        assert not old.exists()

    run(server, tmp_path, scenario, room=1)


def test_many_who_ask_at_once_share_one_download(tmp_path: Path) -> None:
    server = Server(delays={"problem": 0.01})
    server.problem(7, ONE)

    async def use(cache: Cache) -> None:
        async with cache.testdata(7, [1]) as data:
            assert (data / "0101.in").read_bytes() == b"1\n"

    async def scenario(cache: Cache) -> None:
        await asyncio.gather(*(use(cache) for _ in range(20)))

    run(server, tmp_path, scenario)
    assert fetched(server) == 1


def test_who_waits_for_a_download_that_is_cancelled_or_fails_fetches_it_itself(tmp_path: Path) -> None:
    """Planted defect: the error, or the cancellation, of one job becomes that of all who waited."""
    server = Server()
    server.problem(7, ONE)
    server.fail("problem", HANG, DROP)

    async def use(cache: Cache) -> bytes:
        async with cache.testdata(7, [1]) as data:
            return (data / "0101.in").read_bytes()

    async def scenario(cache: Cache) -> None:
        first, second, third = (asyncio.create_task(use(cache)) for _ in range(3))
        while len(server.faults["problem"]) > 1:  # noqa: ASYNC110 - the fake server has no event for it
            await asyncio.sleep(0.001)
        first.cancel()
        done = await asyncio.gather(first, second, third, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert sum(isinstance(each, ClientError) for each in done) <= 1
        assert done.count(b"1\n") >= 1
        assert await use(cache) == b"1\n"

    run(server, tmp_path, scenario)


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    server = Server()
    keys = {}
    for number in (1, 2, 3):
        keys[number] = server.problem(number, {"0101.in": b"%d" % number, "0101.out": b"x" * 9})

    async def scenario(cache: Cache) -> None:
        for number in (1, 2, 1, 3):
            async with cache.testdata(number, [1]):
                pass

    run(server, tmp_path, scenario, room=25)
    assert kept(tmp_path) == {keys[1], keys[3]}


def test_it_outlives_the_process_and_what_is_not_whole_does_not(tmp_path: Path) -> None:
    """Planted defect: files that a power cut has truncated, or half an archive, taken for test data."""
    server = Server()
    server.problem(7, ONE)
    lost = server.problem(8, TWO)

    async def both(cache: Cache) -> None:
        for number in (7, 8):
            async with cache.testdata(number, [1]) as data:
                assert (data / "0101.out").read_bytes() in (b"one\n", b"two\n")

    run(server, tmp_path, both)
    os.truncate(tmp_path / lost / "data" / "0101.out", 0)
    (tmp_path / "new" / "half").mkdir()
    (tmp_path / "stray").touch()
    (tmp_path / "empty").mkdir()
    run(server, tmp_path, both)
    assert fetched(server) == 3
    assert len(kept(tmp_path)) == 2


def test_data_that_is_not_what_its_checksum_says_is_refused(tmp_path: Path) -> None:
    """Planted defect: data that was replaced between the two requests is kept under the old checksum."""
    server = Server()
    server.problem(7, ONE, checksum="0" * 64)

    async def scenario(cache: Cache) -> None:
        with pytest.raises(Unavailable, match="not what its checksum says"):
            async with cache.testdata(7, [1]):
                pass

    run(server, tmp_path, scenario)
    assert kept(tmp_path) == set()


@pytest.mark.parametrize("tag", ["7", "d41d8cd98f00b204e9800998ecf8427e", "../../etc", "v 1"])
def test_a_checksum_of_another_kind_is_a_name_within_its_problem(tmp_path: Path, tag: str) -> None:
    """Planted defect: a server's word that becomes a path, or two problems that share a word."""
    server = Server()
    server.problem(7, ONE, checksum=tag)
    server.problem(8, TWO, checksum=tag)

    async def scenario(cache: Cache) -> None:
        for number, expected in ((7, b"one\n"), (8, b"two\n"), (7, b"one\n")):
            async with cache.testdata(number, [1]) as data:
                assert data.is_relative_to(tmp_path)
                assert (data / "0101.out").read_bytes() == expected

    run(server, tmp_path, scenario)
    assert fetched(server) == 2


@pytest.mark.parametrize("body", [b"abc", b'"abc"', b'{"checksum": "abc"}', b'{"data": {"checksum": "abc"}}'])
def test_how_a_checksum_may_be_told(tmp_path: Path, body: bytes) -> None:
    server = Server()
    server.problem(7, ONE)
    server.files["/problems/7/checksum"] = body

    async def scenario(cache: Cache) -> None:
        async with cache.testdata(7, [1]):
            pass

    run(server, tmp_path, scenario)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"5", b'{"data": {"checksum": 5}}', b"x" * 300])
def test_what_is_no_checksum(tmp_path: Path, body: bytes) -> None:
    server = Server()
    server.problem(7, ONE)
    server.files["/problems/7/checksum"] = body

    async def scenario(cache: Cache) -> None:
        with pytest.raises(Malformed):
            async with cache.testdata(7, [1]):
                pass

    run(server, tmp_path, scenario)


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        ({"0101.in": b"", "0101.out": b"", "x": b""}, [1]),
        ({"../0101.in": b"", "0101.out": b""}, [1]),
        ({"0101.in": b""}, [1]),
        ({}, [1]),
        (ONE, [2]),
        (ONE, [1, 1]),
        (ONE, []),
    ],
)
def test_7_what_is_no_test_data_for_the_job_is_refused(
    tmp_path: Path, files: dict[str, bytes], counts: list[int]
) -> None:
    server = Server()
    server.problem(7, files)

    async def scenario(cache: Cache) -> None:
        for _ in range(2):
            with pytest.raises(Invalid):
                async with cache.testdata(7, counts):
                    pass

    run(server, tmp_path, scenario)


def test_7_an_archive_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: what the server sends is written to the disk however large it is."""
    monkeypatch.setattr(caching, "LARGEST_ARCHIVE", 1000)
    server = Server()
    server.problem(7, ONE | {"0102.in": b"x" * 1000, "0102.out": b""})

    async def scenario(cache: Cache) -> None:
        with pytest.raises(TooLarge):
            async with cache.testdata(7, [2]):
                pass

    run(server, tmp_path, scenario)


@pytest.mark.parametrize("which", ["checksum", "testdata"])
def test_a_problem_that_is_not_there(tmp_path: Path, which: str) -> None:
    server = Server()
    server.problem(7, ONE)
    del server.files[f"/problems/7/{which}"]

    async def scenario(cache: Cache) -> None:
        with pytest.raises(Unavailable, match="problem 7 cannot be had: HTTP 404"):
            async with cache.testdata(7, [1]):
                pass

    run(server, tmp_path, scenario)


def test_the_token_is_sent_for_both(tmp_path: Path) -> None:
    server = Server()
    server.problem(7, ONE)

    async def scenario(cache: Cache) -> None:
        async with cache.testdata(7, [1]):
            pass

    run(server, tmp_path, scenario)
    assert [(request.path, request.token) for request in server.requests[1:]] == [
        ("/problems/7/checksum", "rk_1"),
        ("/problems/7/testdata", "rk_1"),
    ]
    assert json.loads(server.files["/problems/7/checksum"])["data"]["checksum"] in kept(tmp_path)
