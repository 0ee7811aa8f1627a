"""A sandbox that does what a test says, and remembers what it was asked for."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from windlass.judge.languages import LANGUAGES
from windlass.judge.source import pack_source
from windlass.judge.verdict import Run
from windlass.runner.executors.base import Assignment, Event, Executor
from windlass.runner.sandbox import CHECKS, Command, Pair, Ran, Sandbox
from windlass.runner.workspace import JobDirectory

GOOD = Run(exit_code=0, time_ms=5, wall_ms=7, memory_kib=900)


def kind(command: Command) -> str:
    """What a command is for: "compile", "check", "interact" or "run"."""
    names = {"gcc": "compile", "g++": "compile", "./checker": "check", "./interactor": "interact"}
    if command.argv[0] == "python3" and "-c" in command.argv:
        return "compile"
    return names.get(command.argv[0], "run")


def all_of(result: bytes | Path) -> bytes:
    """A result, wherever it is."""
    return result.read_bytes() if isinstance(result, Path) else result


class ScriptedSandbox(Sandbox):
    """`answer(command, n)` says what became of the n-th command of its kind (from 0); None: all went well.

    A Ran's stdout goes where the command wants it. Every run takes `turns` turns of the event loop; what is
    `held` ("run", ...) never ends.
    """

    def __init__(
        self, answer: Callable[[Command, int], Ran | None] = lambda *_: None, turns: int = 1
    ) -> None:
        self.answer = answer
        self.turns = turns
        self.commands: list[tuple[str, Command]] = []
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.held = ""
        self.cancelled = 0

    @property
    def enforces(self) -> Mapping[str, bool]:
        return dict.fromkeys(CHECKS, True)

    @property
    def missing(self) -> Mapping[str, str]:
        return {}

    async def run(self, command: Command) -> Ran:
        what = kind(command)
        self.running[what] = self.running.get(what, 0) + 1
        self.most[what] = max(self.most.get(what, 0), self.running[what])
        ran = self._answer(what, command)
        try:
            if what == self.held:
                await asyncio.Event().wait()
            for _ in range(self.turns):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running[what] -= 1
        return self._deliver(command, ran)

    async def run_pair(self, one: Command, other: Command) -> Pair:
        return Pair(await self.run(one), await self.run(other))

    async def close(self) -> None:
        pass

    def asked(self, what: str) -> list[Command]:
        return [command for name, command in self.commands if name == what]

    def _answer(self, what: str, command: Command) -> Ran:
        count = len(self.asked(what))
        self.commands.append((what, command))
        return self.answer(command, count) or Ran(run=GOOD)

    def _deliver(self, command: Command, ran: Ran) -> Ran:
        if isinstance(command.stdout, Path):
            with command.stdout.open("xb") as file:
                file.write(ran.stdout)
            ran = msgspec.structs.replace(ran, stdout=b"")
        elif command.stdout is not None:
            os.write(command.stdout, ran.stdout)
            ran = msgspec.structs.replace(ran, stdout=b"")
        if command.fetch and ran.run == GOOD and not ran.unfetched:
            command.fetch.to.write_bytes(b"\x7fELF")
            ran = msgspec.structs.replace(ran, fetched=command.fetch.to)
        return ran


class Bench:
    """A folder with a source and test data in which executors do jobs of `cases` cases in each task."""

    def __init__(self, folder: Path, cases: tuple[int, ...] = (1,), language: int = 1) -> None:
        self.folder = folder
        self.cases = cases
        self.language = language
        self.events: list[Event] = []
        self.source = folder / "source.zip"
        self.source.write_bytes(pack_source(b"int main() {}", LANGUAGES[language]))
        self.testdata = folder / "testdata"
        self.testdata.mkdir()
        for task, count in enumerate(cases, 1):
            for case in range(1, count + 1):
                (self.testdata / f"{task:02}{case:02}.in").write_text(f"{task} {case}\n")
                (self.testdata / f"{task:02}{case:02}.out").write_text("42\n")

    def payload(self, **changes: Any) -> dict[str, Any]:
        tasks = [
            {"task_id": 70 + n, "case_count": count, "memory_limit": 65_536, "time_limit": 1_000}
            for n, count in enumerate(self.cases)
        ]
        job = {"job_id": "jb_1", "submission_id": "sb_1", "problem_id": 7, "language": self.language}
        return {**job, "code_url": "http://server/code", "checker": "", "tasks": tasks, **changes}

    def assignment(self, **changes: Any) -> Assignment:
        return Assignment(payload=self.payload(**changes), source=self.source, testdata=self.testdata)

    def directory(self) -> JobDirectory:
        return JobDirectory(self.folder, "job")

    def execute(self, executor: Executor, assignment: Assignment | None = None) -> list[list[dict[str, Any]]]:
        """The tasks of the result."""
        return asyncio.run(self.do(executor, assignment))

    async def do(
        self, executor: Executor, assignment: Assignment | None = None
    ) -> list[list[dict[str, Any]]]:
        job = assignment or self.assignment()
        done = await executor.execute(job, self.directory(), self.events.append)
        result = json.loads(all_of(done.result))
        assert list(result) == ["tasks"]
        tasks: list[list[dict[str, Any]]] = result["tasks"]
        return tasks
