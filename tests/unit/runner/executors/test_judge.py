"""The judge in boxes that do as they are told: verdicts, re-runs, faults, turns, a result for every case."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runner.executors.scripted import GOOD, Bench, ScriptedSandbox, kind
from windlass.judge.verdict import Run
from windlass.runner.executors.base import CannotJudge
from windlass.runner.executors.cases import MAX_OUTPUT
from windlass.runner.executors.judge import JudgeExecutor
from windlass.runner.executors.results import TEXT
from windlass.runner.sandbox import Command, Ran

RIGHT = Ran(run=GOOD, stdout=b"42\n")
FIELDS = ["stdout", "stderr", "exitCode", "execTime", "memoryUsage", "status"]


def runs(*answers: Ran) -> Callable[[Command, int], Ran | None]:
    """A program's runs in order, the last one for ever; all else goes well."""
    return lambda command, n: answers[min(n, len(answers) - 1)] if kind(command) == "run" else None


def answers(**given: Ran) -> Callable[[Command, int], Ran | None]:
    """What becomes of each kind of command; a run is right by default."""
    return lambda command, _: given.get(kind(command), RIGHT if kind(command) == "run" else None)


def judge(sandbox: ScriptedSandbox) -> JudgeExecutor:
    return JudgeExecutor(sandbox, processors=2)


def test_a_result_has_every_case_and_just_the_fields_of_the_wire(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (2, 1, 3))
    sandbox = ScriptedSandbox(runs(RIGHT))
    tasks = bench.execute(judge(sandbox))
    assert [len(task) for task in tasks] == [2, 1, 3]
    for case in (case for task in tasks for case in task):
        assert list(case) == FIELDS
        assert case == {
            "stdout": "42\n",
            "stderr": "",
            "exitCode": 0,
            "execTime": 5,
            "memoryUsage": 900,
            "status": "AC",
        }
    assert len(sandbox.asked("compile")) == 1
    assert [event["event"] for event in bench.events] == ["compiled"] + ["case"] * 6
    assert [(event["task"], event["case"]) for event in bench.events[1:]] == [
        (1, 1), (1, 2), (2, 1), (3, 1), (3, 2), (3, 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ran", "status", "exit_code", "time"),
    [
        (Ran(run=GOOD, stdout=b"41\n"), "WA", 0, 5),
        (Ran(run=Run(exit_code=3), stdout=b"42\n"), "RE", 3, 0),
        (Ran(run=Run(signal=11), stdout=b"42\n"), "RE", 139, 0),
        (Ran(run=Run(exit_code=139), stdout=b"42\n"), "RE", 139, 0),
        (Ran(run=Run(signal=13, output_exceeded=True)), "OLE", 141, 0),
        (Ran(run=Run(signal=9, out_of_memory=True, output_exceeded=True)), "MLE", 137, 0),
        (Ran(run=Run(signal=9, time_ms=1_101, out_of_memory=True)), "TLE", 137, 1_101),
        (Ran(run=Run(signal=9, time_ms=4, wall_ms=3_001)), "TLE", 137, 3_001),
        (Ran(run=Run(fault="no cgroup", time_ms=9_000)), "JE", -1, 9_000),
    ],
)
def test_the_order_of_verdicts(tmp_path: Path, ran: Ran, status: str, exit_code: int, time: int) -> None:
    """Planted defects: right output of a program that crashed; a time-out that is called a crash."""
    [[case]] = Bench(tmp_path).execute(judge(ScriptedSandbox(runs(ran))))
    assert (case["status"], case["exitCode"], case["execTime"]) == (status, exit_code, time)


def test_a_near_miss_is_run_once_more_and_counts_as_it_then_is(tmp_path: Path) -> None:
    """Planted defect: a program that another one held up for a moment is called too slow."""
    near = Ran(run=Run(exit_code=0, time_ms=1_090), stdout=b"42\n")
    bench = Bench(tmp_path)
    for script, status, count in [
        ((near, RIGHT), "AC", 2),
        ((near, Ran(run=GOOD, stdout=b"41\n")), "WA", 2),
        ((near, near, RIGHT), "TLE", 2),
        ((Ran(run=Run(signal=9, time_ms=1_150)), RIGHT), "TLE", 1),
    ]:
        sandbox = ScriptedSandbox(runs(*script))
        assert bench.execute(judge(sandbox))[0][0]["status"] == status
        assert len(sandbox.asked("run")) == count


def test_a_box_that_failed_once_is_no_fault_of_the_program(tmp_path: Path) -> None:
    failed = Ran(run=Run(fault="fork: no memory"))
    sandbox = ScriptedSandbox(runs(failed, RIGHT))
    assert Bench(tmp_path).execute(judge(sandbox))[0][0]["status"] == "AC"
    (tmp_path / "again").mkdir()
    [[case]] = Bench(tmp_path / "again").execute(judge(ScriptedSandbox(runs(failed))))
    assert (case["status"], case["stderr"]) == ("JE", "judge: fork: no memory")


@pytest.mark.parametrize(
    ("compiled", "status", "said"),
    [
        (Ran(run=Run(exit_code=1), stderr=b"main.cpp:1: error"), "CE", "main.cpp:1: error"),
        (Ran(run=Run(signal=11)), "CE", ""),
        (Ran(run=Run(signal=9, time_ms=99_999)), "CE", "The compiler took longer than 10 s."),
        (Ran(run=Run(signal=9, wall_ms=99_999)), "CE", "The compiler took longer than 10 s."),
        (
            Ran(run=Run(exit_code=1, out_of_memory=True), stderr=b"x"),
            "CE",
            "x\nThe compiler needed more than",
        ),
        (Ran(run=Run(exit_code=1, output_exceeded=True)), "CE", "The compiler printed more than 16 KiB."),
        (Ran(run=Run(fault="no uid is free")), "JE", "the compiler could not be run: no uid is free"),
        (Ran(run=GOOD, unfetched="it is a link"), "JE", "the compiled program is not there: it is a link"),
    ],
)
def test_a_compile_error_is_in_every_case_and_a_fault_is_none(
    tmp_path: Path, compiled: Ran, status: str, said: str
) -> None:
    """Planted defects: a missing compile result taken for CE; a job that ends without results."""
    bench = Bench(tmp_path, (2, 1))
    sandbox = ScriptedSandbox(answers(compile=compiled))
    tasks = bench.execute(judge(sandbox))
    cases = [case for task in tasks for case in task]
    assert [len(task) for task in tasks] == [2, 1]
    assert [case["status"] for case in cases] == [status] * 3
    assert cases[0]["stderr"].startswith(said)
    assert [case["stderr"] for case in cases[1:]] == ["", ""]
    assert sandbox.asked("run") == []
    assert [event["status"] for event in bench.events] == [status] * 4


def test_expected_answers_never_enter_the_box_of_a_run(tmp_path: Path) -> None:
    """Planted defect: the directory of the test data is seen from inside."""
    bench = Bench(tmp_path)
    (bench.testdata / "checker.cpp").write_text("int main() {}")
    sandbox = ScriptedSandbox(answers())
    bench.execute(judge(sandbox), bench.assignment(checker="checker.cpp"))
    [run] = sandbox.asked("run")
    assert list(run.files) == ["main"]
    assert run.stdin == bench.testdata / "0101.in"
    [program, checker] = sandbox.asked("compile")
    assert (list(program.files), list(checker.files)) == (["main.cpp"], ["main.cpp"])
    [check] = sandbox.asked("check")
    assert check.files["answer"] == bench.testdata / "0101.out"
    assert check.argv == ("./checker", "input", "output", "answer")


def test_python_is_run_from_its_source(tmp_path: Path) -> None:
    bench = Bench(tmp_path, language=2)
    sandbox = ScriptedSandbox(runs(RIGHT))
    assert bench.execute(judge(sandbox))[0][0]["status"] == "AC"
    [run] = sandbox.asked("run")
    assert isinstance(program := run.files["main.py"], Path)
    assert program.read_bytes() == b"int main() {}"
    assert not program.stat().st_mode & 0o222


# --- checkers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "said", "status", "remark"),
    [
        (GOOD, b"ok 3 numbers", "AC", "checker: ok 3 numbers"),
        (Run(exit_code=1), b"wrong answer\n", "WA", "checker: wrong answer"),
        (Run(exit_code=2), b"", "WA", ""),
        (Run(exit_code=4), b"", "WA", ""),
        (Run(exit_code=8), b"", "WA", ""),
        (Run(exit_code=3), b"FAIL", "JE", "checker: it ended with exit code 3 (RE); it said: FAIL"),
        (Run(exit_code=7), b"points 1 fine", "AC", "checker: points 1 fine"),
        (Run(exit_code=7), b"points 0.5 half", "WA", "checker: points 0.5 half"),
        (Run(exit_code=7), b"", "JE", "checker: it ended with exit code 7 (RE)"),
        (Run(exit_code=5), b"", "JE", "checker: it ended with exit code 5 (RE)"),
        (Run(signal=11), b"", "JE", "checker: signal 11 ended it (RE)"),
        (Run(signal=9, time_ms=99_999), b"", "JE", "checker: signal 9 ended it (TLE)"),
        (Run(exit_code=1, output_exceeded=True), b"", "JE", "checker: it ended with exit code 1 (OLE)"),
        (Run(fault="no uid is free"), b"", "JE", "checker: no uid is free"),
    ],
)
def test_a_problems_own_checker_speaks_by_its_exit_code(
    tmp_path: Path, run: Run, said: bytes, status: str, remark: str
) -> None:
    """Planted defect: a checker that crashed says that the answer is wrong."""
    bench = Bench(tmp_path)
    (bench.testdata / "checker.cpp").write_text("int main() {}")
    sandbox = ScriptedSandbox(answers(check=Ran(run=run, stderr=said)))
    [[case]] = bench.execute(judge(sandbox), bench.assignment(checker="checker.cpp"))
    assert (case["status"], case["stderr"]) == (status, remark)
    assert (case["exitCode"], case["stdout"]) == (0, "42\n")


@pytest.mark.parametrize(
    ("checker", "asked"), [("", 1), ("checker.cpp", 1), ("lines", 0), ("tokens", 0), ("floats", 0)]
)
def test_the_problems_own_checker_is_the_default(tmp_path: Path, checker: str, asked: int) -> None:
    bench = Bench(tmp_path)
    (bench.testdata / "checker.cpp").write_text("int main() {}")
    sandbox = ScriptedSandbox(answers())
    assert bench.execute(judge(sandbox), bench.assignment(checker=checker))[0][0]["status"] == "AC"
    assert len(sandbox.asked("check")) == asked


def test_a_checker_is_compiled_once_for_many_jobs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (3,))
    (bench.testdata / "checker.cpp").write_text("int main() {}")
    sandbox = ScriptedSandbox(answers())
    executor = judge(sandbox)
    job = bench.assignment(checker="checker.cpp")

    async def jobs() -> None:
        await asyncio.gather(*(bench.do(executor, job) for _ in range(3)))
        assert len(sandbox.asked("compile")) == 3 + 1
        (bench.testdata / "checker.cpp").write_text("int main() { return 1; }")
        await bench.do(executor, job)
        assert len(sandbox.asked("compile")) == 3 + 1 + 2

    asyncio.run(jobs())


def test_a_checker_that_does_not_compile_is_nobodys_wrong_answer(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (bench.testdata / "checker.cpp").write_text("int main(")

    def answer(command: Command, n: int) -> Ran | None:
        broken = kind(command) == "compile" and n == 1
        return Ran(run=Run(exit_code=1), stderr=b"expected )") if broken else None

    with pytest.raises(CannotJudge, match=r"checker\.cpp of this problem does not compile: expected \)"):
        bench.execute(judge(ScriptedSandbox(answer)), bench.assignment(checker="checker.cpp"))


# --- interactors ------------------------------------------------------------------------------------

BROKEN = Run(exit_code=1)
EARLY, LATE = 1, 2


@pytest.mark.parametrize(
    ("program", "ended", "interactor", "status"),
    [
        (GOOD, EARLY, GOOD, "AC"),
        (GOOD, LATE, GOOD, "AC"),
        (GOOD, EARLY, Run(exit_code=1), "WA"),
        (GOOD, EARLY, Run(exit_code=2), "WA"),
        (GOOD, EARLY, Run(signal=13), "WA"),
        (GOOD, LATE, Run(signal=13), "WA"),
        (BROKEN, LATE, Run(signal=13), "WA"),
        (Run(signal=13), LATE, Run(signal=13), "WA"),
        (GOOD, EARLY, Run(exit_code=3), "JE"),
        (GOOD, LATE, Run(signal=11), "JE"),
        (GOOD, EARLY, Run(signal=9, wall_ms=99_999), "JE"),
        (BROKEN, EARLY, Run(exit_code=1), "RE"),
        (BROKEN, LATE, Run(exit_code=1), "WA"),
        (BROKEN, LATE, Run(exit_code=3), "JE"),
        (BROKEN, LATE, GOOD, "RE"),
        (Run(signal=6), EARLY, Run(exit_code=1), "RE"),
        (Run(signal=6), LATE, Run(exit_code=1), "RE"),
        (Run(signal=6), LATE, GOOD, "RE"),
        (Run(signal=13), LATE, Run(exit_code=1), "WA"),
        (Run(signal=13), EARLY, Run(exit_code=1), "WA"),
        (Run(signal=13), EARLY, GOOD, "AC"),
        (Run(signal=13), EARLY, Run(exit_code=3), "JE"),
        (Run(signal=13, time_ms=2_000), EARLY, Run(exit_code=1), "TLE"),
        (Run(signal=9, wall_ms=3_001), EARLY, Run(exit_code=1), "TLE"),
        (Run(signal=9, time_ms=2_000), LATE, Run(exit_code=1), "WA"),
        (Run(signal=9, time_ms=2_000), LATE, GOOD, "TLE"),
        (Run(signal=9, out_of_memory=True), EARLY, Run(exit_code=1), "MLE"),
        (Run(fault="x"), EARLY, Run(exit_code=1), "JE"),
        (GOOD, EARLY, Run(fault="x"), "JE"),
    ],
)
def test_who_ended_first_counts_first(
    tmp_path: Path, program: Run, ended: int, interactor: Run, status: str
) -> None:
    """Planted defects: a deadlock that is a wrong answer; a crash that follows from a wrong answer; a SIGPIPE
    that is noticed before the end of whoever caused it; a program that stops reading and blames the judge."""
    bench = Bench(tmp_path)
    (bench.testdata / "interactor.cpp").write_text("int main() {}")
    theirs = Ran(run=interactor, ended_ns=3 - ended, stderr=b"5 guesses")
    sandbox = ScriptedSandbox(answers(run=Ran(run=program, ended_ns=ended), interact=theirs))
    [[case]] = bench.execute(judge(sandbox))
    assert case["status"] == status
    assert case["stderr"].startswith("interactor: ") or status in ("RE", "TLE")
    [ours, other] = sandbox.asked("run")[-1], sandbox.asked("interact")[-1]
    assert (ours.stdin, ours.stdout, list(ours.files)) == (None, None, ["main"])
    assert sorted(other.files) == ["answer", "input", "interactor"]
    assert other.limits.wall_ms > ours.limits.wall_ms


def test_a_talk_is_repeated_after_a_near_miss(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (bench.testdata / "interactor.cpp").write_text("int main() {}")
    sandbox = ScriptedSandbox(runs(Ran(run=Run(exit_code=0, time_ms=1_050)), Ran(run=GOOD)))
    [[case]] = bench.execute(judge(sandbox))
    assert case["status"] == "AC"


# --- what cannot be judged --------------------------------------------------------------------------

TASK = {"task_id": 1, "case_count": 1, "memory_limit": 65_536, "time_limit": 1_000}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"language": 99}, "no language 99"),
        ({"language": "1"}, "malformed"),
        ({"language": True}, "malformed"),
        ({"language": None}, "malformed"),
        ({"checker": "best"}, "no checker 'best'"),
        ({"checker": None}, "malformed"),
        ({"checker": "checker.cpp"}, r"no checker\.cpp"),
        ({"tasks": []}, "malformed"),
        ({"tasks": {}}, "malformed"),
        ({"tasks": None}, "malformed"),
        ({"tasks": [{}]}, "malformed"),
        ({"tasks": [TASK | {"case_count": 0}]}, "malformed"),
        ({"tasks": [TASK | {"case_count": 10**9}]}, "malformed"),
        ({"tasks": [TASK | {"case_count": 2}]}, r"no 0102\.in"),
        ({"tasks": [TASK | {"time_limit": 0}]}, "malformed"),
        ({"tasks": [TASK | {"time_limit": 10**30}]}, "malformed"),
        ({"tasks": [TASK | {"memory_limit": -1}]}, "malformed"),
        ({"tasks": [TASK, TASK]}, r"no 0201\.in"),
    ],
)
def test_what_makes_no_sense_is_handed_back_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """Planted defect: a job with zero cases that never ends, or ends as accepted."""
    bench = Bench(tmp_path)
    sandbox = ScriptedSandbox()
    with pytest.raises(CannotJudge, match=reason):
        bench.execute(judge(sandbox), bench.assignment(**changes))
    assert sandbox.commands == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda bench: bench.source.write_bytes(b"PK"), "no zip"),
        (lambda bench: (bench.testdata / "0101.out").unlink(), r"no 0101\.out"),
        (lambda bench: (bench.testdata / "0102.in").touch(), r"has 0102\.in, which is in no task"),
        (
            lambda bench: (bench.testdata / "0101.out").write_bytes(bytes(MAX_OUTPUT + 1)),
            r"0101\.out is larger",
        ),
        (lambda bench: (bench.testdata / "0101.in").rename(bench.testdata / "x"), r"no 0101\.in"),
        (lambda bench: bench.testdata.rename(bench.folder / "elsewhere"), "cannot be read: No such file"),
    ],
)
def test_broken_files_are_handed_back_with_the_reason(
    tmp_path: Path, change: Callable[[Bench], object], reason: str
) -> None:
    bench = Bench(tmp_path)
    change(bench)
    with pytest.raises(CannotJudge, match=reason):
        bench.execute(judge(ScriptedSandbox()))


def test_a_link_in_the_test_data_is_no_case(tmp_path: Path) -> None:
    """Planted defect: test data that points at a file of the runner's."""
    bench = Bench(tmp_path)
    (bench.testdata / "0101.in").unlink()
    (bench.testdata / "0101.in").symlink_to("/etc/passwd")
    with pytest.raises(CannotJudge, match=r"no 0101\.in"):
        bench.execute(judge(ScriptedSandbox()))


# --- turns, texts, ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(("processors", "at_once"), [(1, 1), (2, 2), (4, 3), (8, 6)])
def test_no_more_runs_at_a_time_than_may_be_measured(tmp_path: Path, processors: int, at_once: int) -> None:
    """Planted defect: each job has turns of its own."""
    bench = Bench(tmp_path, (12,))
    sandbox = ScriptedSandbox(runs(RIGHT), turns=5)
    executor = JudgeExecutor(sandbox, processors=processors)

    async def jobs() -> None:
        await asyncio.gather(*(bench.do(executor) for _ in range(3)))

    asyncio.run(jobs())
    assert sandbox.most["run"] == at_once
    assert len(sandbox.asked("run")) == 36


def test_texts_are_cut_and_whatever_is_not_utf8_is_replaced(tmp_path: Path) -> None:
    """Planted defects: a result of a gigabyte; half a letter; bytes that make the answer no JSON."""
    long = Ran(run=GOOD, stdout="é".encode() * TEXT + b"x", stderr=b"\xff\x00" * TEXT)
    [[case]] = Bench(tmp_path).execute(judge(ScriptedSandbox(runs(long))))
    assert case["stdout"] == "é" * (TEXT // 2)
    text, remark = case["stderr"].split("\n")
    assert text == "\ufffd\x00" * (TEXT // 2)
    assert remark.startswith("checker: line 1 is 'éé")


def test_half_a_letter_at_the_cut_is_left_out(tmp_path: Path) -> None:
    odd = Ran(run=GOOD, stdout=b"x" + "é".encode() * TEXT)
    [[case]] = Bench(tmp_path).execute(judge(ScriptedSandbox(runs(odd))))
    assert case["stdout"] == "x" + "é" * (TEXT // 2 - 1)


def test_outputs_do_not_stay(tmp_path: Path) -> None:
    """Planted defect: a job with many cases that fills the disk."""
    bench = Bench(tmp_path, (5,))
    bench.execute(judge(ScriptedSandbox(runs(Ran(run=GOOD, stdout=b"41"), RIGHT))))
    assert sorted(path.name for path in (tmp_path / "job.1").iterdir()) == ["program"]


def test_a_cancelled_job_ends_what_it_started(tmp_path: Path) -> None:
    """Planted defect: cases that go on after their job was lost."""
    bench = Bench(tmp_path, (9,))
    second = asyncio.Event()

    def answer(command: Command, n: int) -> Ran | None:
        if kind(command) == "run" and n == 1:
            second.set()
        return None

    sandbox = ScriptedSandbox(answer)
    sandbox.held = "run"

    async def cancel() -> None:
        job = asyncio.create_task(bench.do(JudgeExecutor(sandbox, processors=2)))
        await second.wait()
        await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert sandbox.running["run"] == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(cancel())
    assert sandbox.cancelled >= 2
    assert sorted(path.name for path in (tmp_path / "job.1").iterdir()) == ["program"]


def test_a_fault_of_ours_is_no_verdict(tmp_path: Path) -> None:
    """Planted defect: a full disk that makes somebody's answer wrong."""

    def answer(command: Command, n: int) -> Ran | None:
        if kind(command) == "run" and n == 1:
            raise OSError("No space left on device")
        return RIGHT if kind(command) == "run" else None

    with pytest.raises(OSError, match="No space left"):
        Bench(tmp_path, (4,)).execute(judge(ScriptedSandbox(answer)))
