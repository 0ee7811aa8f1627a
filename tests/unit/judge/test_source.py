"""Sources as people send them, and as nobody should."""

from __future__ import annotations

import contextlib
import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.judge.test_testdata import Files, packed, with_mode
from windlass.errors import Invalid, TooLarge
from windlass.judge.languages import LANGUAGES
from windlass.judge.source import MAX_SOURCE, is_archive, pack_source, read_source

C, CPP = LANGUAGES[0], LANGUAGES[1]


@given(content=st.binary(max_size=1000))
@example(content=b"")
@example(content=b"\0")
@example(content=b"\r\n")
@example(content="\ufeffint x;".encode())
def test_a_source_comes_as_it_was_whatever_its_bytes(content: bytes) -> None:
    archive = pack_source(content, C)
    assert is_archive(archive)
    assert read_source(io.BytesIO(archive), C) == content
    assert pack_source(content, C) == archive


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "main.c is missing"),
        ({"main.cpp": b""}, "no place"),
        ({"main.c": b"", "util.h": b""}, "no place"),
        ({"src/main.c": b""}, "no place"),
        ({"../main.c": b""}, "no place"),
        ({"/main.c": b""}, "no place"),
        ({"main.c/": b""}, "no place"),
        ({"main.c.": b""}, "no place"),
        ({"..\\main.c": b""}, "no place"),
        ({"MAIN.C": b""}, "no place"),
        ({with_mode("main.c", stat.S_IFLNK | 0o777): b"/etc/passwd"}, "no place"),
        ({with_mode("main.c", stat.S_IFCHR | 0o777): b""}, "no place"),
        ({"main.c": b"", with_mode("main.c", 0): b""}, "twice"),
    ],
)
def test_what_has_no_place_is_named(files: Files, complaint: str) -> None:
    """Planted defects: the first file taken for the source; a link that is read."""
    with pytest.raises(Invalid, match=complaint) as error:
        read_source(packed(files), C)
    assert error.value.field == "source"


def test_ten_megabytes_are_read_and_one_byte_more_is_not() -> None:
    """Planted defect: a size that nobody counts, so that a few kilobytes fill the memory."""
    largest, larger = b" " * MAX_SOURCE, b" " * (MAX_SOURCE + 1)
    assert len(read_source(packed({"main.c": largest}), C)) == MAX_SOURCE
    with pytest.raises(TooLarge, match="10 MiB"):
        read_source(packed({"main.c": larger}), C)
    assert read_source(io.BytesIO(pack_source(largest, C)), C) == largest
    with pytest.raises(TooLarge, match="10 MiB"):
        pack_source(larger, C)


@pytest.mark.parametrize("content", [b"", b"main(){}", b"PK\x05\x06", b"PK\x03\x04" * 100])
def test_what_is_no_zip_is_told(content: bytes) -> None:
    with pytest.raises(Invalid, match="no zip"):
        read_source(io.BytesIO(content), C)


@pytest.mark.parametrize("pack", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing_is_refused(pack: int) -> None:
    with pytest.raises(Invalid, match="unusual"):
        read_source(packed({"main.c": b"x"}, pack), C)


def test_an_encrypted_archive_is_refused() -> None:
    """Planted defect: no look at the flag, and what zipfile raises reaches the client."""
    data = bytearray(pack_source(b"int x;", C))
    data[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(Invalid, match="encrypted"):
        read_source(io.BytesIO(data), C)


@pytest.mark.parametrize("on_disk", [False, True])
def test_damaged_archives_are_refused_or_read(on_disk: bool, tmp_path: Path) -> None:
    """Every bit of an archive turned, one at a time.

    Planted defects: an exception of zipfile's that nobody translates; a place before the begin of the file.
    """
    archive = pack_source(b"int main(void) { return 0; }" * 5, CPP)
    file = tmp_path / "source.zip"
    for at in range(8 * len(archive)):
        data = bytearray(archive)
        data[at >> 3] ^= 1 << (at & 7)
        if on_disk:
            file.write_bytes(data)
        with contextlib.suppress(Invalid, TooLarge):
            read_source(file if on_disk else io.BytesIO(data), CPP)


@given(cut=st.integers(0, 2_000))
def test_archives_that_were_cut_off_are_refused(cut: int) -> None:
    data = pack_source(b"int main(void) { return 0; }" * 5, CPP)
    with pytest.raises(Invalid):
        read_source(io.BytesIO(data[: cut % len(data)]), CPP)


@given(content=st.binary(min_size=1, max_size=300), at=st.integers(0, 400), other=st.binary(max_size=4))
def test_archives_that_were_written_over_are_refused_or_read(content: bytes, at: int, other: bytes) -> None:
    """Fails when any damage of an archive raises what no client should see."""
    good = pack_source(content, C)
    for data in (content, good[:at] + other + good[at + len(other) :]):
        with contextlib.suppress(Invalid, TooLarge):
            read_source(io.BytesIO(data), C)
