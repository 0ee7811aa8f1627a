"""One case: the program runs in a box, and somebody says whether what it did was right."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from windlass.judge.checkers import Checked, Checker
from windlass.judge.languages import Language
from windlass.judge.testdata import Case
from windlass.judge.verdict import Limits, Status, again, of_run
from windlass.runner.executors.results import TEXT, CaseResult, text, with_remark
from windlass.runner.sandbox import Command, Pair, Ran, Sandbox

MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes that a program may print: more is OLE."""
HELPER = Limits(time_ms=10_000, memory_kib=1024 * 1024, wall_ms=30_000)
"""What a problem's checker may use for a case. An interactor may wait for its program besides."""
_REMARK = 1024
"""Bytes of what a checker or an interactor says that are told."""
_SMALL = 64 * 1024
"""Bytes that are compared on the event loop; for more a thread is started."""
_SIGPIPE = 13

# testlib.h: _ok, _wa, _pe, _fail, _dirt, _points, _unexpected_eof
_WRONG = frozenset({1, 2, 4, 8})
_POINTS = 7
_SHARE = re.compile(rb"\s*(?:points\s+)?(\d{1,9}(?:\.\d{0,9})?)")


class Judging(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all cases of a job."""

    language: Language
    program: Path
    testdata: Path
    directory: Path
    check: Checker | Path
    """A built-in checker, or the program of the problem's own."""
    interactor: Path | None
    measured: AbstractAsyncContextManager[object]
    """Entered for each run whose time counts."""
    unmeasured: AbstractAsyncContextManager[object]
    """Entered for each piece of other work."""


async def judge_case(sandbox: Sandbox, judging: Judging, case: Case, limits: Limits) -> CaseResult:
    """Run one case to its verdict. Whatever goes wrong is in the result."""
    if judging.interactor is not None:
        return await _talk(sandbox, judging, judging.interactor, case, limits)
    output = judging.directory / f"{case.task:02}{case.number:02}.output"
    try:
        command = msgspec.structs.replace(
            _command(judging, limits), stdin=judging.testdata / case.input, stdout=output
        )
        ran = await _measure(sandbox, judging, command, output)
        status, remark = of_run(ran.run, limits), ran.run.fault or ""
        who = "judge"
        if status is None:
            who = "checker"
            async with judging.unmeasured:
                status, remark = await _check(sandbox, judging, case, output)
        shown = await asyncio.to_thread(_head, output)
    finally:
        _remove(output)
    stderr = with_remark(text(ran.stderr), who, remark)
    return CaseResult.of(ran.run, status, stdout=text(shown), stderr=stderr)


async def _measure(sandbox: Sandbox, judging: Judging, command: Command, output: Path) -> Ran:
    """Run the program; once more where the box failed, or the time was missed by a hair."""
    async with judging.measured:
        ran = await sandbox.run(command)
        if ran.run.fault is not None or again(ran.run, command.limits):
            _remove(output)
            ran = await sandbox.run(command)
        return ran


def _command(judging: Judging, limits: Limits) -> Command:
    return Command(
        argv=judging.language.argv,
        limits=limits,
        files={judging.language.program: judging.program},
        output_bytes=MAX_OUTPUT,
        processes=judging.language.processes,
    )


def _remove(output: Path) -> None:
    output.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size


def _head(output: Path) -> bytes:
    """A little more than is shown, so that one sees that there is more; nothing where nothing came."""
    try:
        with output.open("rb") as file:
            return file.read(TEXT + 1)
    except FileNotFoundError:
        return b""


# --- checkers ---------------------------------------------------------------------------------------


async def _check(sandbox: Sandbox, judging: Judging, case: Case, output: Path) -> tuple[Status, str]:
    expected = judging.testdata / case.expected
    if not isinstance(judging.check, Path):
        if _size(output) + _size(expected) <= _SMALL:
            checked = _compare(judging.check, output, expected)
        else:
            checked = await asyncio.to_thread(_compare, judging.check, output, expected)
        return Status.ACCEPTED if checked.accepted else Status.WRONG_ANSWER, checked.reason
    files: Mapping[str, bytes | Path] = {
        "checker": judging.check,
        "input": judging.testdata / case.input,
        "output": output,
        "answer": expected,
    }
    ran = await sandbox.run(
        Command(
            argv=("./checker", "input", "output", "answer"),
            limits=HELPER,
            files=files,
            stderr_bytes=_REMARK,
        )
    )
    return of_checker(ran)


def _compare(check: Checker, output: Path, expected: Path) -> Checked:
    return check(output.read_bytes(), expected.read_bytes())


def of_checker(ran: Ran) -> tuple[Status, str]:
    """What a problem's own checker said, by testlib's exit codes, and its words."""
    return _says(ran, HELPER)


def _says(ran: Ran, limits: Limits) -> tuple[Status, str]:
    """AC or WA as a checker or an interactor has it, JE where it failed; and its words, or how it failed.

    Points count as right when they are the whole (1) or more: the wire knows no shares of a case.
    """
    run, said = ran.run, text(ran.stderr, _REMARK).strip()
    found = of_run(run, limits)
    code = run.exit_code if found is Status.RUNTIME_ERROR and run.signal is None else None
    if found is None:
        return Status.ACCEPTED, said
    if code in _WRONG:
        return Status.WRONG_ANSWER, said
    if code == _POINTS and (share := _SHARE.match(ran.stderr)):
        return Status.ACCEPTED if float(share[1]) >= 1 else Status.WRONG_ANSWER, said
    if run.fault is not None:
        how = run.fault
    elif run.signal is not None:
        how = f"signal {run.signal} ended it ({found})"
    else:
        how = f"it ended with exit code {run.exit_code} ({found})"
    return Status.JUDGE_ERROR, f"{how}; it said: {said}" if said else how


# --- interactors ------------------------------------------------------------------------------------


async def _talk(
    sandbox: Sandbox, judging: Judging, interactor: Path, case: Case, limits: Limits
) -> CaseResult:
    files: Mapping[str, bytes | Path] = {
        "interactor": interactor,
        "input": judging.testdata / case.input,
        "answer": judging.testdata / case.expected,
    }
    theirs = Command(
        argv=("./interactor", "input", "output", "answer"),
        # Where both wait for the other, it is the program's time that runs out.
        limits=msgspec.structs.replace(HELPER, wall_ms=limits.wall_ms + HELPER.wall_ms),
        files=files,
        stderr_bytes=_REMARK,
    )
    ours = _command(judging, limits)
    async with judging.measured:
        pair = await sandbox.run_pair(ours, theirs)
        faults = pair.one.run.fault or pair.other.run.fault
        if faults is not None or again(pair.one.run, limits):
            pair = await sandbox.run_pair(ours, theirs)
    status, remark = of_pair(pair, limits, theirs.limits)
    stderr = with_remark(text(pair.one.stderr), "interactor", remark)
    return CaseResult.of(pair.one.run, status, stderr=stderr)


def of_pair(pair: Pair, limits: Limits, theirs: Limits) -> tuple[Status, str]:
    """The verdict of a program (one) that talked to an interactor (other), and the interactor's words.

    A signal is the program's own end. Else what ended first counts first: a program that gives up, or never
    ends, because the interactor has left with "wrong" is wrong; an interactor that finds its program gone
    says "wrong" too, but the program failed. SIGPIPE is nobody's own: it ends whoever talks on to one that
    has left, and is noticed sooner than that one's end.
    """
    program = of_run(pair.one.run, limits)
    found, said = _says(pair.other, theirs)
    for ran in (pair.one, pair.other):
        if ran.run.fault is not None:
            return Status.JUDGE_ERROR, ran.run.fault
    signalled = program is Status.RUNTIME_ERROR and pair.one.run.signal is not None
    if signalled and pair.one.run.signal == _SIGPIPE:
        program = None
    if program is not None and (pair.one_ended_first or signalled):
        return program, said
    if pair.other.run.signal == _SIGPIPE:
        return Status.WRONG_ANSWER, "the program does not read any more"
    if found is Status.ACCEPTED and program is not None:
        return program, said
    return found, said
