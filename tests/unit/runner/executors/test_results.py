"""The file that goes over the wire."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.judge.verdict import Status
from windlass.runner.executors import results
from windlass.runner.executors.results import CaseResult, ResultWriter, with_remark
from windlass.runner.workspace import JobDirectory


def test_what_is_written_is_what_the_wire_wants(tmp_path: Path) -> None:
    with ResultWriter(JobDirectory(tmp_path, "jb_1")) as writer:
        for count in (1, 2):
            writer.begin_task()
            for _ in range(count):
                writer.add(CaseResult(stdout='"\ufffd\x00', status=Status.ACCEPTED))
        writer.end()
    case = {
        "stdout": '"\ufffd\x00',
        "stderr": "",
        "exitCode": -1,
        "execTime": 0,
        "memoryUsage": 0,
        "status": "AC",
    }
    assert isinstance(writer.result, bytes)
    assert json.loads(writer.result) == {"tasks": [[case], [case, case]]}
    assert list(tmp_path.iterdir()) == []  # a small one needs no disk


def test_a_large_one_goes_to_the_disk(tmp_path: Path) -> None:
    """Planted defects: a result of any size in memory; what was in memory left out of the file."""
    text = "x" * 10_000
    with ResultWriter(JobDirectory(tmp_path, "jb_1")) as writer:
        writer.begin_task()
        for _ in range(50):
            writer.add(CaseResult(stdout=text, status=Status.ACCEPTED))
            assert len(writer._parts) <= results.SMALL
        writer.end()
    assert isinstance(writer.result, Path)
    [cases] = json.loads(writer.result.read_bytes())["tasks"]
    assert [case["stdout"] for case in cases] == [text] * 50


def test_the_texts_of_one_answer_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: ten thousand cases with all that they printed."""
    monkeypatch.setattr(results, "ALL_TEXT", 10)
    with ResultWriter(JobDirectory(tmp_path, "jb_1")) as writer:
        writer.begin_task()
        for said in ("12345", "123456", "1234", "12"):
            writer.add(CaseResult(stdout=said, status=Status.WRONG_ANSWER))
        writer.end()
    assert isinstance(writer.result, bytes)
    [cases] = json.loads(writer.result)["tasks"]
    assert [case["stdout"] for case in cases] == ["12345", "", "1234", ""]
    assert {case["status"] for case in cases} == {"WA"}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    directory = JobDirectory(tmp_path, "jb_1")
    (directory.path / "result.json").symlink_to(tmp_path / "elsewhere")
    with ResultWriter(directory) as writer:
        writer.begin_task()
        with pytest.raises(FileExistsError):
            writer.add(CaseResult(stdout="x" * results.SMALL, status=Status.ACCEPTED))


@pytest.mark.parametrize(
    ("stderr", "remark", "both"),
    [
        ("", "", ""),
        ("a", "", "a"),
        ("", "b", "checker: b"),
        ("a", "b", "a\nchecker: b"),
        ("a\n", "b", "a\nchecker: b"),
    ],
)
def test_a_remark_has_a_line_of_its_own(stderr: str, remark: str, both: str) -> None:
    assert with_remark(stderr, "checker", remark) == both
