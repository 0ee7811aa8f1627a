"""A real sandbox for tests, that has to leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.installation import control_groups
from windlass.judge.verdict import Limits, Run
from windlass.runner.sandbox import Command, Ran
from windlass.runner.sandbox.bubblewrap import Bubblewrap

T = TypeVar("T")

_SPAN = 2**22

WEAK = ("unshare", "--user", "--map-root-user")
"""Starts a program where there is one user id only, so that boxes cannot have one each."""

LIMITS = Limits(time_ms=5_000, memory_kib=131_072, wall_ms=60_000)


class Bench:
    """A sandbox with an event loop to use it on."""

    def __init__(self, runner: asyncio.Runner, sandbox: Bubblewrap) -> None:
        self._runner = runner
        self.sandbox = sandbox

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def run(self, *argv: str, **fields: Any) -> Ran:
        return self.do(self.sandbox.run(Command(argv=argv, **({"limits": LIMITS} | fields))))

    def python(self, program: str, **fields: Any) -> Ran:
        return self.run("python3", "-c", program, **fields)


@contextmanager
def bench(**options: Any) -> Iterator[Bench]:
    """Open a sandbox that has to leave nothing behind."""
    with leaving_nothing() as users, asyncio.Runner() as runner:
        sandbox = runner.run(Bubblewrap.open(**options))
        sandbox.host = msgspec.structs.replace(sandbox.host, users=users)
        try:
            yield Bench(runner, sandbox)
        finally:
            runner.run(sandbox.close())


@contextmanager
def leaving_nothing() -> Iterator[int]:
    """Look afterwards whether a process, a group, a mount or a descriptor is left.

    It gives the first of the users that boxes have to take: others may have boxes at the same time.
    """
    users = 1_900_000_000 + _SPAN * (1 + os.getpid() % 48)
    before = descriptors(), mounts()
    yield users
    assert groups() == []
    assert processes(users) == {}
    assert descriptors() <= before[0]  # what earlier tests forgot may be collected meanwhile
    assert mounts() == before[1]


def groups() -> list[Path]:
    """The control groups that this process has made, those of single boxes too."""
    return [path for path in control_groups() if f"/windlass-{os.getpid()}-" in str(path)]


def processes(users: int) -> dict[int, list[str]]:
    """What runs with one of the users, by user."""
    found: dict[int, list[str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            user = process.stat().st_uid
            if users <= user < users + _SPAN:
                found.setdefault(user, []).append((process / "stat").read_text())
    return found


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def descriptors() -> set[str]:
    """Those of this process that are open."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def fine(ran: Ran) -> Run:
    seen = (ran.run, ran.stderr[:1000])
    assert ran.run.fault is None, seen
    assert (ran.run.exit_code, ran.run.signal) == (0, None), seen
    return ran.run
