"""Any command: what it prints is told while it runs, and its exit code is an answer like any other."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runner.executors.scripted import GOOD, Bench, ScriptedSandbox
from windlass.errors import Invalid
from windlass.judge.verdict import Run
from windlass.runner.executors import command
from windlass.runner.executors.base import Assignment, CannotJudge
from windlass.runner.executors.command import CommandExecutor
from windlass.runner.sandbox import Command, Ran


def asked(**changes: Any) -> Assignment:
    return Assignment(payload={"job_id": "jb_1", "command": {"argv": ["make", "all"], **changes}})


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def told(bench: Bench) -> str:
    return "".join(str(event["text"]) for event in bench.events if event["event"] == "output")


def test_a_command_gets_what_it_was_given(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    sandbox = ScriptedSandbox(lambda *_: Ran(run=GOOD, stdout=b"done\n"))
    job = asked(
        env={"LEVEL": "3"}, files={"src/a.c": "int a;"}, stdin="yes\n", time_limit=50, memory_limit=900
    )
    [[case]] = bench.execute(CommandExecutor(sandbox), job)
    assert (case["status"], case["exitCode"], case["stdout"], told(bench)) == ("AC", 0, "done\n", "done\n")
    [(_, run)] = sandbox.commands
    assert run.argv[-2:] == ("make", "all")
    assert run.environment == {"LEVEL": "3"}
    assert run.files == {"src/a.c": b"int a;"}
    assert (run.limits.time_ms, run.limits.wall_ms, run.limits.memory_kib) == (50, 50, 900)
    assert isinstance(run.stdin, Path)
    assert run.stdin.read_text() == "yes\n"


@pytest.mark.parametrize(
    ("run", "status", "exit_code", "stderr"),
    [
        (Run(exit_code=42), "RE", 42, ""),
        (Run(signal=15), "RE", 143, ""),
        (Run(exit_code=0, out_of_memory=True), "MLE", 0, ""),
        (Run(signal=9, wall_ms=3_600_001), "TLE", 137, ""),
        (Run(fault="no uid is free"), "JE", -1, "sandbox: no uid is free"),
    ],
)
def test_any_end_is_an_answer(tmp_path: Path, run: Run, status: str, exit_code: int, stderr: str) -> None:
    [[case]] = Bench(tmp_path).execute(CommandExecutor(ScriptedSandbox(lambda *_: Ran(run=run))), asked())
    assert (case["status"], case["exitCode"], case["stderr"]) == (status, exit_code, stderr)


class Talking(ScriptedSandbox):
    """Prints what it is given, piece by piece, and waits each time until that was told."""

    def __init__(self, pieces: list[bytes], bench: Bench) -> None:
        super().__init__()
        self.pieces = pieces
        self.bench = bench

    async def run(self, command: Command) -> Ran:
        assert isinstance(command.stdout, int)
        for piece in self.pieces:
            before = len(self.bench.events)
            os.write(command.stdout, piece)
            async with asyncio.timeout(60):
                while len(self.bench.events) == before:  # noqa: ASYNC110 - events come by a plain call
                    await asyncio.sleep(0)
        return Ran(run=GOOD)


def test_output_is_told_while_the_command_runs(tmp_path: Path) -> None:
    """Planted defects: output that comes at the end; a letter in two pieces that becomes two unknown ones."""
    bench = Bench(tmp_path)
    pieces = [b"one\n", b"caf\xc3", b"\xa9\n\xff"]
    [[case]] = bench.execute(CommandExecutor(Talking(pieces, bench)), asked())
    assert [event["text"] for event in bench.events] == ["one\n", "caf", "é\n\ufffd"]
    assert case["stdout"] == "one\ncafé\n\ufffd"


def test_what_is_too_much_is_dropped_and_that_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: a pipe that nobody drains; a log of 100 GB."""
    monkeypatch.setattr(command, "MAX_TOLD", 100)
    monkeypatch.setattr(command, "MAX_KEPT", 10)
    bench = Bench(tmp_path)

    class Verbose(ScriptedSandbox):
        async def run(self, command: Command) -> Ran:
            assert isinstance(command.stdout, int)
            for piece in (b"x" * 60_000, b"y" * 60_000, b"z" * 60_000 + b"the end"):
                await asyncio.to_thread(os.write, command.stdout, piece)
            return Ran(run=GOOD)

    [[case]] = bench.execute(CommandExecutor(Verbose()), asked())
    assert bench.events == [{"event": "output", "text": "", "truncated": True}]
    assert case["stdout"] == "zzzthe end"


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": []},
        {"argv": "make"},
        {"argv": [1]},
        {"env": {"A": 1}},
        {"files": ["a"]},
        {"time_limit": 0},
        {"processes": 10**9},
        {"root": True},
    ],
)
def test_what_makes_no_sense_is_handed_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    sandbox = ScriptedSandbox()
    with pytest.raises(CannotJudge, match="malformed"):
        Bench(tmp_path).execute(CommandExecutor(sandbox), asked(**changes))
    assert sandbox.commands == []


def test_what_the_sandbox_refuses_is_handed_back(tmp_path: Path) -> None:
    def refuse(*_: object) -> Ran:
        raise Invalid("../x leaves the box.", field="files")

    before = descriptors()
    with pytest.raises(CannotJudge, match=r"\.\./x leaves the box"):
        Bench(tmp_path).execute(CommandExecutor(ScriptedSandbox(refuse)), asked(files={"../x": ""}))
    assert descriptors() <= before


def test_a_lone_surrogate_is_handed_back(tmp_path: Path) -> None:
    with pytest.raises(CannotJudge, match="cannot be run"):
        Bench(tmp_path).execute(CommandExecutor(ScriptedSandbox()), asked(stdin="\ud800"))


def test_a_cancelled_command_leaves_nothing_open(tmp_path: Path) -> None:
    """Planted defect: a descriptor lost for every command that was cancelled."""
    bench = Bench(tmp_path)
    started = asyncio.Event()

    def answer(*_: object) -> None:
        started.set()

    sandbox = ScriptedSandbox(answer)
    sandbox.held = "run"

    async def cancel() -> None:
        before = descriptors()
        job = asyncio.create_task(bench.do(CommandExecutor(sandbox), asked()))
        await started.wait()
        await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await asyncio.sleep(0)
        assert descriptors() <= before

    asyncio.run(cancel())
