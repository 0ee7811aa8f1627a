"""Problems: versions, test data that is what it says, and readers that nobody disturbs."""

from __future__ import annotations

import asyncio
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.judging import Bench, Killed, archive, meta, meta_json, result, zipped
from windlass.errors import Invalid, ProblemNotFound, TooLarge, WindlassError


@pytest.fixture
def bench(tmp_path: Path, url: str | None) -> Iterator[Bench]:
    with Bench(tmp_path / "data", url=url) as opened:
        yield opened


def get(bench: Bench, problem_id: int = 1) -> Any:
    return bench.run(bench.judge.problems.get(problem_id))


def read(bench: Bench, problem_id: int = 1) -> bytes:
    _, file = bench.run(bench.judge.problems.open_testdata(problem_id))
    with file:
        return file.read()


def put(bench: Bench, data: bytes | None, counts: tuple[int, ...] = (2,), **changes: Any) -> Any:
    return bench.run(bench.put(1, meta(counts, **changes), data))


def test_what_is_put_is_there_and_survives(bench: Bench) -> None:
    problem, created = put(bench, zipped(), statement="Add \0 \u00e9 them")
    assert created
    bench.reopen()
    assert get(bench) == problem
    assert get(bench).meta.statement == "Add \0 \u00e9 them"
    assert read(bench) == zipped()


def test_a_second_put_is_a_new_version(bench: Bench) -> None:
    first = bench.problem()
    bench.clock.advance(5)
    second, created = put(bench, zipped((3,)), (3,), title="New")
    assert not created
    assert (second.version, second.created_at) == (2, first.created_at)
    assert second.updated_at == first.updated_at + 5000
    assert read(bench) == zipped((3,))


def test_the_same_data_has_the_same_checksum(bench: Bench) -> None:
    assert bench.problem(1).testdata == bench.problem(2).testdata


def test_without_data_the_meta_changes_alone(bench: Bench) -> None:
    before = bench.problem()
    after, _ = put(bench, None, title="Other")
    assert (after.testdata, get(bench).meta.title) == (before.testdata, "Other")


def test_meta_that_does_not_fit_the_data_is_refused(bench: Bench) -> None:
    before = bench.problem()
    with pytest.raises(Invalid) as told:
        put(bench, None, (3,))
    assert told.value.field == "tasks"
    assert get(bench) == before
    with pytest.raises(Invalid, match="needs its test data"):
        bench.run(bench.put(2, meta()))


@pytest.mark.parametrize("problem_id", [0, -1, 2**31, 2**70])
def test_an_id_out_of_range_is_refused(bench: Bench, problem_id: int) -> None:
    with pytest.raises(Invalid) as told:
        bench.run(bench.put(problem_id, meta(), zipped()))
    assert told.value.field == "problem_id"


def linked() -> bytes:
    """An archive whose input is a link."""
    data = bytearray(zipped())
    at = data.index(b"PK\1\2")
    data[at + 5] = 3  # made on Unix
    data[at + 38 : at + 42] = ((stat.S_IFLNK | 0o777) << 16).to_bytes(4, "little")
    return bytes(data)


def lying(change: int) -> bytes:
    """An archive whose directory tells another size than there is."""
    data = bytearray(archive({"0101.in": b"\0" * 5000, "0101.out": b""}))
    at = data.index(b"PK\1\2")
    size = int.from_bytes(data[at + 24 : at + 28], "little") + change
    data[at + 24 : at + 28] = size.to_bytes(4, "little")
    return bytes(data)


HOSTILE: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "nothing": (b"", (2,)),
    "no zip": (b"PK\3\4 but no more", (2,)),
    "an empty zip": (archive({}), (2,)),
    "a case less": (zipped((1,)), (2,)),
    "a case more": (zipped((3,)), (2,)),
    "a task more": (zipped((2, 1)), (2,)),
    "an answer less": (archive({"0101.in": b"1"}), (1,)),
    "a question less": (archive({"0101.out": b"1"}), (1,)),
    "another file": (zipped((2,), readme_txt=b"x"), (2,)),
    "zip-slip": (archive({"../0101.in": b"1", "../0101.out": b"1"}), (1,)),
    "a folder": (archive({"data/0101.in": b"1", "data/0101.out": b"1"}), (1,)),
    "a gap": (archive({"0102.in": b"1", "0102.out": b"1"}), (1,)),
    "a duplicate": (zipped((2,)).replace(b"0102", b"0101"), (1,)),
    "a link": (linked(), (2,)),
    "a wrong sum": (zipped().replace(b"1 1 in\n", b"1 1 is\n"), (2,)),
    "cut off": (zipped()[:-30], (2,)),
    "a lie about its size": (lying(-4000), (1,)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_test_data_is_refused_and_nothing_changes(bench: Bench, kind: str) -> None:
    """Planted defects: zero cases accepted; looking at the directory of an archive alone."""
    bench.problem()
    before, files = get(bench), sorted(bench.judge.files.all())
    data, counts = HOSTILE[kind]
    if kind == "a wrong sum":  # stored, so that a byte of it can be changed
        data = stored(counts).replace(b"1 1 in\n", b"1 1 is\n")
    with pytest.raises((Invalid, TooLarge)) as told:
        put(bench, data, counts)
    assert told.value.field == "testdata"
    assert get(bench) == before
    assert sorted(bench.judge.files.all()) == files
    assert [*bench.folder.glob("files/incoming/*")] == []


def stored(counts: tuple[int, ...]) -> bytes:
    import io

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as opened:
        for number in range(1, counts[0] + 1):
            for end in ("in", "out"):
                opened.writestr(f"01{number:02}.{end}", f"1 {number} {end}\n")
    return file.getvalue()


def test_a_bomb_is_refused_before_it_goes_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: unpacking without counting."""
    monkeypatch.setattr("windlass.judge.testdata.MAX_FILE", 10_000)
    with pytest.raises(TooLarge):
        put(bench, archive({"0101.in": b"\0" * 20_000, "0101.out": b""}), (1,))


@pytest.mark.parametrize("checker", ["no", "floats:x", "floats:2", "/bin/sh", "floats:nan"])
def test_an_unknown_checker_is_refused(bench: Bench, checker: str) -> None:
    with pytest.raises(Invalid) as told:
        put(bench, zipped(), checker=checker)
    assert told.value.field == "checker"


def test_problems_come_in_pages_without_statements(bench: Bench) -> None:
    for number in (5, 1, 3):
        bench.problem(number, statement="long")
    listed = bench.run(bench.judge.problems.list(0, 2))
    assert [problem.id for problem in listed] == [1, 3]
    assert [problem.id for problem in bench.run(bench.judge.problems.list(3, 2))] == [5]
    assert listed[0].meta.statement == ""


def test_a_deleted_problem_is_gone_and_its_number_free(bench: Bench) -> None:
    bench.problem()
    bench.run(bench.judge.problems.delete(1))
    for ask in (
        bench.judge.problems.get(1),
        bench.judge.problems.delete(1),
        bench.judge.problems.open_testdata(1),
    ):
        with pytest.raises(ProblemNotFound):
            bench.run(ask)
    again = bench.problem(title="Again")
    assert (again.version, get(bench).meta.title) == (2, "Again")


# --- test data and its readers ----------------------------------------------------------------------


def test_old_test_data_is_collected_once_nothing_refers_to_it(bench: Bench) -> None:
    """Planted defect: keeping every upload for ever."""
    bench.problem()
    put(bench, zipped((1,)), (1,))
    bench.problem(2)  # refers to what the first had
    assert bench.collect() == 0
    bench.run(bench.judge.problems.delete(2))
    assert bench.collect() == 1
    assert read(bench) == zipped((1,))


def test_a_reader_has_the_whole_archive_though_it_is_replaced_and_collected(bench: Bench) -> None:
    """Planted defect, a known mistake: test data deleted while others copied it."""
    bench.problem()
    problem, file = bench.run(bench.judge.problems.open_testdata(1))
    with file:
        begun = file.read(10)
        put(bench, zipped((1,)), (1,))
        assert bench.collect() == 1
        assert begun + file.read() == zipped()
    assert problem.version == 1


def test_an_archive_that_is_collected_between_two_looks_is_looked_up_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: a 500 for whoever asks at the moment of a replacement."""
    bench.problem()

    async def scenario() -> bytes:
        loop = asyncio.get_running_loop()

        def replaced(digest: str) -> Any:
            monkeypatch.undo()
            asyncio.run_coroutine_threadsafe(bench.put(1, meta((1,)), zipped((1,))), loop).result(60)
            (bench.folder / "files" / digest[:2] / digest).unlink(missing_ok=True)
            raise FileNotFoundError

        monkeypatch.setattr(bench.judge.files, "open", replaced)
        _, file = await bench.judge.problems.open_testdata(1)
        with file:
            return file.read()

    assert bench.run(scenario()) == zipped((1,))


def test_a_crash_before_the_commit_leaves_the_problem_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: replacing the archive first, so that a crash leaves it with the old meta."""
    bench.problem()

    async def killed(*_: object) -> Any:
        raise Killed

    monkeypatch.setattr(bench.judge.problems._database, "write", killed)
    with pytest.raises(Killed):
        put(bench, zipped((1,)), (1,))
    bench.reopen()
    assert read(bench) == zipped()
    assert bench.collect() == 1  # what came and was never referred to


# --- what a change means for submissions ------------------------------------------------------------


def test_whatever_has_no_verdict_is_judged_by_the_new_version(bench: Bench) -> None:
    """Planted defect: a job with the old limits on the new data, which never fit."""
    bench.problem()
    done, waiting = bench.submit(), bench.submit()
    bench.finish(done, "AC", "AC")
    put(bench, zipped((1, 1)), (1, 1))
    assert bench.sweep()
    assert set(bench.dispatch.superseded) == {"jb_2"}
    (living,) = [spec for spec in bench.dispatch.living.values() if spec.submission_id == waiting]
    assert [task.case_count for task in living.tasks] == [1, 1]
    assert (bench.run(bench.judge.submissions.get(done)).status, living.generation) == ("done", 2)
    bench.finish(waiting, "AC", "AC")  # the old job, late
    assert bench.run(bench.judge.submissions.get(waiting)).status == "pending"
    bench.run(bench.judge.project("jb_3", waiting, 2, result(["AC"], ["AC"])))
    assert bench.run(bench.judge.submissions.get(waiting)).score == 20


def test_a_new_title_disturbs_nobody(bench: Bench) -> None:
    bench.problem()
    bench.submit()
    put(bench, None, title="Other", tasks=[{**meta_json()["tasks"][0], "score": 50}])
    assert bench.sweep()
    assert bench.dispatch.superseded == []
    assert len(bench.dispatch.jobs) == 1


def test_deleting_a_problem_ends_what_waits_and_keeps_what_is_done(bench: Bench) -> None:
    bench.problem()
    done, waiting = bench.submit(), bench.submit()
    bench.finish(done, "AC", "AC")
    bench.run(bench.judge.problems.delete(1))
    assert bench.sweep()
    assert set(bench.dispatch.superseded) == {"jb_2"}
    ended = bench.run(bench.judge.submissions.get(waiting))
    assert (ended.verdict, ended.reason) == ("JE", "The problem was deleted.")
    assert bench.run(bench.judge.submissions.get(done)).verdict == "AC"
    for refused in (bench.judge.submissions.rejudge(done), bench.judge.submissions.submit(1, 2, b"x")):
        with pytest.raises(WindlassError):
            bench.run(refused)
