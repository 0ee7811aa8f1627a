"""The judge in real boxes: every solution of the examples, and what hostile people send."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from tests.e2e.boxes import groups, leaving_nothing
from tests.unit.runner.executors.scripted import all_of
from windlass.judge.languages import LANGUAGES, Language, language_of_file
from windlass.judge.package import read_package
from windlass.judge.source import pack_source
from windlass.judge.testdata import unpack
from windlass.judge.verdict import Limits, Status, score, worst
from windlass.runner.executors import cases
from windlass.runner.executors.base import Assignment, CannotJudge, Event
from windlass.runner.executors.command import CommandExecutor
from windlass.runner.executors.judge import JudgeExecutor
from windlass.runner.sandbox.bubblewrap import Bubblewrap
from windlass.runner.workspace import JobDirectory, Workspace

T = TypeVar("T")
PROBLEMS = Path(__file__).parents[2] / "examples/problems"
SOLUTIONS = sorted(path for path in PROBLEMS.glob("*/solutions/*") if path.is_file())
C, CPP, PYTHON = LANGUAGES


class Court:
    """One sandbox and its executors for the tests of this module, on one event loop."""

    def __init__(self, runner: asyncio.Runner, folder: Path, users: int) -> None:
        self._runner = runner
        self._folder = folder
        self._count = 0
        self._workspace = Workspace(folder / "runner")
        self._workspace.open()
        self.sandbox = self.wait(Bubblewrap.open())
        self.sandbox.host = msgspec.structs.replace(self.sandbox.host, users=users)
        self._groups = set(groups())
        self.judge = JudgeExecutor(self.sandbox)
        self.command = CommandExecutor(self.sandbox)
        self.events: list[Event] = []

    def wait(self, what: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(what)

    def directory(self) -> Path:
        self._count += 1
        directory = self._folder / str(self._count)
        directory.mkdir()
        return directory

    def job(
        self, problem: Path, source: bytes, language: int, *, archive: bytes | None = None, **limits: int
    ) -> Assignment:
        """A job as it reaches the executor; `limits` replace those of the problem's tasks."""
        meta, testdata = read_package(problem)
        folder = self.directory()
        (folder / "source.zip").write_bytes(archive or pack_source(source, LANGUAGES[language]))
        (folder / "testdata").mkdir()
        unpack(io.BytesIO(testdata), folder / "testdata")
        wire = ("case_count", "memory_limit", "time_limit")
        tasks = [
            {"task_id": n, **{name: task[name] for name in wire}, **limits}
            for n, task in enumerate(meta["tasks"], 1)
        ]
        payload = {
            "job_id": "jb_1",
            "submission_id": "sb_1",
            "problem_id": 1,
            "language": language,
            "code_url": "http://localhost/code",
            "checker": meta["checker"],
            "tasks": tasks,
        }
        return Assignment(payload=payload, source=folder / "source.zip", testdata=folder / "testdata")

    async def do(self, job: Assignment) -> list[list[dict[str, Any]]]:
        executor = self.command if "command" in job.payload else self.judge
        directory = self._workspace.directory_of("job")
        try:
            done = await executor.execute(job, directory, self.events.append)
            tasks: list[list[dict[str, Any]]] = json.loads(all_of(done.result))["tasks"]
            if directory.made is not None:
                left = {path.name for path in directory.made.iterdir()}
                assert left <= {"program", "checker", "interactor", "result.json", "stdin"}, left
            return tasks
        finally:
            self._workspace.remove(directory)

    def close(self) -> None:
        assert set(groups()) == self._groups, "the group of a box is there still"
        self.wait(self.sandbox.close())
        self.wait(self._workspace.settle())
        self._workspace.close()
        assert list((self._folder / "runner/jobs").iterdir()) == []

    def first(self, problem: str, source: bytes | str, language: int, **limits: int) -> dict[str, Any]:
        """The first case of a source for one of the examples."""
        content = source.encode() if isinstance(source, str) else source
        job = self.only_first(self.job(PROBLEMS / problem, content, language, archive=None, **limits))
        [[case]] = self.wait(self.do(job))
        return case

    def only_first(self, job: Assignment) -> Assignment:
        """The same job with its first case alone."""
        assert job.testdata is not None
        for path in job.testdata.iterdir():
            if path.suffix in (".in", ".out") and path.stem != "0101":
                path.unlink()
        task = job.payload["tasks"][0] | {"case_count": 1}
        return msgspec.structs.replace(job, payload={**job.payload, "tasks": [task]})


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    """Planted defect: a box that is not ended with its program; a job's directory that stays."""
    folder = tmp_path_factory.mktemp("court")
    folder.chmod(0o755)
    with leaving_nothing() as users, asyncio.Runner() as runner:
        court = Court(runner, folder, users)
        yield court
        court.close()


def statuses(tasks: list[list[dict[str, Any]]]) -> list[list[Status]]:
    return [[Status(case["status"]) for case in task] for task in tasks]


def test_the_examples_have_a_solution_of_every_kind() -> None:
    named = {(path.stem.partition("-")[0].upper(), path.suffix) for path in SOLUTIONS}
    possible = {status.value for status in Status} - {"JE"}
    assert named == {(status, suffix) for status in possible for suffix in (".c", ".cpp", ".py")}


@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_every_solution_gets_the_verdict_in_its_name(court: Court, solution: Path) -> None:
    language = language_of_file(solution.name)
    assert language is not None
    tasks = court.wait(court.do(court.job(solution.parents[1], solution.read_bytes(), language.number)))
    found = statuses(tasks)
    assert worst(status for task in found for status in task) == solution.stem.partition("-")[0].upper(), (
        tasks
    )
    if found[0][0] is Status.COMPILE_ERROR:
        assert tasks[0][0]["stderr"]
        assert {status for task in found for status in task} == {Status.COMPILE_ERROR}


def test_a_share_of_the_points_and_all_or_nothing(court: Court) -> None:
    source = (PROBLEMS / "deviation/solutions/wa-whole-numbers.py").read_bytes()
    first, second = statuses(court.wait(court.do(court.job(PROBLEMS / "deviation", source, PYTHON))))
    assert 0 < score(40, first, partial=True) < 40
    assert score(60, second, partial=False) == 0


# --- sources that mean harm -------------------------------------------------------------------------

TEMPLATES = "template <int N> struct T { T<N * 2> a; T<N * 2 + 1> b; }; int main() { T<1> t; }"


@pytest.mark.parametrize(
    ("language", "source"),
    [
        (C, '#include "/dev/zero"\nint main(void) {}'),
        (C, '#include "/etc/shadow"\nint main(void) {}'),
        (C, '#include "main.c"\n#include "main.c"'),
        (C, 'asm(".incbin \\"/dev/zero\\""); int main(void) {}'),
        (C, "char all[1L << 32] = {1}; int main(void) {}"),
        (CPP, f"#pragma GCC optimize(3)\n{TEMPLATES}"),
        (CPP, "constexpr long f(long n) { return n ? f(n - 1) + f(n - 1) : 1; } static_assert(f(200));"),
        (C, b""),
        (CPP, b"\x00" * 1000),
        (C, b"\xff\xfe" * 1000),
        (C, b"(" * 10_000_000),
        (PYTHON, b"\x00"),
        (PYTHON, b"\xff"),
        (PYTHON, b"(" * 1_000_000),
        (PYTHON, b"-" * 5_000_000 + b"1"),
    ],
    ids=range(15),
)
def test_a_source_that_attacks_the_compiler_is_a_compile_error(
    court: Court, language: int, source: bytes | str
) -> None:
    """Planted defect: a compiler that may take any time and memory."""
    case = court.first("a-plus-b", source, language)
    assert case["status"] == "CE"
    assert len(case["stderr"]) <= 16 * 1024 + 200


def test_what_the_compiler_may_skip_is_still_a_program(court: Court) -> None:
    """NULs, invalid UTF-8 in a comment, and 9 MB of it: the bytes are the compiler's business."""
    source = (PROBLEMS / "a-plus-b/solutions/ac.c").read_bytes()
    comment = b"/* \xff\xfe\x00 " + b"long " * 1_800_000 + b"*/"
    assert court.first("a-plus-b", comment + source, C)["status"] == "AC"


@pytest.mark.parametrize("file", ["/dev/stdin", "/dev/null", "/proc/self/environ", "/proc/1/cmdline"])
def test_a_compiler_finds_nothing_in_what_it_may_read(court: Court, file: str) -> None:
    assert court.first("a-plus-b", f'#include "{file}"\nint main(void) {{}}', C)["status"] in ("WA", "CE")


def test_a_compiler_cannot_be_asked_for_the_answers(court: Court) -> None:
    """Planted defect: the test data is seen in the compiler's box."""
    found = court.job(PROBLEMS / "a-plus-b", b"", C).testdata
    case = court.first("a-plus-b", f'#include "{found}/0101.out"\nint main(void) {{}}', C)
    assert case["status"] == "CE"
    assert "No such file or directory" in case["stderr"]


LOOK = """
import os
found = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if name not in ("proc", "usr", "sys")]
    found += [name for name in files if name.endswith((".out", ".in", ".zip", ".output"))]
print(found, os.path.exists("main.py"))
"""


def test_a_program_finds_no_answers(court: Court) -> None:
    """Planted defect: the expected output can be read in the box of a run."""
    assert court.first("a-plus-b", LOOK, PYTHON)["stdout"] == "[] True\n"


def test_a_program_that_never_reads_its_input(court: Court, tmp_path: Path) -> None:
    """Planted defect: a feeder that waits for ever until 100 MB of input are read."""
    (tmp_path / "data").mkdir()
    (tmp_path / "statement.md").touch()
    (tmp_path / "problem.toml").write_text(
        'title = "x"\n[[tasks]]\nscore = 1\ncase_count = 1\ntime_limit = 1000\nmemory_limit = 65536\n'
    )
    with (tmp_path / "data/0101.in").open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    (tmp_path / "data/0101.out").write_text("yes\n")
    tasks = court.wait(court.do(court.job(tmp_path, b"print('yes')", PYTHON)))
    assert statuses(tasks) == [["AC"]]


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import os, sys\nsys.stderr.write('e' * 10_000_000)\nprint(3)", "AC"),
        ("import os\nos.setsid()\nwhile True: os.fork()", "RE TLE MLE"),
        ("import os\nwhile True:\n  if os.fork() == 0: pass", "RE TLE MLE"),
        ("import os\nos.kill(os.getpid(), 9)", "RE"),
        ("import os\nprint(3, flush=True)\nos._exit(139)", "RE"),
        ("import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(3600)\nprint(3)", "AC"),
        ("import os\nos.close(1)", "WA"),
        ("import sys\nsys.stdin.buffer.seek(0); sys.stdin.buffer.read(); print(3)", "AC"),
    ],
)
def test_programs_that_mean_harm(court: Court, source: str, status: str) -> None:
    """Planted defects: stderr that nobody drains; an orphan that keeps the case waiting."""
    assert court.first("a-plus-b", source, PYTHON)["status"] in status.split()


FILL = """
try:
    with open("filling", "wb", 0) as file:
        while True: file.write(bytes(65536))
except OSError as error:
    assert error.errno == 28, error  # ENOSPC
"""


@pytest.mark.parametrize(
    ("then", "memory_kib", "status"),
    [
        ("print(3)", 262_144, "AC"),
        ("open('more', 'wb', 0).write(bytes(5000))", 262_144, "RE"),
        ("print(3)", 65_536, "MLE"),  # what is written is memory
    ],
)
def test_a_program_that_fills_its_files(court: Court, then: str, memory_kib: int, status: str) -> None:
    """Planted defect: a tmpfs without a size: it fills the host's memory, or the case ends as MLE."""
    found = court.first("a-plus-b", f"{FILL}\n{then}", PYTHON, memory_limit=memory_kib, time_limit=5_000)
    assert found["status"] == status
    assert (status == "RE") == ("No space left on device" in found["stderr"])


def test_a_compiler_that_fills_its_files(court: Court) -> None:
    case = court.first("a-plus-b", 'asm(".zero 300000000, 1"); int main(void) {}', C)
    assert case["status"] == "CE"
    assert "No space left on device" in case["stderr"]


def test_a_signal_and_an_exit_code_differ(court: Court) -> None:
    killed = court.first("a-plus-b", "int main(void) { *(volatile int *)0 = 1; }", C)
    ended = court.first("a-plus-b", "int main(void) { return 3; }", C)
    assert (killed["status"], killed["exitCode"]) == ("RE", 139)
    assert (ended["status"], ended["exitCode"]) == ("RE", 3)


def test_hundred_gigabytes_of_output_end_early_and_are_told_in_short(court: Court) -> None:
    case = court.first("a-plus-b", "while True: print('x' * 100_000)", PYTHON, time_limit=20_000)
    assert case["status"] == "OLE"
    assert len(case["stdout"]) == 4096


# --- talks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("input()", "TLE"),
        ("import sys\nprint(500)\nsys.stdin.readline()", "TLE"),
        ("import time\ntime.sleep(100)", "TLE"),
        ("while True: pass", "TLE"),
        ("", "WA"),
        ("print('no number')", "WA"),
        ("while True: print(7)", "WA"),
        ("print(7); import os; os.abort()", "RE"),
        # Which of two ends a moment apart was first is for the scheduler to say.
        ("import os\nos.close(0)\nwhile True: print(7, flush=True)", "RE WA"),
        ("import os\nos.close(1)\ninput()", "RE WA"),
        ("print(1, flush=True)\ninput()\nraise SystemExit(9)", "RE WA"),
        ("print(1, flush=True)\ninput()\nwhile True: pass", "TLE"),
    ],
)
def test_talks_that_go_wrong_end(court: Court, source: str, status: str) -> None:
    """Planted defects: both wait for each other for ever; a wrong guess that is called a crash."""
    assert court.first("guess", source, PYTHON)["status"] in status.split()


# --- what the judge is given ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "source", "match"),
    [
        ("parts/checker.cpp", "int main(", "does not compile"),
        ("guess/interactor.cpp", '#include "/dev/zero"', "does not compile"),
    ],
)
def test_a_broken_program_of_the_problem_is_a_reason(
    court: Court, tmp_path: Path, file: str, source: str, match: str
) -> None:
    job = court.job(copy(file, source, tmp_path), b"print(1)", PYTHON)
    with pytest.raises(CannotJudge, match=match):
        court.wait(court.do(job))


@pytest.mark.parametrize(
    ("source", "status", "remark"),
    [
        ("int main() { return 0; }", "AC", ""),
        ("int main() { return 3; }", "JE", "exit code 3"),
        ("int main() { for (;;) {} }", "JE", "TLE"),
        ("#include <cstdlib>\nint main() { abort(); }", "JE", "signal 6"),
        ("#include <cstdio>\nint main() { fputs(\"points 1\", stderr); return 7; }", "AC", "points 1"),
        ("#include <cstdio>\nint main() { remove(\"answer\"); return 0; }", "AC", ""),
        ("#include <fstream>\nint main() { std::ofstream(\"answer\") << 1; return 0; }", "AC", ""),
    ],
)  # fmt: skip
def test_checkers_of_every_kind(
    court: Court, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, status: str, remark: str
) -> None:
    """Planted defects: a checker that never ends; one that changes the test data for the next case."""
    monkeypatch.setattr(cases, "HELPER", Limits(time_ms=500, memory_kib=65_536, wall_ms=30_000))
    job = court.only_first(court.job(copy("parts/checker.cpp", source, tmp_path), b"print(1)", PYTHON))
    assert job.testdata is not None
    before = {path.name: path.read_bytes() for path in job.testdata.iterdir()}
    [[case]] = court.wait(court.do(job))
    assert case["status"] == status
    assert remark in case["stderr"]
    assert {path.name: path.read_bytes() for path in job.testdata.iterdir()} == before


def copy(file: str, source: str, to: Path) -> Path:
    """A copy of an example in which one program is another."""
    problem, _, program = file.partition("/")
    for path in (PROBLEMS / problem).rglob("*"):
        if path.is_file():
            target = to / path.relative_to(PROBLEMS / problem)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    (to / program).write_text(source)
    return to


@pytest.mark.parametrize("archive", [b"PK", b"not a zip", pack_source(b"int main() {}", LANGUAGES[CPP])])
def test_a_broken_source_archive_is_a_reason(court: Court, archive: bytes) -> None:
    job = court.job(PROBLEMS / "a-plus-b", b"", C, archive=archive)
    with pytest.raises(CannotJudge):
        court.wait(court.do(job))


def test_another_language_is_another_row(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Language(
        number=9, name="sh", source="main.sh", compiling=None, program="main.sh", argv=("sh", "main.sh")
    )
    monkeypatch.setitem(LANGUAGES, 9, row)
    assert court.first("a-plus-b", "read a b\necho $((a + b))", 9)["status"] == "AC"


def test_many_jobs_at_once_each_get_their_own_verdicts(court: Court) -> None:
    """Planted defect: boxes, outputs or directories that jobs share."""
    names = [
        "ac.c",
        "wa-difference.cpp",
        "ac.py",
        "re-null.c",
        "ce.c",
        "re-exception.py",
        "wa-32-bits.c",
        "ac.cpp",
    ]

    async def all_of_them() -> list[list[list[dict[str, Any]]]]:
        jobs = []
        for name in names:
            path = PROBLEMS / "a-plus-b/solutions" / name
            language = language_of_file(name)
            assert language is not None
            jobs.append(court.do(court.job(PROBLEMS / "a-plus-b", path.read_bytes(), language.number)))
        return await asyncio.gather(*jobs)

    for name, tasks in zip(names, court.wait(all_of_them()), strict=True):
        [found] = statuses(tasks)
        assert worst(found) == name[:2].upper(), (name, tasks)
        assert len(found) == 4


# --- commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "exit_code", "output"),
    [
        ({"argv": ["echo", "hello"]}, 0, "hello\n"),
        ({"argv": ["sh", "-c", "echo out; echo err >&2; exit 42"]}, 42, "out\nerr\n"),
        ({"argv": ["sh", "-c", "kill -TERM $$"]}, 143, ""),
        ({"argv": ["cat", "-", "n/a.txt"], "stdin": "in\n", "files": {"n/a.txt": "file\n"}}, 0, "in\nfile\n"),
        ({"argv": ["sh", "-c", "echo $LEVEL"], "env": {"LEVEL": "3 $HOME"}}, 0, "3 $HOME\n"),
        ({"argv": ["no-such-command"]}, 127, "not found"),
    ],
)  # fmt: skip
def test_any_command(court: Court, command: dict[str, Any], exit_code: int, output: str) -> None:
    court.events.clear()
    [[case]] = court.wait(court.do(Assignment(payload={"job_id": "jb_1", "command": command})))
    assert (case["exitCode"], case["stderr"]) == (exit_code, "")
    assert case["stdout"].endswith(output) or output in case["stdout"]
    assert "".join(str(event["text"]) for event in court.events) == case["stdout"]


def test_a_cancelled_job_ends_its_box_at_once(court: Court) -> None:
    """Planted defect: a cancelled wait that looks like an ended box, so that nobody ends it."""
    source = (PROBLEMS / "a-plus-b/solutions/tle-sleep.cpp").read_bytes()
    job = court.job(PROBLEMS / "a-plus-b", source, CPP, time_limit=600_000)

    async def cancel() -> None:
        started = asyncio.Event()
        done = asyncio.create_task(
            court.judge.execute(job, JobDirectory(court.directory(), "job"), lambda _: started.set())
        )
        await started.wait()
        done.cancel()
        async with asyncio.timeout(60):
            with pytest.raises(asyncio.CancelledError):
                await done

    court.wait(cancel())
    assert court.first("a-plus-b", "print(3)", PYTHON)["status"] == "AC"
