"""A database or WAL that is corrupt, truncated, of a newer version or in use: refused in one clear line, or
recovered as far as SQLite's rules go; never a traceback, and never silently empty."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from tests.harness import ServerProcess, until
from tests.storm.faces import Face, over_both
from tests.storm.talk import assert_refuses, client, create, database, peek_all, send_all

pytestmark = pytest.mark.storm

CONTENTS = [f"{number} {'x' * 500}" for number in range(300)]
PAGE = 8192


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after a graceful stop: everything is in the database file."""
    data_dir = tmp_path_factory.mktemp("stopped") / "data"
    with ServerProcess(data_dir) as server, client(server) as http:
        create(http)
        send_all(http, CONTENTS)
        assert server.terminate() == 0
    return data_dir


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after a kill: most of it is in the WAL."""
    data_dir = tmp_path_factory.mktemp("killed") / "data"
    with ServerProcess(data_dir) as server, client(server) as http:
        create(http)
        send_all(http, CONTENTS)
        server.kill()
    assert wal(data_dir).stat().st_size > 10 * PAGE
    return data_dir


def wal(data_dir: Path) -> Path:
    return database(data_dir).with_name(database(data_dir).name + "-wal")


def copy(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "data", ignore=shutil.ignore_patterns("*.sock", "*-shm")))


def overwrite(path: Path, position: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        old = file.read(length)
        file.seek(position)
        file.write(bytes(byte ^ 0x5A for byte in old))


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@contextlib.contextmanager
def started_or_refused(data_dir: Path) -> Iterator[ServerProcess]:
    """A server that runs, or has refused to with a word about the directory; never with a traceback."""
    server = ServerProcess(data_dir)
    server.launch()
    try:
        until(lambda: server.ready_file.exists() or not server.running, 60, "a start or a refusal")
        if not server.running:
            assert str(data_dir) in server.log
        yield server
        assert "Traceback" not in server.log, server.log
    finally:
        server.kill()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "the header": lambda path: overwrite(path, 0, 100),
    "the magic": lambda path: overwrite(path, 3, 1),
    "every page but the first": lambda path: overwrite(path, PAGE, path.stat().st_size),
    "the first page": lambda path: overwrite(path, 100, PAGE - 100),
    "cut to half": lambda path: truncate(path, path.stat().st_size // 2 // PAGE * PAGE),
    "cut inside a page": lambda path: truncate(path, path.stat().st_size - 1_000),
    "cut to one page": lambda path: truncate(path, PAGE),
    "cut to fifty bytes": lambda path: truncate(path, 50),
    "another file": lambda path: (path.write_text("This is no database.\n" * 1_000), None)[1],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database_is_refused(stopped: Path, tmp_path: Path, damage: str) -> None:
    """Planted: a start that makes a new database when it cannot read the old one; a traceback."""
    data_dir = copy(stopped, tmp_path)
    file = database(data_dir)
    DAMAGE[damage](file)
    damaged = file.read_bytes()
    assert_refuses(ServerProcess(data_dir), str(file))
    assert file.read_bytes() == damaged, "a start that is refused changes nothing"


def test_an_emptied_database_is_not_silently_empty(stopped: Path, tmp_path: Path) -> None:
    """SQLite takes a file of no bytes for a valid, empty database. Planted: a start that does too."""
    data_dir = copy(stopped, tmp_path)
    file = database(data_dir)
    truncate(file, 0)
    assert_refuses(ServerProcess(data_dir), str(file))


def test_a_log_without_its_database_is_refused(killed: Path, tmp_path: Path) -> None:
    """SQLite would make a new database and drop the log. Planted: a start that lets it."""
    data_dir = copy(killed, tmp_path)
    file = database(data_dir)
    log = wal(data_dir).read_bytes()
    file.unlink()
    assert_refuses(ServerProcess(data_dir), str(file))
    assert file.with_name(file.name + "-wal").read_bytes() == log


def test_a_database_of_a_newer_version_is_refused_unchanged(stopped: Path, tmp_path: Path) -> None:
    """Planted: a start that uses tables it does not know."""
    data_dir = copy(stopped, tmp_path)
    file = database(data_dir)
    with contextlib.closing(apsw.Connection(str(file))) as newer:
        newer.execute("INSERT INTO schema_version VALUES (9999, datetime('now'))")
    before = file.read_bytes()
    assert_refuses(ServerProcess(data_dir), str(file), "9999")
    assert file.read_bytes() == before


@over_both
@pytest.mark.parametrize("page", range(2, 40, 3))
def test_one_damaged_page_never_gives_a_wrong_answer(
    stopped: Path, tmp_path: Path, page: int, over: type[Face]
) -> None:
    """Found at the start or when it is read: 503, a true message, a refusal. Planted: a 500; a traceback."""
    data_dir = copy(stopped, tmp_path)
    overwrite(database(data_dir), (page - 1) * PAGE, PAGE)
    with started_or_refused(data_dir) as server:
        if server.running:
            with client(server) as http:
                queue = over(http)
                for _ in range(len(CONTENTS) // 10 + 5):
                    answer = queue.receive(10, lease=600)
                    if not answer.is_success:
                        assert answer.status_code == 503 or queue.is_unknown(answer), answer.text
                        break
                    assert {each.content for each in queue.taken(answer)} <= set(CONTENTS)
            assert server.running


WAL_DAMAGE: dict[str, Callable[[Path], None]] = {
    "a byte in the middle": lambda path: overwrite(path, path.stat().st_size // 2, 1),
    "the second half": lambda path: overwrite(path, path.stat().st_size // 2, path.stat().st_size),
    "cut to half": lambda path: truncate(path, path.stat().st_size // 2),
    "cut inside the last frame": lambda path: truncate(path, path.stat().st_size - 1_000),
    "the header": lambda path: overwrite(path, 0, 32),
    "cut to nothing": lambda path: truncate(path, 0),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", WAL_DAMAGE)
def test_a_damaged_wal_gives_what_is_whole_or_is_refused(killed: Path, tmp_path: Path, damage: str) -> None:
    """The messages up to the damage, without a hole, or a refusal; if none is left, a word about it.

    Planted: a start that reads past the damage; one that is silently empty.
    """
    data_dir = copy(killed, tmp_path)
    file = wal(data_dir)
    WAL_DAMAGE[damage](file)
    with started_or_refused(data_dir) as server:
        if server.running:
            with client(server) as http:
                there = http.get("/queues/q").status_code == 200
                recovered = peek_all(http) if there else []
            assert recovered == CONTENTS[: len(recovered)]
            assert recovered or file.name in server.log, f"silently empty:\n{server.log}"


def test_a_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """Planted: no lock file; a lock that a kill leaves behind."""
    data_dir = tmp_path / "data"
    with ServerProcess(data_dir) as first, client(first) as http:
        create(http)
        send_all(http, ["a"])
        second = ServerProcess(data_dir)
        second.log_path = tmp_path / "second.log"
        second.ready_file = tmp_path / "second.ready"
        assert_refuses(second, str(data_dir))
        assert peek_all(http) == ["a"]
        first.kill()
        with second, client(second) as other:
            assert peek_all(other) == ["a"]
