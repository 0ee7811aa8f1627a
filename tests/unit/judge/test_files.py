"""Files by what is in them: whole or not there, never removed under a reader, never lost."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from windlass.errors import StoreFull
from windlass.judge.files import DiskFiles


@pytest.fixture
def files(tmp_path: Path) -> DiskFiles:
    return DiskFiles(tmp_path / "files")


def keep(files: DiskFiles, data: bytes) -> str:
    with files.keep_bytes(data) as digest:
        return digest


def content(files: DiskFiles, digest: str) -> bytes:
    with files.open(digest) as file:
        return file.read()


def test_what_is_kept_is_found_by_its_checksum(files: DiskFiles) -> None:
    digest = keep(files, b"abc")
    assert digest == sha256(b"abc").hexdigest()
    assert content(files, digest) == b"abc"
    assert content(DiskFiles(files._root), digest) == b"abc"


def test_the_same_twice_is_one_file(files: DiskFiles) -> None:
    assert keep(files, b"abc") == keep(files, b"abc")
    assert len(files.all()) == 1


def test_a_file_in_parts_is_the_file_whole(files: DiskFiles) -> None:
    with files.incoming() as incoming:
        incoming.write(b"ab")
        incoming.write(b"c")
        with files.keep(incoming) as digest:
            assert digest == sha256(b"abc").hexdigest()
            assert incoming.size == 3


def test_what_is_not_kept_is_gone(files: DiskFiles) -> None:
    """Planted defect: a refused upload of a gigabyte that stays."""
    with files.incoming() as incoming:
        incoming.write(b"abc")
    assert incoming.path is not None
    assert not incoming.path.exists()
    assert files.all() == []


def test_what_a_crash_left_half_written_is_swept_and_the_rest_stays(files: DiskFiles) -> None:
    """Planted defect: no sweep, so that each crash costs its upload's size for ever."""
    digest = keep(files, b"whole")
    crashed = files.incoming()
    crashed.write(b"half")
    crashed._file.flush()
    again = DiskFiles(files._root)
    assert crashed.path is not None
    assert not crashed.path.exists()
    assert content(again, digest) == b"whole"
    crashed._file.close()


def test_an_unneeded_file_is_removed(files: DiskFiles) -> None:
    one, other = keep(files, b"1"), keep(files, b"2")
    assert sorted(files.all()) == sorted([one, other])
    assert files.remove([one]) == 1
    assert files.all() == [other]


def test_a_reader_keeps_what_it_reads(files: DiskFiles) -> None:
    digest = keep(files, b"abc" * 100_000)
    files.all()
    with files.open(digest) as file:
        start = file.read(10)
        files.remove([digest])
        assert start + file.read() == b"abc" * 100_000
    with pytest.raises(FileNotFoundError):
        files.open(digest)


def test_what_is_held_is_not_removed(files: DiskFiles) -> None:
    """Planted defect: collecting a file that is about to be referred to."""
    with files.keep_bytes(b"abc") as digest:
        assert digest in files.all()
        assert files.remove([digest]) == 0
    assert content(files, digest) == b"abc"


def test_what_was_held_since_the_collection_began_is_not_removed(files: DiskFiles) -> None:
    """Planted defect: the same data comes again between the collector's look and its knife."""
    digest = keep(files, b"abc")
    files.all()
    keep(files, b"abc")  # and referred to: the collector has looked before
    assert files.remove([digest]) == 0
    files.all()
    assert files.remove([digest]) == 1


def test_what_is_held_across_the_beginning_of_a_collection_is_not_removed(files: DiskFiles) -> None:
    """Planted defect: counting holds at the time of removal alone."""
    with files.keep_bytes(b"abc") as digest:
        files.all()
    assert files.remove([digest]) == 0


def test_a_full_disk_is_said(files: DiskFiles) -> None:
    full = files.incoming()
    full._file.close()
    full._file = Path("/dev/full").open("wb")  # noqa: SIM115 - it stands for the incoming file
    with pytest.raises(StoreFull):
        full.write(b"abc" * 100_000)
    full.__exit__()
    assert files.all() == []
