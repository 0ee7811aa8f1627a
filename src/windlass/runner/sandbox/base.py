"""The whole interface of a sandbox: a command goes in, what became of it comes out.

Whatever a program does is data in the answer; an exception is only for a wrong command. The sandbox's own
faults are data too (``Run.fault``), so that one bad box never ends a runner.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from windlass.judge.verdict import Limits, Run

PLACE = "/box"
"""The directory inside where a command starts, finds its files, and may write."""

CHECKS: Mapping[str, str] = {
    "user": "every box has an unprivileged user of its own",
    "namespaces": "a box sees no process, file, network or message queue of the host",
    "nesting": "a box cannot make user namespaces of its own",
    "syscalls": "system calls that no program needs are refused",
    "memory": "the memory of all processes together is limited and measured",
    "processes": "the number of processes is limited",
    "cpu": "the processor time of all processes together is limited and measured",
}
"""What a host can enforce, by name, and what each means."""


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """One regular file to bring out after everything in the box has ended."""

    name: str
    """Its path below PLACE."""
    to: Path
    """Where it goes; must not exist. It is made readable and executable for everybody."""
    max_bytes: int


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, with what, within which limits."""

    argv: tuple[str, ...]
    """The program is looked for in PATH, or from PLACE where it has a slash: ``./main``."""
    limits: Limits
    files: Mapping[str, bytes | Path] = {}
    """What lies below PLACE before anything runs, by relative path: bytes, or a file of the host. Either is
    copied in, so that nothing reaches the original; it may be read and executed, and does not count as
    written."""
    environment: Mapping[str, str] = {}
    """Besides PATH, HOME, TMPDIR and LANG."""
    stdin: Path | int | None = None
    """A regular file of the host, of which the program gets a copy; or a descriptor, which stays the
    caller's; or None: nothing to read."""
    stdout: Path | int | None = None
    """None: ``Ran.stdout``. A path: this file, made anew, gets it through the capped pipe. A descriptor: the
    program writes to it itself, without a cap; it stays the caller's."""
    output_bytes: int = 64 * 2**20
    """Bytes of stdout that are taken; more end the run as ``output_exceeded``."""
    stderr_bytes: int = 64 * 2**10
    """Bytes of stderr that are kept; more are read and dropped."""
    writable_bytes: int = 64 * 2**20
    """What fits into PLACE and /tmp together. It is memory: what is written counts as that."""
    processes: int = 64
    """Processes and threads at one time."""
    fetch: Fetch | None = None


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command."""

    run: Run
    stdout: bytes = b""
    """Empty where the command names another place for it."""
    stderr: bytes = b""
    """Its first bytes."""
    fetched: Path | None = None
    unfetched: str = ""
    """Why there is nothing fetched, though it was asked for: for people."""
    ended_ns: int = 0
    """When the program ended, by CLOCK_MONOTONIC."""


class Pair(msgspec.Struct, frozen=True):
    """What became of two commands that talked to each other."""

    one: Ran
    other: Ran

    @property
    def one_ended_first(self) -> bool:
        return self.one.ended_ns <= self.other.ended_ns


class Sandbox(ABC):
    """Runs commands, each in a fresh box that is never used again. Many may run at once.

    All calls belong to one event loop, on the thread that made the sandbox. A call that is cancelled ends its
    box first.
    """

    @property
    @abstractmethod
    def enforces(self) -> Mapping[str, bool]:
        """What this host really enforces: the names of CHECKS."""

    @property
    @abstractmethod
    def missing(self) -> Mapping[str, str]:
        """Why it does not enforce the rest, by the names of CHECKS."""

    @abstractmethod
    async def run(self, command: Command) -> Ran:
        """Run `command` and return when nothing of its box is left.

        Limits are kept by ending the box: at ``wall_ms``, and at ``time_ms`` plus the tenth within which a
        run is measured again. Raises Invalid for a command that makes no sense (no argv, a NUL, a path that
        leaves PLACE).
        """

    @abstractmethod
    async def run_pair(self, one: Command, other: Command) -> Pair:
        """Run both at once, the stdout of each being the other's stdin; return when both are gone.

        When one ends, the other finds the end of its input, and goes on within its own limits. Their own
        stdin and stdout must be None.
        """

    @abstractmethod
    async def close(self) -> None:
        """End all boxes and remove what was made on the host. Calls after it are faults."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()


__all__ = ["CHECKS", "PLACE", "Command", "Fetch", "Limits", "Pair", "Ran", "Run", "Sandbox"]
