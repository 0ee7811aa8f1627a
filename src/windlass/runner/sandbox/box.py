"""One box, from its making to its last trace."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from windlass.judge.verdict import NEAR, Run
from windlass.runner.sandbox import files
from windlass.runner.sandbox.arguments import box_arguments, joined
from windlass.runner.sandbox.base import Command, Ran
from windlass.runner.sandbox.cgroup import Group, Groups, Usage
from windlass.runner.sandbox.configuration import configuration
from windlass.runner.sandbox.drain import Descriptors, Drain, Lines
from windlass.runner.sandbox.processes import Descendants, children, end_all_of
from windlass.runner.sandbox.report import Report

SETUP_SECONDS = 20.0
"""For bubblewrap to start the program, and for what is left to do once the program has ended."""
_WATCH_FIRST, _WATCH_LEAST, _WATCH_MOST = 0.01, 0.002, 0.05
"""Seconds between two looks at what a box uses."""
_BEYOND = 0.002
"""Seconds of processor time past what may be measured again; milliseconds are what the verdict sees."""
_LOG_BYTES = 4096
_KIB = 1024


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What all boxes of a sandbox share."""

    bubblewrap: str
    shim: Path
    shim_descriptor: int
    shim_inside: str | None
    """Where the shim is copied to inside; None: it is run by its descriptor, which takes a /proc."""
    users: int
    """The first user id of the range that boxes take theirs from; 0: they keep ours."""
    span: int
    arguments: bytes
    """For bubblewrap, the same for every box."""
    filter: bytes | None
    groups: Groups


class Box:
    """Runs one command. Nothing is raised but what is wrong with this code."""

    def __init__(
        self,
        host: Host,
        command: Command,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> None:
        self._host = host
        self._command = command
        self._stdin = stdin
        self._stdout = stdout
        self._loop = asyncio.get_running_loop()
        self._held = Descriptors()
        self._group: Group | None = None
        self._below: Descendants | None = None
        self._usage = Usage()
        self._fetching: files.Fetching | None = None
        self._out: Drain | None = None
        self._sink: int | None = None
        self._drains: list[Drain] = []
        self._err = self._add(Drain(command.stderr_bytes))
        self._log = self._add(Drain(_LOG_BYTES))
        self._status = self._add(Lines(_LOG_BYTES, self._tell))
        self._timer: asyncio.TimerHandle | None = None
        self._pid = 0
        self._pidfd = -1
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._delay = _WATCH_FIRST
        # what is known
        self._fault: str | None = None
        self._killed_ns = 0
        self._too_long = False
        self._exceeded = False
        self._report = Report()
        self._path: Path | None = None

    def _add(self, drain: Drain) -> Drain:
        self._drains.append(drain)
        return drain

    # --- its life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it; a failure to is a fault, and then there is nothing to wait for."""
        try:
            self._prepare()
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self._break(f"the box could not be made: {where}{error.strerror}")
            if self._pid and self._pidfd < 0:
                os.kill(self._pid, signal.SIGKILL)  # still our child, so its id is nobody else's
                os.waitpid(self._pid, 0)
            self._gone.set_result(None)
        finally:
            for drain in self._drains:
                drain.give()
            self._held.close()
            if self._group is not None:
                self._group.shut()

    async def end(self) -> Ran:
        """Wait until the program has ended by itself or by its limits, and nothing is left."""
        try:
            await asyncio.wait([self._gone])  # not the future itself, which would be cancelled with us
            await self._drained()
        finally:
            await asyncio.shield(asyncio.ensure_future(self._clear()))
        return self._answer()

    def kill(self) -> None:
        """End everything inside, as soon as it can be done surely."""
        if not self._killed_ns:
            self._killed_ns = time.monotonic_ns()
        if self._report.started_ns:
            self._signal()

    def _signal(self) -> None:
        """End process 1 inside, and all others with it; bubblewrap waits for it and ends too.

        Only once the shim has started: before that it is not yet tied to bubblewrap, and bubblewrap might be
        in the middle of its own work. Were bubblewrap ended instead, process 1 would be left to the host's
        init to be waited for, which in a container there may not be.
        """
        if self._pidfd < 0:
            return
        for child in children(self._pid):
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(child)
                try:
                    if child in children(self._pid):  # else the id may be somebody else's by now
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        return
                finally:
                    os.close(pidfd)
        self._end_bubblewrap()

    def _end_bubblewrap(self) -> None:
        """The kernel ends process 1 inside with it, if that has come so far."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _break(self, why: str) -> None:
        self._fault = self._fault or why
        self.kill()

    async def _clear(self) -> None:
        self._cancel_timer()
        if not self._gone.done():
            self.kill()
            self._timer = self._loop.call_later(SETUP_SECONDS, self._late)
            await asyncio.wait([self._gone])
            self._cancel_timer()
        await self._drained()
        for drain in self._drains:
            drain.close()
        if self._group is not None:
            await self._leave(self._group)
        if self._sink is not None:
            os.close(self._sink)
            self._sink = None
        if self._fetching is not None:
            self._path = self._fetching.end(self._report.fetched and self._fault is None)

    async def _drained(self) -> None:
        """All pipes have come to their end, which they do when nobody is left to write.

        Should bubblewrap have been ended in the moment in which its child depended on it, somebody is left.
        """
        ends = [drain.ended for drain in self._drains if not drain.ended.done()]
        if ends and (await asyncio.wait(ends, timeout=SETUP_SECONDS))[1]:
            self._break("the box did not go away")
            if self._host.users:
                end_all_of(self._host.users + self._pid % self._host.span)
            for drain in self._drains:
                drain.close()

    async def _leave(self, group: Group) -> None:
        """Remove the group: what is in it was killed, but the kernel takes its time."""

        def empty() -> bool:
            if not group.processes():
                return True
            group.kill()
            return False

        if not await _until(empty):
            self._break("processes of the box could not be ended")
        self._usage = self._look()
        await _until(group.remove)

    # --- making it ------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        host, command, held = self._host, self._command, self._held
        if command.fetch is not None:
            self._fetching = files.Fetching(command.fetch)
        self._group = host.groups.make(
            memory_bytes=command.limits.memory_kib * _KIB, processes=command.processes
        )
        stdin, stdout = self._standard()
        copies = files.copies(command.files, held)
        filter_ = None if host.filter is None else held.memory("filter", host.filter)
        own = [copy.descriptor for copy in copies]
        arguments = host.arguments + joined(box_arguments(copies, command.writable_bytes, filter_))
        program = f"/proc/self/fd/{host.shim_descriptor}"
        if host.shim_inside is not None:
            shim = held.add(os.open(host.shim, os.O_RDONLY | os.O_CLOEXEC))
            own.append(shim)
            arguments = joined(("--perms", "0555", "--file", str(shim), host.shim_inside)) + arguments
            program = host.shim_inside
        if filter_ is not None:
            own.append(filter_)
        to_bubblewrap = held.memory("arguments", arguments)
        config = held.memory(
            "config",
            configuration(
                command,
                status=self._status.write,
                standard=(stdin, stdout, self._err.write),
                fetching=-1 if self._fetching is None else self._fetching.descriptor,
                doors=self._group.doors,
                memory_enforced="memory" in host.groups.enforces,
            ),
        )
        inherited = [
            *own,
            *(to_bubblewrap, config, host.shim_descriptor, self._status.write, self._err.write),
            *(stdin, stdout),
            *self._group.doors,
            *(() if self._fetching is None else (self._fetching.descriptor,)),
        ]
        self._pid = os.posix_spawn(
            host.shim,
            [
                "windlass-box",
                *map(str, (os.getpid(), host.users, host.span, host.bubblewrap, to_bubblewrap)),
                *(program, str(config)),
                *map(str, (stdin, stdout, self._err.write)),
            ],
            {},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, self._log.write, 1),
                (os.POSIX_SPAWN_DUP2, self._log.write, 2),
                # Onto itself: nothing but that it is handed on.
                *((os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in set(inherited)),
            ],
        )
        self._pidfd = os.pidfd_open(self._pid)
        if not {"memory", "cpu"} <= self._host.groups.enforces:
            self._below = Descendants(self._pid)
        self._loop.add_reader(self._pidfd, self._reap)
        self._timer = self._loop.call_later(SETUP_SECONDS, self._late)

    def _standard(self) -> tuple[int, int]:
        """The program's stdin and stdout."""
        command = self._command
        stdin = self._stdin if self._stdin is not None else command.stdin
        if stdin is None:
            stdin = self._held.add(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        elif isinstance(stdin, Path):
            stdin = files.read_only(stdin, self._held)
        stdout = self._stdout if self._stdout is not None else command.stdout
        if isinstance(stdout, int):
            return self._above(stdin), self._above(stdout)
        if stdout is not None:
            self._sink = files.new_file(stdout)
        self._out = Drain(
            command.output_bytes,
            more=self._too_much,
            sink=self._sink,
            failed=lambda error: self._break(f"its output cannot be written: {error.strerror}"),
        )
        self._add(self._out)
        return self._above(stdin), self._out.write

    def _above(self, descriptor: int) -> int:
        """A descriptor that the shim's own standard ones do not take the place of."""
        return self._held.add(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3))

    # --- watching it ----------------------------------------------------------------------------------

    def _tell(self, line: str) -> None:
        """A line of the shim."""
        word = self._report.read(line)
        if word == "started":
            self._cancel_timer()
            if self._killed_ns:
                self._signal()
            else:
                self._watch()
        elif word == "over":
            self._cancel_timer()  # what is left to do is not the program's
            self._timer = self._loop.call_later(SETUP_SECONDS, self._late)
        elif word == "fault":
            self._fault = self._fault or self._report.fault

    def _watch(self) -> None:
        """Look at what it uses, end it if that is too much, and choose when to look again."""
        self._timer = None
        if self._killed_ns:
            return
        limits = self._command.limits
        wall_left = limits.wall_ms / 1000 - (time.monotonic_ns() - self._report.started_ns) / 1e9
        usage = self._look()
        # A run that misses its limit narrowly is measured again: let it show that it does not.
        cpu_left = limits.time_ms * (1 + NEAR) / 1000 + _BEYOND - (usage.cpu_ns or 0) / 1e9
        if wall_left <= 0:
            self._too_long = True
        too_big = (usage.memory_bytes or 0) > limits.memory_kib * _KIB
        if wall_left <= 0 or cpu_left <= 0 or too_big or usage.out_of_memory:
            self.kill()
            return
        cores = min(os.cpu_count() or 1, self._command.processes)
        delay = max(min(self._delay, wall_left, cpu_left / cores), _WATCH_LEAST)
        self._delay = min(2 * self._delay, _WATCH_MOST)
        self._timer = self._loop.call_later(delay, self._watch)

    def _look(self) -> Usage:
        """What it has used until now, by the best measure there is."""
        usage = Usage() if self._group is None else self._group.usage()
        if self._below is not None:
            seen = self._below.usage()
            cpu_ns = seen.cpu_ns if usage.cpu_ns is None else usage.cpu_ns
            memory = seen.memory_bytes if usage.memory_bytes is None else usage.memory_bytes
            usage = Usage(cpu_ns, memory, usage.out_of_memory)
        return usage

    def _too_much(self) -> None:
        self._exceeded = True
        self.kill()

    def _late(self) -> None:
        """It did not start in time, or did not go away."""
        self._timer = None
        doing = "did not go away" if self._report.started_ns else "did not start"
        self._fault = self._fault or f"the box {doing} within {SETUP_SECONDS:g} s: {self._words()}"
        self._end_bubblewrap()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        os.close(self._pidfd)
        self._pidfd = -1
        if not self._gone.done():
            self._gone.set_result(None)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what became of it ----------------------------------------------------------------------------

    def _words(self) -> str:
        """What bubblewrap said last."""
        lines = self._log.kept.decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("fault ") if lines else "it does not say why"

    def _answer(self) -> Ran:
        return Ran(
            run=self._run(),
            stdout=self._out.kept if self._out is not None and self._sink is None else b"",
            stderr=self._err.kept,
            fetched=self._path,
            unfetched=self._report.unfetched,
            ended_ns=self._report.over_ns or self._killed_ns or time.monotonic_ns(),
        )

    def _run(self) -> Run:
        report = self._report
        if self._fault is None and not report.buried and not (report.started_ns and self._killed_ns):
            self._fault = f"the box ended before its program was gone: {self._words()}"
        if self._fault is not None:
            return Run(fault=self._fault)
        usage = self._usage
        wall_ns = (report.over_ns or self._killed_ns) - report.started_ns
        wall_ms = -(-wall_ns // 10**6)
        if self._too_long and report.over is None:
            wall_ms = max(wall_ms, self._command.limits.wall_ms + 1)
        spent_ns, memory_bytes = usage.cpu_ns or 0, usage.memory_bytes or 0
        enforced = self._host.groups.enforces
        if "cpu" not in enforced:
            spent_ns = max(spent_ns, report.spent_us * 1000)
        if "memory" not in enforced:
            memory_bytes = max(memory_bytes, report.largest_kib * _KIB)
        how, number = report.over or ("signal", int(signal.SIGKILL))
        return Run(
            exit_code=number if how == "exit" else None,
            signal=number if how == "signal" else None,
            time_ms=spent_ns // 10**6,
            wall_ms=wall_ms,
            memory_kib=memory_bytes // _KIB,
            out_of_memory=usage.out_of_memory,
            output_exceeded=self._exceeded,
        )


async def _until(done: Callable[[], bool]) -> bool:
    """Ask again and again, ever less often; False after SETUP_SECONDS."""
    pause, waited = 0.0005, 0.0
    while not done():
        if waited > SETUP_SECONDS:
            return False
        await asyncio.sleep(pause)
        waited += pause
        pause = min(2 * pause, 0.05)
    return True
