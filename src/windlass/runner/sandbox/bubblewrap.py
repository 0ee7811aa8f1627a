"""The sandbox on this host's own kernel, by bubblewrap."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from windlass.errors import Invalid, SandboxUnavailable
from windlass.judge.verdict import Limits, Run
from windlass.runner.sandbox import cgroup, files, seccomp, shim
from windlass.runner.sandbox.arguments import Layout, host_arguments, joined
from windlass.runner.sandbox.base import CHECKS, Command, Pair, Ran, Sandbox
from windlass.runner.sandbox.box import Box, Host
from windlass.runner.sandbox.cgroup_v1 import GroupsV1
from windlass.runner.sandbox.cgroup_v2 import open_v2

_OLDEST = (0, 8)
"""The first with --disable-userns."""
_USERS, _SPAN = 1_900_000_000, 2**22
"""A range that systemd leaves free, as long as there can be process ids."""
_SMALL_USERS, _SMALL_SPAN = 20_000, 40_000
"""Where only 65,536 users are mapped, as in a container: ids may meet, which namespaces make harmless."""
_INSIDE = "/shim"
_TRIAL = Command(argv=("/usr/bin/true",), limits=Limits(time_ms=5000, memory_kib=64 * 1024, wall_ms=10_000))


class Bubblewrap(Sandbox):
    """Boxes made by bubblewrap; `Bubblewrap.open()` makes one."""

    def __init__(self, host: Host, enforces: Mapping[str, bool], missing: Mapping[str, str]) -> None:
        self.host = host
        self._enforces = dict(enforces)
        self._missing = dict(missing)
        self._boxes: set[Box] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @classmethod
    async def open(cls, expose: Sequence[Path] = (), groups: cgroup.Groups | None = None) -> Bubblewrap:
        """Find out what this host can do, by trying. Raises SandboxUnavailable where no box starts at all.

        `expose` are directories of the host that every box may read, besides /usr.
        """
        bubblewrap = _find()
        program = shim.build()
        groups = groups or find_groups()
        users, span, why_user = _users()
        missing = dict(groups.missing)
        if why_user:
            missing["user"] = why_user
        filter_ = seccomp.program()
        if filter_ is None:
            missing["syscalls"] = "there is no filter for this architecture"
        descriptor = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
        faults = []
        for layout in (Layout(), Layout(nesting_disabled=False), Layout(nesting_disabled=False, proc=False)):
            seen = msgspec.structs.replace(layout, expose=tuple(expose))
            host = Host(
                bubblewrap=bubblewrap,
                shim=program,
                shim_descriptor=descriptor,
                shim_inside=None if layout.proc else _INSIDE,
                users=users,
                span=span,
                arguments=joined(host_arguments(seen)),
                filter=filter_,
                groups=groups,
            )
            if not layout.nesting_disabled and filter_ is None:
                missing["nesting"] = "the kernel's limit on user namespaces cannot be set"
            sandbox = cls(host, {check: check not in missing for check in CHECKS}, missing)
            tried = (await sandbox.run(_TRIAL)).run
            if tried.fault is None and tried.exit_code == 0:
                return sandbox
            faults.append(tried.fault or f"/usr/bin/true ended with {tried.exit_code or tried.signal}")
        groups.close()
        os.close(descriptor)
        shim.discard(program)
        raise SandboxUnavailable(f"Bubblewrap makes no box here: {faults[0]}.")

    @property
    def enforces(self) -> Mapping[str, bool]:
        return self._enforces

    @property
    def missing(self) -> Mapping[str, str]:
        return self._missing

    async def run(self, command: Command) -> Ran:
        files.check(command)
        if self._closed:
            return _closed()
        return await self._finish(self._start(command))

    async def run_pair(self, one: Command, other: Command) -> Pair:
        for command in (one, other):
            files.check(command)
            if command.stdin is not None or command.stdout is not None:
                raise Invalid("Two commands that talk to each other have no other stdin or stdout.")
        if self._closed:
            return Pair(_closed(), _closed())
        pipes = (*os.pipe2(os.O_CLOEXEC), *os.pipe2(os.O_CLOEXEC))
        to_other, from_one, to_one, from_other = pipes
        try:
            boxes = (
                self._start(one, stdin=to_one, stdout=from_one),
                self._start(other, stdin=to_other, stdout=from_other),
            )
        finally:
            for descriptor in pipes:  # or neither would find the end of its input
                os.close(descriptor)
        ends = [asyncio.ensure_future(self._finish(box)) for box in boxes]
        try:
            first, second = await asyncio.gather(*ends)
        except asyncio.CancelledError:
            await asyncio.gather(*ends, return_exceptions=True)
            raise
        return Pair(first, second)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for box in self._boxes:
            box.kill()
        await self._idle.wait()
        self.host.groups.close()
        os.close(self.host.shim_descriptor)
        shim.discard(self.host.shim)

    def _start(self, command: Command, *, stdin: int | None = None, stdout: int | None = None) -> Box:
        box = Box(self.host, command, stdin=stdin, stdout=stdout)
        self._boxes.add(box)
        self._idle.clear()
        box.start()
        return box

    async def _finish(self, box: Box) -> Ran:
        try:
            return await box.end()
        finally:
            self._boxes.discard(box)
            if not self._boxes:
                self._idle.set()


def find_groups() -> cgroup.Groups:
    """The control groups of this host: version 2 where it limits memory, else version 1 as far as it goes."""
    mounts = cgroup.mounts(cgroup.read_all(Path("/proc/self/mountinfo")))
    memberships = cgroup.memberships(cgroup.read_all(Path("/proc/self/cgroup")))
    groups = open_v2(mounts, memberships)
    if not groups.enforces and any(mount.version == 1 for mount in mounts):
        return GroupsV1(mounts, memberships)
    return groups


def _closed() -> Ran:
    return Ran(run=Run(fault="the sandbox is closed"))


def _find() -> str:
    """The path of bubblewrap. Raises SandboxUnavailable."""
    path = shutil.which("bwrap")
    if path is None:
        raise SandboxUnavailable("The sandbox needs bubblewrap: install the package bubblewrap.")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)\.(\d+)", said)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        raise SandboxUnavailable(f"The sandbox needs bubblewrap {wanted} or newer; this is {said.strip()!r}.")
    return path


def _users() -> tuple[int, int, str]:
    """First user id for boxes, how many there are, and why there are none (then both are 0)."""
    if os.geteuid() != 0:
        return 0, 0, "only root can give each box a user of its own"
    return users_of(cgroup.read_all(Path("/proc/self/uid_map")))


def users_of(uid_map: str) -> tuple[int, int, str]:
    """The same from the text of /proc/self/uid_map (user_namespaces(7))."""
    for first, span in ((_USERS, _SPAN), (_SMALL_USERS, _SMALL_SPAN)):
        for line in uid_map.splitlines():
            inside, _, length = map(int, line.split())
            if inside <= first and first + span <= inside + length:
                return first, span, ""
    return 0, 0, "too few user ids are mapped into this container"
