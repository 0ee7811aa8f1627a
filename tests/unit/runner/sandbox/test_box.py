"""A box with a shim that says what the test wants, when the test wants it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from windlass.judge.verdict import Limits, Run, Status, of_run
from windlass.runner.sandbox import Command, Ran, box
from windlass.runner.sandbox.box import Box, Host
from windlass.runner.sandbox.cgroup import NoGroups

LIMITS = Limits(time_ms=1_000, memory_kib=65_536, wall_ms=100)
COPIES_STDIN_TO_STATUS = f"""#!{sys.executable} -IS
import os, sys
status = int(os.pread(int(sys.argv[7]), 100, 0).split(b"\\0")[0])
os.write(int(sys.argv[9]), b"!")
while line := os.read(int(sys.argv[8]), 4096):
    os.write(status, line)
"""


class Shim:
    """Says on the status pipe what it is told to."""

    def __init__(self) -> None:
        self.stdin, self._tell = os.pipe()
        self._ready, self.stdout = os.pipe()
        self.open = [self.stdin, self._tell, self._ready, self.stdout]

    async def ready(self) -> None:
        await asyncio.to_thread(os.read, self._ready, 1)

    def say(self, *lines: str) -> None:
        os.write(self._tell, "".join(f"{line}\n" for line in lines).encode())

    def end(self) -> None:
        self.open.remove(self._tell)
        os.close(self._tell)


@pytest.fixture
def shim() -> Iterator[Shim]:
    made = Shim()
    yield made
    for descriptor in made.open:
        os.close(descriptor)


def ran(folder: Path, shim: Shim, scenario: Callable[[], Awaitable[None]]) -> Ran:
    program = folder / "shim"
    program.write_text(COPIES_STDIN_TO_STATUS)
    program.chmod(0o755)

    async def main() -> Ran:
        descriptor = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
        host = Host(
            bubblewrap="/none", shim=program, shim_descriptor=descriptor, shim_inside=None, users=0, span=0,
            arguments=b"", filter=None, groups=NoGroups("none here"),
        )  # fmt: skip
        command = Command(argv=("true",), limits=LIMITS, stdin=shim.stdin, stdout=shim.stdout)
        made = Box(host, command)
        made.start()
        os.close(descriptor)
        end = asyncio.ensure_future(made.end())
        await shim.ready()
        await scenario()
        return await end

    return asyncio.run(main())


def now() -> int:
    return time.monotonic_ns()


def test_the_time_of_the_clean_up_is_not_the_programs(tmp_path: Path, shim: Shim) -> None:
    """Planted defect: the watch goes on after "over", and the deadline falls into the burial."""

    async def scenario() -> None:
        shim.say(f"started {now()}", f"over exit 0 {now()}")
        past = asyncio.Event()  # timers fire in the order of their times, so the watch's would have by then
        asyncio.get_running_loop().call_later(3 * LIMITS.wall_ms / 1000, past.set)
        await past.wait()
        shim.say("buried 2000 4000")
        shim.end()

    run = ran(tmp_path, shim, scenario).run
    assert run == Run(exit_code=0, time_ms=2, wall_ms=run.wall_ms, memory_kib=4000)
    assert of_run(run, LIMITS) is None


def test_a_program_that_ends_after_its_deadline_was_too_slow(tmp_path: Path, shim: Shim) -> None:
    """Planted defect: what "over" says is believed without a look at the moment."""

    async def scenario() -> None:
        started = now()
        shim.say(f"started {started}", f"over exit 0 {started + (LIMITS.wall_ms + 1) * 10**6}", "buried 0 0")
        shim.end()

    assert of_run(ran(tmp_path, shim, scenario).run, LIMITS) is Status.TIME_LIMIT


def test_a_clean_up_without_an_end_is_a_fault_of_ours(
    tmp_path: Path, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: no bound on the clean-up; one that makes it the program's time."""

    async def scenario() -> None:
        monkeypatch.setattr(box, "SETUP_SECONDS", 0.1)
        shim.say(f"started {now()}", f"over exit 0 {now()}")

    run = ran(tmp_path, shim, scenario).run
    assert "did not go away" in str(run.fault)
    assert of_run(run, LIMITS) is Status.JUDGE_ERROR


def test_a_shim_that_ends_before_the_burial_is_a_fault(tmp_path: Path, shim: Shim) -> None:
    """Planted defect: "over" is enough, whoever is left."""

    async def scenario() -> None:
        shim.say(f"started {now()}", f"over exit 0 {now()}")
        shim.end()

    assert "ended before" in str(ran(tmp_path, shim, scenario).run.fault)
