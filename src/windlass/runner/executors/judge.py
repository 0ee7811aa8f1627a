"""The executor that judges a submission: compile once, run every case, and a result for each, always."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from windlass.errors import Invalid, TooLarge
from windlass.judge.checkers import checker_of
from windlass.judge.languages import language_of
from windlass.judge.source import read_source
from windlass.judge.testdata import CHECKER, INTERACTOR, PROGRAMS, Case
from windlass.judge.verdict import Limits
from windlass.runner.executors.base import Assignment, CannotJudge, Executed, Executor, Progress
from windlass.runner.executors.cases import MAX_OUTPUT, Judging, judge_case
from windlass.runner.executors.programs import Built, Helpers, build
from windlass.runner.executors.results import CaseResult, ResultWriter
from windlass.runner.sandbox import Sandbox
from windlass.runner.workspace import JobDirectory

_WAITING = 1000
"""Milliseconds on a clock that a program may wait, besides twice its time limit."""


class _Task(msgspec.Struct, frozen=True):
    case_count: Annotated[int, msgspec.Meta(ge=1, le=99)]
    memory_limit: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    time_limit: Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]

    @property
    def limits(self) -> Limits:
        return Limits(
            time_ms=self.time_limit,
            memory_kib=self.memory_limit,
            wall_ms=2 * self.time_limit + _WAITING,
        )


class _Job(msgspec.Struct, frozen=True):
    """What the judge needs of a job; whatever else it says is for others."""

    language: int
    tasks: Annotated[list[_Task], msgspec.Meta(min_length=1, max_length=99)]
    checker: str = ""
    """The default is the problem's own where its test data brings one, else "lines"."""

    def cases(self) -> list[Case]:
        """In order. Files are named by a task's place in the list, whatever its id is."""
        return [
            Case(place, number)
            for place, task in enumerate(self.tasks, 1)
            for number in range(1, task.case_count + 1)
        ]


class JudgeExecutor(Executor):
    """Judges in `sandbox`, which stays the caller's.

    As many programs whose time counts run at once as three quarters of the processors, rounded up; compilers
    and checkers take turns of their own. All jobs share both, case by case (docs/decisions/0033).

    Events: `{"event": "compiled", "status": null | "CE" | "JE"}`, then for every case `{"event": "case",
    "task", "case", "status", "execTime", "memoryUsage"}`, in order.
    """

    def __init__(
        self, sandbox: Sandbox, *, processors: int | None = None, compilers_here: bool = True
    ) -> None:
        """`processors`: how many there are for it; by default as many as this process may use.
        `compilers_here`: boxes have the compilers of this host, and one can look which there are."""
        count = max(1, processors or len(os.sched_getaffinity(0)))
        self._sandbox = sandbox
        self._compilers_here = compilers_here
        self._runs = count - count // 4
        self._measured = asyncio.Semaphore(self._runs)
        self._unmeasured = asyncio.Semaphore(max(1, count // 2))
        self._helpers = Helpers(sandbox, self._unmeasured)

    async def execute(self, assignment: Assignment, directory: JobDirectory, progress: Progress) -> Executed:
        """Judge a submission. The result: `{"tasks": [[{"stdout", "stderr", "exitCode", "execTime" (ms),
        "memoryUsage" (KiB), "status"}, ...], ...]}`, whatever the program did."""
        try:
            job = msgspec.convert(assignment.payload, _Job)
            language = language_of(job.language)
            builtin = None if job.checker == CHECKER else checker_of(job.checker)
        except msgspec.ValidationError as error:
            raise CannotJudge(f"The job is malformed: {error}.") from None
        except Invalid as error:
            raise CannotJudge(str(error)) from None
        if missing := language.missing() if self._compilers_here else []:
            raise CannotJudge(
                f"This runner cannot judge {language.name}: {', '.join(missing)} is not installed."
            )
        if assignment.source is None or assignment.testdata is None:
            raise CannotJudge("The job came without its source or its test data.")
        testdata = assignment.testdata
        programs = await asyncio.to_thread(_look_at, testdata, job)
        if not job.checker and CHECKER in programs:
            builtin = None
        try:
            source = await asyncio.to_thread(read_source, assignment.source, language)
        except (Invalid, TooLarge) as error:
            raise CannotJudge(str(error)) from None
        async with self._unmeasured:
            built = await build(self._sandbox, language, source, directory.path / "program")
        progress({"event": "compiled", "status": built.status})
        with ResultWriter(directory) as writer:
            if built.program is None:
                for case, failed in zip(job.cases(), _unbuilt(built), strict=False):
                    _tell(writer, progress, case, failed)
            else:
                judging = Judging(
                    language=language,
                    program=built.program,
                    testdata=testdata,
                    directory=directory.path,
                    check=builtin or await self._helpers.program(testdata / CHECKER, directory.path),
                    interactor=await self._helpers.program(testdata / INTERACTOR, directory.path)
                    if INTERACTOR in programs
                    else None,
                    measured=self._measured,
                    unmeasured=self._unmeasured,
                )
                await self._judge(judging, job, writer, progress)
            writer.end()
        return Executed(result=writer.result)

    async def _judge(self, judging: Judging, job: _Job, writer: ResultWriter, progress: Progress) -> None:
        """Run the cases, one more at a time than may run: its output is checked while the next one runs."""

        def start(case: Case) -> asyncio.Task[CaseResult]:
            limits = job.tasks[case.task - 1].limits
            return asyncio.create_task(judge_case(self._sandbox, judging, case, limits))

        under_way: deque[tuple[Case, asyncio.Task[CaseResult]]] = deque()
        cases = deque(job.cases())
        try:
            while cases or under_way:
                while cases and len(under_way) <= self._runs:
                    case = cases.popleft()
                    under_way.append((case, start(case)))
                case, task = under_way[0]
                await asyncio.wait((task,))  # when this is cancelled, all are together, below
                _tell(writer, progress, case, task.result())
                under_way.popleft()
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


def _tell(writer: ResultWriter, progress: Progress, case: Case, result: CaseResult) -> None:
    if case.number == 1:
        writer.begin_task()
    writer.add(result)
    progress(
        {
            "event": "case",
            "task": case.task,
            "case": case.number,
            "status": result.status,
            "execTime": result.exec_time,
            "memoryUsage": result.memory_usage,
        }
    )


def _unbuilt(built: Built) -> Iterator[CaseResult]:
    """The results of a program that could not be compiled, as many as anybody asks for."""
    assert built.status is not None
    yield CaseResult(status=built.status, exit_code=built.exit_code, stderr=built.said)
    while True:
        yield CaseResult(status=built.status, exit_code=built.exit_code)


def _look_at(testdata: Path, job: _Job) -> set[str]:
    """Which programs the test data brings; a link is none.

    Raises CannotJudge unless it is what the job says: nothing is judged by half of it.
    """
    needed = {name for case in job.cases() for name in (case.input, case.expected)}
    if job.checker == CHECKER:
        needed.add(CHECKER)
    try:
        there = {entry.name: entry for entry in os.scandir(testdata) if entry.is_file(follow_symlinks=False)}
        sizes = {name: there[name].stat().st_size for name in needed & there.keys()}
    except OSError as error:
        raise CannotJudge(f"The test data cannot be read: {error.strerror}.") from None
    if absent := sorted(needed - there.keys()):
        raise CannotJudge(f"The test data has no {absent[0]}.")
    if extra := sorted(there.keys() - needed - set(PROGRAMS)):
        raise CannotJudge(f"The test data has {extra[0]}, which is in no task of the job.")
    for case in job.cases():
        if sizes[case.expected] > MAX_OUTPUT:
            raise CannotJudge(f"{case.expected} is larger than anything that a program may print.")
    return set(PROGRAMS) & there.keys()
