"""The escape suite: everything a hostile program is known to try, as data, and what came of it here.

Each attempt is a function of ``escapes.c``, run in a box of its own; where it takes somebody outside to see
whether it worked, that is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from windlass.judge.verdict import Limits, Run
from windlass.runner.sandbox import shim
from windlass.runner.sandbox.base import Command, Fetch, Ran, Sandbox

_LIMITS = Limits(time_ms=2_000, memory_kib=65_536, wall_ms=4_000)
_BURNING = Limits(time_ms=300, memory_kib=65_536, wall_ms=10_000)
_SLEEPING = Limits(time_ms=300, memory_kib=65_536, wall_ms=1_000)
_PROCESSES = 24
_WRITABLE = 4 * 2**20
_OUTPUT = 2**20
_CREDENTIALS = struct.Struct("3i")
"""Process, user, group: struct ucred."""
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


class Finding(msgspec.Struct, frozen=True):
    """What came of one attempt."""

    name: str
    tries: str
    guards: str
    """The name in CHECKS of what should have stood in its way."""
    contained: bool
    detail: str = ""
    """What it got."""


class Attempts:
    """Runs attempts in boxes of `sandbox`. Each answer is what the attempt got; "" for nothing."""

    def __init__(self, sandbox: Sandbox, program: Path) -> None:
        self.sandbox = sandbox
        self._program = program

    def command(self, name: str, argument: str = "", limits: Limits = _LIMITS) -> Command:
        return Command(
            argv=("./escapes", name, argument),
            files={"escapes": self._program},
            limits=limits,
            writable_bytes=_WRITABLE,
            processes=_PROCESSES,
            output_bytes=_OUTPUT,
        )

    async def run(self, name: str, argument: str = "", limits: Limits = _LIMITS) -> Ran:
        return await self.sandbox.run(self.command(name, argument, limits))

    async def namespaces(self) -> str:
        known = (Path("/proc/self/ns") / name for name in _NAMESPACES)
        return _said(await self.run("namespaces", ",".join(str(link.readlink()) for link in known)))

    async def user(self) -> str:
        """The kernel says who wrote to a socket; inside nobody can tell. Source: unix(7), SCM_CREDENTIALS."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            command = msgspec.structs.replace(self.command("user"), stdin=theirs.fileno())
            said = _said(await self.sandbox.run(command))
            if said:
                return said
            ours.setblocking(False)
            _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
        uid = _CREDENTIALS.unpack(ancillary[0][2])[1]
        if uid == 0:
            return "on the host it is root"
        return "on the host it has the runner's own user" if uid == os.geteuid() else ""

    async def socket(self) -> str:
        """The host listens on an abstract socket, as its desktop would."""
        with socket.socket(socket.AF_UNIX) as listening:
            name = f"windlass-doctor-{secrets.token_hex(8)}"
            listening.bind(f"\0{name}")
            listening.listen()
            return _said(await self.run("host_socket", name))

    async def link(self) -> str:
        """The sandbox is asked for a file that is a link by then."""
        with tempfile.TemporaryDirectory(prefix="windlass-doctor-") as directory:
            fetch = Fetch(name="out", to=Path(directory) / "out", max_bytes=2**20)
            ran = await self.sandbox.run(msgspec.structs.replace(self.command("link_out"), fetch=fetch))
            return _said(ran) or ("the sandbox fetched what a link led to" if ran.fetched else "")

    async def orphan(self) -> str:
        """The orphan keeps the reading end of a pipe; while anybody has that, the pipe can be written to."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            command = msgspec.structs.replace(self.command("orphan"), stdin=reading)
            said = _said(await self.sandbox.run(command))
        finally:
            os.close(reading)
        try:
            with contextlib.suppress(BrokenPipeError):
                os.write(writing, b"x")
                return said or "a process outlived its box"
        finally:
            os.close(writing)
        return said

    async def neighbour(self) -> str:
        """Two boxes at once: the victim lives until its input ends, the other one kills whom it can."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        told, tell = os.pipe2(os.O_CLOEXEC)
        try:
            command = msgspec.structs.replace(self.command("victim"), stdin=reading, stdout=tell)
            victim = asyncio.ensure_future(self.sandbox.run(command))
            await asyncio.sleep(0)  # until its box has its own copies
            os.close(tell)
            await asyncio.to_thread(os.read, told, 1)
            said = _said(await self.run("killing"))
        finally:
            os.close(writing)
            os.close(reading)
            os.close(told)
        run = (await victim).run
        return said or ("" if run.exit_code == 0 else f"the other box ended ({_how(run)})")

    async def flood(self) -> str:
        ran = await self.run("flood", "1")
        return "" if ran.run.output_exceeded else _said(ran) or "more output was taken than allowed"

    async def memory(self, processes: int) -> str:
        run = (await self.run("memory", str(processes))).run
        if run.out_of_memory or run.memory_kib > _LIMITS.memory_kib:
            return ""
        return f"{run.memory_kib} KiB were measured, and it was not ended for them"

    async def burning(self) -> str:
        ran = await self.run("burning", limits=_BURNING)
        if ran.run.exit_code is not None:
            return _said(ran)
        return "" if ran.run.time_ms > _BURNING.time_ms else f"only {ran.run.time_ms} ms of it were counted"

    async def sleeping(self) -> str:
        ran = await self.run("sleeping", limits=_SLEEPING)
        ended = ran.run.exit_code is None and ran.run.wall_ms > _SLEEPING.wall_ms
        return "" if ended else _said(ran)


class Escape(msgspec.Struct, frozen=True):
    name: str
    tries: str
    guards: str
    attempt: Callable[[Attempts], Awaitable[str]]


def _plain(name: str, argument: str = "") -> Callable[[Attempts], Awaitable[str]]:
    async def attempt(attempts: Attempts) -> str:
        return _said(await attempts.run(name, argument))

    return attempt


ESCAPES = (
    Escape("files", "read files of the host", "namespaces", _plain("files")),
    Escape("elsewhere", "write outside of its directory, /dev/shm too", "namespaces", _plain("elsewhere")),
    Escape("settings", "write the kernel's settings", "user", _plain("kernel_settings")),
    Escape("devices", "open or make devices, and type into a terminal", "namespaces", _plain("devices")),
    Escape("namespaces", "be in a namespace of the host", "namespaces", Attempts.namespaces),
    Escape("user", "be root, or the runner, on the host", "user", Attempts.user),
    Escape("rights", "have capabilities, or get some from set-uid programs", "user", _plain("rights")),
    Escape("nesting", "make a user namespace of its own", "nesting", _plain("nesting")),
    Escape("mounts", "mount, unmount, change the root", "syscalls", _plain("mounts")),
    Escape("syscalls", "call io_uring, bpf, keyctl, userfaultfd", "syscalls", _plain("system_calls")),
    Escape("processes", "see other processes", "namespaces", _plain("others")),
    Escape("first", "read, trace or limit the process that watches it", "namespaces", _plain("first")),
    Escape("kill", "kill everything it can name", "namespaces", _plain("killing")),
    Escape("neighbour", "kill what runs in another box", "namespaces", Attempts.neighbour),
    Escape("network", "open sockets", "syscalls", _plain("network")),
    Escape("socket", "connect to an abstract socket of the host", "namespaces", Attempts.socket),
    Escape("link", "leave a link to a secret as its result", "namespaces", Attempts.link),
    Escape("disk", "fill its tmpfs", "namespaces", _plain("fill", str(_WRITABLE))),
    Escape("forks", "fork without end", "processes", _plain("forks", str(_PROCESSES))),
    Escape("memory", "take 4 GiB of memory", "memory", lambda attempts: attempts.memory(1)),
    Escape("shared memory", "take it in 8 processes", "memory", lambda attempts: attempts.memory(8)),
    Escape("burn", "burn time in children that nobody waits for", "cpu", Attempts.burning),
    Escape("sleep", "sleep for ever", "namespaces", Attempts.sleeping),
    Escape("orphan", "leave a process behind, in a session of its own", "namespaces", Attempts.orphan),
    Escape("output", "write 100 GiB of output", "namespaces", Attempts.flood),
    Escape("errors", "write more to stderr than a pipe holds", "namespaces", _plain("murmur")),
)


async def examine(sandbox: Sandbox, done: Callable[[Finding], None] = lambda _: None) -> list[Finding]:
    """Try every escape, one after the other; `done` is told each finding. Takes some seconds.

    Raises SandboxUnavailable where the attempts cannot be built.
    """
    program = shim.build("escapes")
    attempts = Attempts(sandbox, program)
    findings = []
    try:
        for escape in ESCAPES:
            got = await escape.attempt(attempts)
            finding = Finding(escape.name, escape.tries, escape.guards, not got, got)
            findings.append(finding)
            done(finding)
    finally:
        shim.discard(program)
    return findings


def _said(ran: Ran) -> str:
    """What an attempt says it got; only one that ends by itself with 0 got nothing."""
    if ran.run.exit_code == 0:
        return ""
    return ran.stdout.decode(errors="replace").strip() or _how(ran.run)


def _how(run: Run) -> str:
    if run.fault is not None:
        return f"the attempt could not be made: {run.fault}"
    return f"it ended by signal {run.signal}" if run.signal else f"it ended with {run.exit_code}"
