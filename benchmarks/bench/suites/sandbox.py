"""What a box costs: one run in it against a bare fork and exec, and a hundred cases of a C++ program.

The bare run is what a judge without a sandbox would do: posix_spawn with the same standard descriptors, and
waitpid. Both runs alternate, so that each round is made of pairs.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from bench.processes import BenchmarkError, scratch_directory
from bench.results import Options, Result, begin, finish
from windlass.errors import WindlassError
from windlass.judge.verdict import Limits
from windlass.runner.sandbox import Command, Ran, Sandbox, open_sandbox

_LIMITS = Limits(time_ms=10_000, memory_kib=262_144, wall_ms=30_000)
_TRUE = "/usr/bin/true"
_CASES = 100
_AT_ONCE = 2
_NUMBERS = 200_000
_MEASURED = "processor time that a case is judged by"
_SMALL, _LARGE = "a + b", f"{_NUMBERS:,} numbers sorted"
_ADDING = """
#include <cstdio>
int main() { long a, b; if (scanf("%ld %ld", &a, &b) == 2) printf("%ld\\n", a + b); }
"""
_SORTING = """
#include <algorithm>
#include <iostream>
#include <vector>
int main() {
    std::ios::sync_with_stdio(false);
    std::cin.tie(nullptr);
    std::vector<long> numbers;
    for (long number; std::cin >> number;) numbers.push_back(number);
    std::sort(numbers.begin(), numbers.end());
    long sum = 0;
    for (size_t n = 0; n < numbers.size(); n++) sum ^= numbers[n] * (n + 1);
    std::cout << sum << '\\n';
}
"""


def run(options: Options) -> None:
    if shutil.which("g++") is None:
        raise BenchmarkError("g++ is not installed")
    result = begin("sandbox", options)
    rng = random.Random(1)
    numbers = "".join(f"{rng.randrange(10**9)}\n" for _ in range(_NUMBERS))
    with scratch_directory(options.scratch, "sandbox") as directory:
        cases = {
            _SMALL: _prepare(directory, "adding", _ADDING, "1 2\n"),
            _LARGE: _prepare(directory, "sorting", _SORTING, numbers),
        }
        try:
            asyncio.run(_measure(options, result, cases))
        except WindlassError as error:
            raise BenchmarkError(error.detail) from error
    finish(result)


async def _measure(options: Options, result: Result, cases: dict[str, Case]) -> None:
    async with await open_sandbox() as sandbox:
        if options.wants("true"):
            await _one(options, result, sandbox)
        if options.wants("cases"):
            await _cases(options, result, sandbox, cases)
    one = "one run of true"
    result.limit("a box over a bare fork and exec, ms", (one, "difference"), at_most=15.0)
    result.ratio("a box by a bare run", (one, "in a box"), (one, "bare"))
    result.ratio(
        "a case's measured time beside another by alone", (_MEASURED, "beside another"), (_MEASURED, "alone")
    )
    for name in cases:
        metric = f"{_CASES} cases: {name}"
        aim = 2.0 if name == _LARGE else None
        result.ratio(
            f"{metric}, in boxes by bare", (metric, "in boxes"), (metric, "bare"), aim=aim, at_most=True
        )
        result.ratio(f"{metric}, {_AT_ONCE} boxes at a time by bare",
                     (metric, f"{_AT_ONCE} boxes at a time"), (metric, "bare"))  # fmt: skip


async def _one(options: Options, result: Result, sandbox: Sandbox) -> None:
    metric, command = "one run of true", Command(argv=(_TRUE,), limits=_LIMITS)
    result.units[metric] = "ms"
    for _ in range(10):
        await _checked(sandbox, command)
    for round_ in range(1, options.rounds + 1):
        bare, boxed = [], []
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            bare.append(_timed(partial(_bare, _TRUE, os.devnull)))
            started = time.perf_counter()
            await _checked(sandbox, command)
            boxed.append((time.perf_counter() - started) * 1e3)
        pairs = [boxed_ms - bare_ms for boxed_ms, bare_ms in zip(boxed, bare, strict=True)]
        result.add(metric, "bare", round_, statistics.median(bare), runs=len(bare))
        result.add(metric, "in a box", round_, statistics.median(boxed), runs=len(boxed), slowest=max(boxed))
        result.add(metric, "difference", round_, statistics.median(pairs))


class Case(msgspec.Struct):
    """A program, one input, and what it says to it."""

    program: Path
    text: Path
    answer: bytes


def _prepare(directory: Path, name: str, source: str, text: str) -> Case:
    program, case = directory / f"{name}.out", directory / f"{name}.in"
    subprocess.run(["g++", "-O2", "-x", "c++", "-", "-o", program], input=source, text=True, check=True)
    case.write_text(text, encoding="ascii")
    answer = subprocess.run([program], input=text.encode(), capture_output=True, check=True).stdout
    return Case(program, case, answer)


async def _cases(options: Options, result: Result, sandbox: Sandbox, cases: dict[str, Case]) -> None:
    for name, case in cases.items():
        metric = f"{_CASES} cases: {name}"
        result.units[metric] = result.units[_MEASURED] = "ms"
        command = Command(argv=("./main",), files={"main": case.program}, stdin=case.text, limits=_LIMITS)
        if (await _checked(sandbox, command)).stdout != case.answer:
            raise BenchmarkError("the program says something else in a box")
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(command: Command = command, at_once: asyncio.Semaphore = at_once) -> int:
            async with at_once:
                return (await _checked(sandbox, command)).run.time_ms

        for round_ in range(1, options.rounds + 1):
            taken = sum(_timed(partial(_bare, str(case.program), str(case.text))) for _ in range(_CASES))
            result.add(metric, "bare", round_, taken)
            started = time.perf_counter()
            alone = [(await _checked(sandbox, command)).run.time_ms for _ in range(_CASES)]
            result.add(metric, "in boxes", round_, (time.perf_counter() - started) * 1e3)
            started = time.perf_counter()
            beside = await asyncio.gather(*(one() for _ in range(_CASES)))
            taken = (time.perf_counter() - started) * 1e3
            result.add(metric, f"{_AT_ONCE} boxes at a time", round_, taken)
            if name == _LARGE:
                result.add(_MEASURED, "alone", round_, statistics.median(alone))
                result.add(_MEASURED, "beside another", round_, statistics.median(beside))


async def _checked(sandbox: Sandbox, command: Command) -> Ran:
    ran = await sandbox.run(command)
    if ran.run.exit_code != 0:
        raise BenchmarkError(f"a run in a box failed: {ran.run}")
    return ran


def _bare(program: str, stdin: str) -> None:
    """A fork, an exec, and the wait for its end; what it writes is thrown away."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    process = os.posix_spawn(program, [program], {}, file_actions=actions)
    if os.waitpid(process, 0)[1] != 0:
        raise BenchmarkError(f"{program} failed")


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3
