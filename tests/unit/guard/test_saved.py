"""Where a filter's stored form is kept: whole, or as it was; and what cannot be one is refused unread."""

from __future__ import annotations

import errno
import os
import tracemalloc
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from fakeredis import FakeRedis

from windlass.errors import FilterStateRefused, StartError, StoreFull, StoreUnavailable
from windlass.guard.bloom import BloomFilter
from windlass.guard.redis import connect
from windlass.guard.saved import MAX_STATE, InRedis, OnDisk, Storage

SECRET = bytes(range(32))
_numbers = count()


def small(*keys: str, items: int = 5000) -> BloomFilter:
    bloom = BloomFilter(SECRET, expected_items=items)
    bloom.update(keys)
    return bloom


def held(storage: Storage) -> BloomFilter:
    state = storage.load()
    assert state is not None
    return BloomFilter.load(state, SECRET)


@pytest.fixture
def client() -> redis.Redis:
    return connect(f"fakeredis://{next(_numbers)}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.filter"


@pytest.fixture(params=["disk", "redis"])
def storage(request: pytest.FixtureRequest) -> Storage:
    if request.param == "disk":
        return OnDisk(request.getfixturevalue("path"))
    return InRedis(request.getfixturevalue("client"), "bloom:filter")


# --- both -----------------------------------------------------------------------------------------


def test_what_is_put_is_there_and_what_changes_too(storage: Storage) -> None:
    assert storage.load() is None
    bloom = small("a")
    storage.replace(bloom.dump())
    assert storage.load() == bloom.dump()
    for number in range(100):
        bloom.add(f"more-{number}")
        bloom.mark = str(number).encode()
        storage.patch(bloom.changes())
    assert all(f"more-{number}" in held(storage) for number in range(100))
    assert held(storage).mark == b"99"
    assert storage.load() == bloom.dump()
    assert not storage.taken()


def test_a_filter_that_grows_is_patched(storage: Storage) -> None:
    bloom = small(items=10)
    storage.replace(bloom.dump())
    bloom.update(f"key-{number}" for number in range(500))
    storage.patch(bloom.changes())
    assert held(storage).stats().layers > 1
    assert storage.load() == bloom.dump()


def test_what_is_larger_than_can_be_kept_is_not_written(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bloom = small("a")
    storage.replace(bloom.dump())
    monkeypatch.setattr("windlass.guard.saved.MAX_STATE", 1000)
    with pytest.raises(StoreFull, match="no more than 1000 are kept"):
        storage.replace(bloom.dump())
    with pytest.raises(FilterStateRefused, match="no more than 1000 are read"):
        storage.load()


# --- on disk --------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the disk, in order."""
    heard: list[str] = []
    pwrite, fdatasync, fsync, replace = os.pwrite, os.fdatasync, os.fsync, Path.replace

    def write(handle: int, data: bytes, offset: int) -> int:
        heard.append("bits" if offset else "header")
        return pwrite(handle, data, offset)

    def sync(handle: int) -> None:
        heard.append("sync")
        fdatasync(handle)

    def sync_all(handle: int) -> None:
        heard.append("sync folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "sync file")  # noqa: PTH112
        fsync(handle)

    def rename(self: Path, target: Path) -> Path:
        heard.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(os, "fsync", sync_all)
    monkeypatch.setattr(Path, "replace", rename)
    return heard


def test_bits_are_on_disk_before_the_header_that_tells_of_them(path: Path, calls: list[str]) -> None:
    """Planted defect: one sync, at the end: a power cut may leave the header alone."""
    storage, bloom = OnDisk(path), small()
    storage.replace(bloom.dump())
    assert calls == ["sync file", "rename", "sync folder"]
    calls.clear()
    bloom.add("a")
    storage.patch(bloom.changes())
    assert [call for call, before in zip(calls, [None, *calls], strict=False) if call != before] == [
        "bits", "sync", "header", "sync",
    ]  # fmt: skip


def test_nobody_else_may_read_it(path: Path) -> None:
    """Planted defect: a file made with the usual mode."""
    before = os.umask(0)
    try:
        OnDisk(path).replace(small().dump())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_gigabyte_is_refused_before_it_is_read(path: Path) -> None:
    """Planted defect: no look at the size."""
    with path.open("wb") as file:
        file.write(small("a").dump())
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(FilterStateRefused, match=f"has {1 << 30} bytes"):
            OnDisk(path).load()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert MAX_STATE < 1 << 30


def test_what_is_no_file_is_refused(path: Path) -> None:
    """Planted defect: a pipe that is opened as a file is waited for without end."""
    os.mkfifo(path)
    with pytest.raises(FilterStateRefused, match="no file"):
        OnDisk(path).load()
    path.unlink()
    path.mkdir()
    with pytest.raises(FilterStateRefused, match="no file"):
        OnDisk(path).load()
    with pytest.raises(StoreUnavailable, match="directory"):
        OnDisk(path).replace(small().dump())
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208


def test_a_link_is_replaced_and_not_followed(path: Path, tmp_path: Path) -> None:
    """Planted defect: the new file opened over what has its name."""
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / "state.filter.new").symlink_to(other)
    OnDisk(path).replace(small("a").dump())
    assert other.read_text() == "precious"
    assert "a" in held(OnDisk(path))


class Full:
    """A disk that takes no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("fsync", "pwrite"):
            monkeypatch.setattr(os, name, self._fail)

    def _fail(self, *_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_the_old_one_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: written over the old one; the half-written file left behind."""
    storage, bloom = OnDisk(path), small("a")
    storage.replace(bloom.dump())
    with monkeypatch.context() as patch:
        Full(patch)
        bloom.add("b")
        with pytest.raises(StoreFull, match="is full"):
            storage.replace(bloom.dump())
        bloom.add("c")
        with pytest.raises(StoreFull, match="is full"):
            storage.patch(bloom.changes())
    assert "a" in held(storage)
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208
    storage.replace(bloom.dump())
    assert {"b", "c"} <= {key for key in "bc" if key in held(storage)}


def test_a_write_that_is_cut_short_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: what pwrite returns not looked at."""
    storage, bloom = OnDisk(path), small("a")
    storage.replace(bloom.dump())
    bloom.add("b")
    monkeypatch.setattr(os, "pwrite", lambda _, data, __: len(data) // 2)
    with pytest.raises(StoreFull):
        storage.patch(bloom.changes())


def test_a_file_that_is_gone_is_not_made_of_patches(path: Path) -> None:
    """Planted defect: O_CREAT."""
    storage, bloom = OnDisk(path), small("a")
    storage.replace(bloom.dump())
    path.unlink()
    bloom.add("b")
    with pytest.raises(StoreUnavailable):
        storage.patch(bloom.changes())
    assert storage.load() is None


# --- in Redis -------------------------------------------------------------------------------------


def evicted(client: redis.Redis) -> None:
    client.delete("k")


def foreign(client: redis.Redis) -> None:
    client.set("k", "x" * 5000)


def another(client: redis.Redis) -> None:
    client.set("k", small("x").dump())


def patched_by_another(client: redis.Redis) -> None:
    there = InRedis(client, "k")
    bloom = held(there)
    bloom.add("x")
    there.patch(bloom.changes())


def of_another_type(client: redis.Redis) -> None:
    client.delete("k")
    client.lpush("k", "x")


@pytest.mark.parametrize("harm", [evicted, foreign, another, patched_by_another, of_another_type])
def test_a_value_that_is_not_ours_is_not_patched(client: redis.Redis, harm: Any) -> None:
    """Planted defect: SETRANGE whatever is there: zeros with a header, or two filters mixed."""
    storage, bloom = InRedis(client, "k"), small("a")
    storage.replace(bloom.dump())
    harm(client)
    before = client.dump("k")
    bloom.add("b")
    with pytest.raises(FilterStateRefused):
        storage.patch(bloom.changes())
    assert client.dump("k") == before
    assert not storage.taken()  # whoever did that is not at it any more
    storage.replace(bloom.dump())
    assert storage.load() == bloom.dump()


def test_another_who_writes_while_we_do_is_noticed(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: no WATCH: a look, and then a write over what came between."""
    storage, bloom = InRedis(client, "k"), small("a")
    storage.replace(bloom.dump())
    bloom.add("b")
    multi = redis.client.Pipeline.multi

    def late(self: Any) -> None:
        another(client)
        multi(self)

    monkeypatch.setattr(redis.client.Pipeline, "multi", late)
    with pytest.raises(FilterStateRefused, match="at this moment"):
        storage.patch(bloom.changes())
    assert "x" in held(storage)


def test_one_who_keeps_it_is_seen(client: redis.Redis) -> None:
    """Planted defect: none: two servers would write the whole of it in turns, without end."""
    ours, theirs, bloom = InRedis(client, "k"), InRedis(client, "k"), small("a")
    ours.replace(bloom.dump())
    theirs.replace(bloom.dump())
    assert not ours.taken()  # it is as we left it
    bloom.add("b")
    theirs.patch(bloom.changes())
    assert ours.taken()
    assert not ours.taken()  # they have written nothing since
    evicted(client)
    assert not ours.taken()


def test_a_value_too_large_is_refused_before_it_is_fetched(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(client)
    monkeypatch.setattr("windlass.guard.saved.MAX_STATE", 4999)
    monkeypatch.setattr(type(client), "get", None)
    with pytest.raises(FilterStateRefused, match="has 5000 bytes"):
        InRedis(client, "k").load()


def test_a_value_of_another_type_is_refused(client: redis.Redis) -> None:
    of_another_type(client)
    with pytest.raises(FilterStateRefused, match="no string"):
        InRedis(client, "k").load()


# --- the URL --------------------------------------------------------------------------------------


def test_fakes_of_one_name_are_one() -> None:
    connect("fakeredis://one").set("a", b"\xff")
    assert connect("fakeredis://one").get("a") == b"\xff"
    assert connect("fakeredis://other").get("a") is None


def test_the_client_is_the_one_that_from_url_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: more than the URL is asked for, which a client of one's own is not told."""
    own = FakeRedis()
    monkeypatch.setattr(redis, "from_url", lambda url: own if url == "redis://shop" else None)
    assert connect("redis://shop") is own


def test_nobody_waits_long_for_redis_unless_the_url_says_so() -> None:
    def options(url: str) -> list[object]:
        given = connect(url).connection_pool.connection_kwargs
        return [given[name] for name in ("socket_timeout", "socket_connect_timeout")]

    assert options("redis://shop") == [2.0, 2.0]
    assert options("redis://shop?socket_timeout=7") == [7.0, 2.0]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "no URL of a Redis"),
        ("nonsense", "no URL of a Redis"),
        ("http://a", "no URL of a Redis"),
        ("redis://:secret@host:99999", "no URL of a Redis"),
        ("redis://:secret@host:port", "no URL of a Redis"),
        ("redis://host?socket_timeout=x", "no URL of a Redis"),
        ("redis://host?decode_responses=true", "decode_responses"),
    ],
)
def test_what_is_no_url_is_refused_without_its_password(url: str, why: str) -> None:
    with pytest.raises(StartError, match=why) as refused:
        connect(url)
    assert "secret" not in refused.value.detail


def test_a_fake_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fakeredis", None)
    with pytest.raises(StartError, match="not installed"):
        connect("fakeredis://")
