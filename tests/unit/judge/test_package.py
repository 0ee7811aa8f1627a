"""Problems as directories: those of the examples, and those that somebody got wrong."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from windlass.errors import Invalid, TooLarge, WindlassError
from windlass.judge import package, testdata
from windlass.judge.package import read_package

EXAMPLES = Path(__file__).parents[3] / "examples/problems"
TOML = """
title = "Echo"
[[tasks]]
score = 100
case_count = 1
time_limit = 1000
memory_limit = 65536
"""


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name, content in {
        "problem.toml": TOML,
        "statement.md": "Print it.",
        "data/0101.in": "1\n",
        "data/0101.out": "1\n",
    }.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "checker", "programs", "scores"),
    [
        ("a-plus-b", "", [], [(100, "all")]),
        ("deviation", "floats:1e-6", [], [(40, "partial"), (60, "all")]),
        ("guess", "", ["interactor.cpp"], [(100, "all")]),
        ("parts", "", ["checker.cpp"], [(100, "all")]),
    ],
)
def test_the_examples(name: str, checker: str, programs: list[str], scores: list[tuple[float, str]]) -> None:
    meta, archive = read_package(EXAMPLES / name)
    assert meta["checker"] == checker
    assert [(task["score"], task["scoring"]) for task in meta["tasks"]] == scores
    cases = testdata.cases_of(io.BytesIO(archive), [task["case_count"] for task in meta["tasks"]])
    assert len(cases) == sum(task["case_count"] for task in meta["tasks"])
    assert testdata.programs_of(io.BytesIO(archive)) == programs
    assert len(meta["statement"]) > 100


def test_the_same_files_make_the_same_bytes(problem: Path) -> None:
    """Planted defect: times of files in the archive: every upload would be a new version."""
    meta, archive = read_package(problem)
    (problem / "data/0101.in").touch()
    (problem / "solutions").mkdir()
    assert read_package(problem) == (meta, archive)
    assert meta == {
        "title": "Echo",
        "statement": "Print it.",
        "checker": "",
        "tasks": [
            {"score": 100, "case_count": 1, "time_limit": 1000, "memory_limit": 65536, "scoring": "all"}
        ],
    }


def test_a_checker_that_is_there_is_taken_unless_another_is_named(problem: Path) -> None:
    (problem / "checker.cpp").write_text("int main() {}")
    for named in ("", 'checker = "checker.cpp"'):
        (problem / "problem.toml").write_text(f"{named}\n{TOML}")
        meta, archive = read_package(problem)
        assert meta["checker"] == ""
        assert testdata.programs_of(io.BytesIO(archive)) == ["checker.cpp"]
    (problem / "problem.toml").write_text(f'checker = "exact"\n{TOML}')
    meta, archive = read_package(problem)
    assert meta["checker"] == "exact"
    assert testdata.programs_of(io.BytesIO(archive)) == []


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda problem: (problem / name).write_bytes(data)


def remove(name: str) -> Callable[[Path], object]:
    return lambda problem: (problem / name).unlink()


def link(name: str) -> Callable[[Path], object]:
    def change(problem: Path) -> None:
        (problem / name).unlink(missing_ok=True)
        (problem / name).symlink_to("/etc/passwd")

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (remove("problem.toml"), r"problem\.toml cannot be read: No such file"),
        (write("problem.toml", "title ="), "is not TOML"),
        (write("problem.toml", b"\xff"), "is not TOML"),
        (write("problem.toml", "title = 1"), r"Expected `str`, got `int` - at `\$\.title`"),
        (write("problem.toml", 'title = "Echo"'), "missing required field `tasks`"),
        (write("problem.toml", 'title = "Echo"\ntasks = []'), r"at `\$\.tasks`"),
        (write("problem.toml", f'level = "easy"\n{TOML}'), "unknown field `level`"),
        (write("problem.toml", f'{TOML}scoring = "some"'), "'some'"),
        (write("problem.toml", TOML.replace("score = 100", "score = -1")), "score"),
        (write("problem.toml", TOML.replace("score = 100", "score = inf")), "score"),
        (write("problem.toml", TOML.replace("score = 100", "score = nan")), "score"),
        (write("problem.toml", TOML.replace("case_count = 1", "case_count = 0")), "case_count"),
        (write("problem.toml", TOML.replace("case_count = 1", "case_count = 2")), r"\[1\] cases .* \[2\]"),
        (write("problem.toml", TOML.replace("time_limit = 1000", "time_limit = 0.5")), "time_limit"),
        (write("problem.toml", f'checker = "best"\n{TOML}'), "no checker 'best'"),
        (
            write("problem.toml", f'checker = "checker.cpp"\n{TOML}'),
            r"names checker\.cpp, which is not there",
        ),
        (write("problem.toml", f'statement = "../x.md"\n{TOML}'), r"names the statement '\.\./x\.md'"),
        (write("problem.toml", f'statement = "/etc/passwd"\n{TOML}'), "names the statement"),
        (link("statement.md"), "names the statement"),
        (remove("statement.md"), "names the statement"),
        (write("statement.md", b"caf\xe9"), "is not UTF-8: .* at byte 3"),
        (link("data/0101.in"), r"0101\.in has no place"),
        (write("data/notes.txt", ""), r"notes\.txt.* has no place"),
        (write("data/checker.cpp", ""), r"checker\.cpp has no place"),
        (remove("data/0101.out"), r"0101\.out is missing"),
        (write("data/0102.in", ""), r"0102\.out is missing"),
        (write("data", ""), "data is no directory"),
    ],
)
def test_what_is_wrong_is_named(problem: Path, change: Callable[[Path], object], complaint: str) -> None:
    """Planted defect: a statement outside of the directory: somebody's problem would publish /etc/passwd."""
    if complaint == "data is no directory":
        for file in (problem / "data").iterdir():
            file.unlink()
        (problem / "data").rmdir()
    change(problem)
    with pytest.raises(Invalid, match=complaint):
        read_package(problem)


def test_what_is_too_large_is_told(problem: Path) -> None:
    (problem / "statement.md").write_bytes(b" " * (package.MAX_STATEMENT + 1))
    with pytest.raises(WindlassError, match="statement"):
        read_package(problem)
    (problem / "statement.md").write_text("")
    (problem / "interactor.cpp").write_bytes(b" " * (testdata.MAX_PROGRAM + 1))
    with pytest.raises(TooLarge, match="interactor"):
        read_package(problem)
