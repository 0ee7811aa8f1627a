"""Test data as people upload it, and as nobody should."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import Invalid, TooLarge
from windlass.judge import testdata
from windlass.judge.testdata import Case, cases_of, programs_of, unpack

Files = dict[str | zipfile.ZipInfo, bytes]

GOOD: Files = {
    "0101.in": b"1\n",
    "0101.out": b"2\n",
    "0102.in": b"",
    "0102.out": b"",
    "0201.in": b"3",
    "0201.out": b"4",
}


def packed(files: Files, pack: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", pack) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


def test_cases_come_in_order_and_files_as_they_were(tmp_path: Path) -> None:
    archive = packed(dict(reversed(GOOD.items())))
    cases = [Case(1, 1), Case(1, 2), Case(2, 1)]
    assert cases_of(archive) == cases_of(archive, [2, 1]) == cases
    assert unpack(archive, tmp_path, [2, 1]) == cases
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == GOOD


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"../0103.in": b""}, "0103"),
        ({"/etc/passwd": b""}, "passwd"),
        ({"a/0103.in": b""}, "no place"),
        ({"0103.in/": b""}, "no place"),
        ({"103.in": b""}, "no place"),
        ({"0103.in\n": b""}, "no place"),
        ({"\u0660\u06613\u0663.in": b""}, "no place"),
        ({"0103.IN": b""}, "no place"),
        ({".DS_Store": b""}, "no place"),
        ({"checker.c": b""}, "no place"),
        ({"Checker.cpp": b""}, "no place"),
        ({"data/checker.cpp": b""}, "no place"),
        ({with_mode("checker.cpp", stat.S_IFLNK | 0o777): b"/etc/passwd"}, "no place"),
        ({"interactor.cpp": b"", with_mode("interactor.cpp", 0): b""}, "twice"),
        ({with_mode("0103.in", stat.S_IFLNK | 0o777): b"/etc/passwd", "0103.out": b""}, "no place"),
        ({with_mode("0103.in", stat.S_IFIFO | 0o777): b"", "0103.out": b""}, "no place"),
        ({with_mode("0103.in", stat.S_IFCHR | 0o777): b"", "0103.out": b""}, "no place"),
        ({with_mode("0101.in", 0): b"again"}, "twice"),
        ({"0103.in": b""}, "0103.out is missing"),
        ({"0103.out": b""}, "0103.in is missing"),
        ({"0104.in": b"", "0104.out": b""}, "follow"),
        ({"0100.in": b"", "0100.out": b""}, "follow"),
        ({"0001.in": b"", "0001.out": b""}, "follow"),
        ({"0401.in": b"", "0401.out": b""}, "Task 03"),
    ],
)
def test_what_has_no_place_is_named_and_nothing_leaves_the_directory(
    change: Files, complaint: str, tmp_path: Path
) -> None:
    """Planted defects: names joined to the directory unseen; a link that is unpacked; a missing case."""
    inside = tmp_path / "inside"
    inside.mkdir()
    archive = packed({**GOOD, **change})
    attempts: list[Callable[[], object]] = [lambda: cases_of(archive), lambda: unpack(archive, inside)]
    for attempt in attempts:
        with pytest.raises(Invalid, match=complaint) as error:
            attempt()
        assert error.value.field == "testdata"
    assert list(inside.iterdir()) == []
    assert list(tmp_path.iterdir()) == [inside]


@pytest.mark.parametrize("counts", [[2], [2, 2], [1, 1], [2, 1, 1], []])
def test_missing_and_extra_cases_are_refused(counts: list[int]) -> None:
    with pytest.raises(Invalid, match="the problem says"):
        cases_of(packed(GOOD), counts)


def test_no_case_is_no_test_data() -> None:
    """Planted defect: a job with zero cases, which never ends or is always right."""
    archives: list[Files] = [{}, {"checker.cpp": b"int main() {}"}]
    for files in archives:
        with pytest.raises(Invalid, match="no case"):
            cases_of(packed(files))


def test_the_programs_of_a_problem_travel_with_its_cases(tmp_path: Path) -> None:
    programs: Files = {"checker.cpp": b"int main() {}", "interactor.cpp": b"int main() { return 1; }"}
    archive = packed({**programs, **GOOD})
    assert cases_of(archive, [2, 1]) == unpack(archive, tmp_path, [2, 1])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {**GOOD, **programs}
    assert programs_of(archive) == ["checker.cpp", "interactor.cpp"]
    assert programs_of(packed(GOOD)) == []


def test_a_program_has_less_room_than_a_case() -> None:
    """Planted defect: a checker of 256 MB, compiled for every job."""
    with pytest.raises(TooLarge, match=r"checker\.cpp"):
        cases_of(packed({**GOOD, "checker.cpp": b" " * (testdata.MAX_PROGRAM + 1)}))


@pytest.mark.parametrize("size", [testdata.MAX_FILE + 1, 0xFFFFFFF0])
def test_sizes_that_are_told_are_checked_before_anything_is_read(size: int) -> None:
    archive = packed(GOOD).getvalue()
    at = archive.index(b"PK\x01\x02") + 24
    with pytest.raises(TooLarge):
        cases_of(io.BytesIO(archive[:at] + struct.pack("<I", size) + archive[at + 4 :]))


def test_a_bomb_that_tells_a_small_size_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a size that is believed. zipfile stops at it too; all of it has to be an error here."""
    monkeypatch.setattr(testdata, "MAX_FILE", 1_000_000)
    archive = packed({**GOOD, "0103.in": b"0" * 50_000_000, "0103.out": b""}).getvalue()
    entry = archive.rindex(b"0103.in") - 46
    lying = archive[: entry + 24] + struct.pack("<I", 10) + archive[entry + 28 :]
    with pytest.raises((Invalid, TooLarge)):
        unpack(io.BytesIO(lying), tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_100


def test_all_files_together_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testdata, "MAX_ALL", 8)
    with pytest.raises(TooLarge):
        unpack(packed({**GOOD, "0201.out": b"12345"}), tmp_path)


def test_a_file_that_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    """Planted defect: a link that waits in the directory is followed."""
    target = tmp_path / "target"
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "0101.in").symlink_to(target)
    with pytest.raises(FileExistsError):
        unpack(packed(GOOD), inside)
    assert not target.exists()


@given(cut=st.integers(0, 2_000), flip=st.integers(0, 2_000), bit=st.integers(0, 7))
def test_damaged_archives_are_refused_or_read(cut: int, flip: int, bit: int) -> None:
    """Planted defect: an exception of zipfile's that nobody translates."""
    data = bytearray(packed(GOOD).getvalue())
    data[flip % len(data)] ^= 1 << bit
    del data[len(data) - cut % len(data) :]
    with contextlib.suppress(Invalid, TooLarge):
        assert cases_of(io.BytesIO(bytes(data)))
