"""The data directory: one process, no newer version, and damage that is named at the start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import apsw
import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import opened
from windlass.clock import ManualClock
from windlass.errors import StartError, StoreDamaged, StoreLocked, StoreTooNew
from windlass.store.sqlite import files

DATABASE = files.DATABASE
LOG = files.DATABASE + "-wal"


def killed(bench: Bench, to: Path) -> Path:
    """What a kill leaves: the files as they are now."""
    shutil.copytree(bench.directory, to)
    return to


def refused(directory: Path) -> str:
    with pytest.raises(StoreDamaged) as error:
        opened(directory, ManualClock())
    return error.value.detail


def test_a_second_process_is_refused_and_told_whose_it_is(bench: Bench) -> None:
    """Fails when two processes open one directory, or the first one's lock outlives it."""
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        opened(bench.directory, ManualClock())
    bench.reopen()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Fails when a file in the way ends in a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="--data-dir"):
        opened(tmp_path / "file" / "data", ManualClock())


def test_a_newer_version_is_refused_and_left_as_it_is(bench: Bench, tmp_path: Path) -> None:
    """Fails when an older program writes into tables that it does not know."""
    bench.create("q")
    directory = killed(bench, tmp_path / "newer")
    db = apsw.Connection(str(directory / DATABASE))
    db.execute("INSERT INTO schema_version VALUES (9999, '')")
    db.close()
    with pytest.raises(StoreTooNew, match="9999"):
        opened(directory, ManualClock())


def test_the_same_file_opens_again_and_again(bench: Bench) -> None:
    """Fails when a migration runs twice."""
    for _ in range(3):
        bench.reopen()
    versions = apsw.Connection(str(bench.directory / DATABASE)).execute("SELECT version FROM schema_version")
    assert versions.fetchall() == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("keep", [50, 4096, 20_000])
def test_a_truncated_database_is_refused(bench: Bench, tmp_path: Path, keep: int) -> None:
    """Fails when a database without its end opens, with its log beside it or not."""
    bench.create("q")
    bench.send("q", *[b'"%s"' % (b"x" * 1_000)] * 200)
    bench.reopen()  # all is in the database now
    for name in ("alone", "with a log"):
        directory = killed(bench, tmp_path / name)
        os.truncate(directory / DATABASE, keep)
        if name == "alone":
            (directory / LOG).unlink(missing_ok=True)
        assert "damaged" in refused(directory)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Fails when it is overwritten instead."""
    (tmp_path / DATABASE).write_bytes(b"not a database" * 1_000)
    assert "damaged" in refused(tmp_path)
    assert (tmp_path / DATABASE).read_bytes().startswith(b"not a database")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_log_damaged_before_its_end_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Fails when acknowledged commits behind a broken frame are dropped without a word."""
    bench.create("q")
    for _ in range(10):
        bench.send("q", b"1")
    directory = killed(bench, tmp_path / "flipped")
    flip(directory / LOG, 32 + 5 * (24 + 8192) + 1_000)
    assert "behind a broken one" in refused(directory)


def test_a_log_torn_at_its_end_is_not(bench: Bench, tmp_path: Path) -> None:
    """Fails when a power cut in the middle of the last commit keeps the store from opening."""
    bench.create("q")
    bench.send("q", b"1")
    size = (bench.directory / LOG).stat().st_size
    bench.send("q", *[b'"%s"' % (b"x" * 3_000)] * 5)
    directory = killed(bench, tmp_path / "torn")
    os.truncate(directory / LOG, size + 24 + 8192 + 100)
    store = opened(directory, ManualClock())
    assert store.ready("q") == 1
    store.close()
    directory = killed(bench, tmp_path / "flipped at its end")
    flip(directory / LOG, size + 1_000)
    store = opened(directory, ManualClock())
    assert store.ready("q") == 1
    store.close()


def test_ends_of_commits_that_failed_are_no_damage() -> None:
    """Fails when what failed commits left in the log is taken for commits that were acknowledged."""
    page, salt = bytes(8192), b"saltsalt"

    def frame(before: bytes, commit: int) -> bytes:
        head = (1).to_bytes(4) + commit.to_bytes(4)
        low, high = int.from_bytes(before[16:20]), int.from_bytes(before[20:24])
        for at in range(0, len(head + page), 8):
            even, odd = (int.from_bytes((head + page)[at + n : at + n + 4], "little") for n in (0, 4))
            low = (low + even + high) & 0xFFFFFFFF
            high = (high + odd + low) & 0xFFFFFFFF
        return head + salt + low.to_bytes(4) + high.to_bytes(4) + page

    def run(start: int, *commits: int) -> list[bytes]:
        frames = [bytes(16) + start.to_bytes(8) + page]
        for commit in commits:
            frames.append(frame(frames[-1], commit))
        return frames[1:]

    assert files._commits_in_a_run(run(1, 0, 5, 0, 6, 7), "<") == 3
    assert files._commits_in_a_run([*run(1, 0, 5), *run(2, 0, 6), *run(3, 0, 7)], "<") == 1
    assert files._commits_in_a_run([], "<") == 0
