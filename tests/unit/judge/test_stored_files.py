"""Files in PostgreSQL: whole or not there, whichever server brings, reads or collects them meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

from windlass.database import Database
from windlass.errors import StoreUnavailable
from windlass.judge import stored_files
from windlass.judge.stored_files import CHUNK, StoredFiles
from windlass.judge.tables import SCHEMA, chunks, files, leftovers, migrate, now

LARGE = 20 * CHUNK + 1
"""Bytes of more than one commit's pieces."""


class Place:
    """Two servers' files in one database, and what is referred to."""

    def __init__(self, url: str, folder: Path) -> None:
        self.needed: set[str] = set()
        self.databases = [Database(url, migrate, owner="judge", schema=SCHEMA) for _ in range(2)]
        self.servers = [StoredFiles(each, self._needed, folder) for each in self.databases]

    def _needed(self, digests: Sequence[str], _: Connection) -> set[str]:
        return self.needed & {*digests}

    def later(self) -> None:
        """All that is held, or waits to be removed, is over."""

        def step(connection: Connection) -> None:
            connection.execute(update(files).values(held_until=0))
            connection.execute(update(leftovers).values(until=0))

        self.databases[1].change(step)

    def rows(self) -> tuple[int, int, int]:
        """How many files, pieces and leftovers there are."""
        count = [select(func.count()).select_from(table) for table in (files, chunks, leftovers)]
        one, two, three = self.databases[0].look(lambda c: [c.execute(each).scalar_one() for each in count])
        return one, two, three

    def close(self) -> None:
        for database in self.databases:
            database.close()


@pytest.fixture
def place(postgresql_url: str, tmp_path: Path) -> Iterator[Place]:
    made = Place(postgresql_url, tmp_path)
    yield made
    made.close()


def some(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def keep(store: StoredFiles, data: bytes, *, streamed: bool = False) -> str:
    if not streamed:
        with store.keep_bytes(data) as digest:
            return digest
    with store.incoming() as incoming:
        for at in range(0, len(data), 100_000):
            incoming.write(data[at : at + 100_000])
        with store.keep(incoming) as digest:
            return digest


def content(store: StoredFiles, digest: str) -> bytes:
    with store.open(digest) as file:
        return file.read()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, LARGE])
def test_what_one_server_keeps_another_reads(place: Place, size: int, streamed: bool) -> None:
    """Planted defects: a last piece that is left out; a number of a piece that is taken twice."""
    data = some(size)
    digest = keep(place.servers[0], data, streamed=streamed)
    assert digest == sha256(data).hexdigest()
    assert content(place.servers[1], digest) == data
    assert place.rows()[2] == 0
    with place.servers[1].open(digest) as file:
        assert file.read(100_000) + file.read(300_000) == data[:400_000]
        file.seek(-min(10, size), 2)
        assert file.read() == data[-10:]


def test_the_same_from_two_servers_is_one_file(place: Place) -> None:
    for streamed in (False, True):
        for server in place.servers:
            keep(server, some(LARGE), streamed=streamed)
    assert place.rows() == (1, 21, 0)
    assert place.servers[0].all() == [sha256(some(LARGE)).hexdigest()]


def meeting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whoever comes to this step first waits there for the other one, once."""
    met, step = threading.Barrier(2), getattr(stored_files, name)
    seen: set[int] = set()

    def late(*arguments: object) -> object:
        if threading.get_ident() not in seen and not met.broken:
            seen.add(threading.get_ident())
            met.wait(60)
        return step(*arguments)

    monkeypatch.setattr(stored_files, name, late)


@pytest.mark.parametrize(("size", "step"), [(10, "_new_content"), (LARGE, "_begin"), (LARGE, "_finish")])
def test_the_same_at_the_same_moment_is_one_file(
    place: Place, size: int, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: pieces under the file's SHA-256, so that one who comes later takes those of who has not
    finished, or never will, for all there are."""
    meeting(monkeypatch, step)
    errors: list[BaseException] = []

    def bring(server: StoredFiles) -> None:
        try:
            keep(server, some(size))
        except BaseException as error:  # noqa: BLE001 - it is for the test
            errors.append(error)

    threads = [threading.Thread(target=bring, args=(server,)) for server in place.servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    (digest,) = place.servers[0].all()
    assert content(place.servers[0], digest) == some(size)
    place.later()
    place.needed.add(digest)
    place.servers[0].tidy()
    assert place.rows() == (1, -(-size // CHUNK), 0)


def test_an_upload_that_breaks_off_is_no_file_and_is_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: a file whose end is missing; pieces that stay for ever."""

    def broken(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(stored_files, "_finish", broken)
        with pytest.raises(StoreUnavailable):
            keep(place.servers[0], some(LARGE))
    assert place.servers[1].all() == []
    with pytest.raises(FileNotFoundError):
        place.servers[1].open(sha256(some(LARGE)).hexdigest())
    place.servers[1].tidy()
    assert place.rows() == (0, 21, 1)  # who knows whether that server still writes
    place.later()
    monkeypatch.setattr(stored_files, "_CLEARED", 5)
    place.servers[1].tidy()
    assert place.rows() == (0, 0, 0)


def test_an_upload_that_was_taken_for_dead_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server stood still for an hour. Planted defect: a file without its pieces."""
    database = place.databases[0]
    for verb, name in (("beside", "_add"), ("change", "_finish")):
        call = getattr(database, verb)

        def late(step: Any, call: Any = call, name: str = name) -> Any:
            if getattr(step, "func", None) is getattr(stored_files, name):
                place.later()
                place.servers[1].tidy()
            return call(step)

        with monkeypatch.context() as patch:
            patch.setattr(database, verb, late)
            with pytest.raises(StoreUnavailable, match="too long"):
                keep(place.servers[0], some(LARGE))
        assert place.rows() == (0, 0, 0) if name == "_finish" else place.rows()[0] == 0


# --- collections ------------------------------------------------------------------------------------


def test_what_nobody_needs_goes_and_whoever_reads_it_has_the_whole(place: Place) -> None:
    """Planted defect: the pieces go with the file, under their reader."""
    one, other = place.servers
    digest, kept = keep(one, some(LARGE)), keep(one, b"kept")
    place.needed.add(kept)
    assert other.remove([digest, kept]) == 0  # both are held
    place.later()
    with one.open(digest) as file:
        begun = file.read(10)
        assert other.remove([digest, kept]) == 1
        other.tidy()
        assert begun + file.read() == some(LARGE)
    assert other.all() == [kept]
    again = one.open(kept)
    place.later()
    other.tidy()
    assert place.rows() == (1, 1, 0)
    again.close()


def test_a_reader_that_is_too_late_is_told(place: Place) -> None:
    """Planted defect: the file seems to end there."""
    one, other = place.servers
    digest = keep(one, some(LARGE))
    with one.open(digest) as file:
        file.read(10)
        for _ in range(2):
            place.later()
            other.remove([digest])
            other.tidy()
        with pytest.raises(StoreUnavailable):
            file.read()


def test_who_brings_again_what_another_server_is_about_to_collect_has_it(place: Place) -> None:
    """Planted defect: holds that only one server knows of."""
    one, other = place.servers
    digest = keep(one, b"abc")
    place.later()
    with one.keep_bytes(b"abc"):
        assert other.remove([digest]) == 0
    place.later()
    assert other.remove([digest]) == 1
    with one.keep_bytes(b"abc"):
        assert content(other, digest) == b"abc"


def test_what_is_being_referred_to_is_not_collected(place: Place) -> None:
    """By one whose hold is over: it stood still. Planted defect: no lock: what is referred to goes."""
    one, other = place.servers
    digest = keep(one, b"abc")
    place.later()

    def step(connection: Connection) -> None:
        one.refer(connection, digest)
        assert other.remove([digest]) == 0
        place.needed.add(digest)

    place.databases[0].change(step)
    assert other.remove([digest]) == 0
    place.needed.clear()
    assert other.remove([digest]) == 1
    with pytest.raises(StoreUnavailable, match="send it again"):
        place.databases[0].change(lambda connection: one.refer(connection, digest))


def test_what_is_needed_is_looked_up_once_nobody_can_refer_to_more(place: Place) -> None:
    """Planted defect: a look before the lock: what is referred to between the two goes."""
    one = place.servers[0]
    digest = keep(one, b"abc")
    place.later()
    free = select(files.c.digest).with_for_update(read=True, key_share=True, skip_locked=True)
    looks: list[object] = []

    def needed(_: Sequence[str], __: Connection) -> set[str]:
        looks.append(place.databases[1].look(lambda c: c.execute(free).first()))
        return set()

    one._needed = needed
    assert one.remove([digest]) == 1
    assert looks == [None]


def test_the_databases_time_is_everybodys(place: Place) -> None:
    moments = [database.look(now) for database in place.databases]
    assert moments[0] <= moments[1] < moments[0] + 60_000


def test_what_is_on_its_way_has_no_name_on_this_machine(place: Place, tmp_path: Path) -> None:
    """Planted defect: a file that a killed server leaves, or one that another process of ours sweeps away."""
    with place.servers[0].incoming() as incoming:
        incoming.write(b"abc" * 100_000)
        incoming.finish()
        assert [*tmp_path.iterdir()] == []
        assert incoming.content().read() == b"abc" * 100_000
