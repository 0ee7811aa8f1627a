"""Real server processes: started on free ports with their own scratch directory, always ended."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


class BenchmarkError(Exception):
    """What was measured is not what was meant: the figures of this run are worth nothing."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
    """Poll `condition` every 20 ms until it holds; BenchmarkError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.02)


def raise_file_limit() -> int:
    """Allow this process and its children all the open files the system grants; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, as in `ext4` (Linux: read from /proc/mounts)."""
    best, kind = "", "unknown"
    resolved = str(path.resolve())
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, found, *_ = line.split(" ")
        inside = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


@contextmanager
def scratch_directory(parent: Path, name: str) -> Iterator[Path]:
    """A directory on a real disk, removed at the end; BenchmarkError where fsync would cost nothing."""
    if file_system(parent) in MEMORY_FILE_SYSTEMS:
        raise BenchmarkError(f"{parent} is in memory; name a directory on a disk with --scratch")
    path = Path(tempfile.mkdtemp(prefix=f"windlass-bench-{name}-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Process:
    """One child process in a process group of its own; its output goes to `log`."""

    def __init__(self, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.argv = list(argv)
        self.log = log
        self._output = log.open("ab")
        self._popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=log.parent,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
        """As `wait_until`, but tells the log's tail at once if the process ends before."""

        def ready() -> bool:
            if not self.alive():
                tail = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise BenchmarkError(f"{self.argv[0]} ended with {self._popen.returncode}:\n{tail}")
            return condition()

        wait_until(ready, what, seconds=seconds)

    def wait_for_port(self, port: int, *, seconds: float = 60.0) -> None:
        self.wait_for(lambda: _accepts(port), f"{self.argv[0]} to accept on port {port}", seconds=seconds)

    def freeze(self) -> None:
        """Stop it where it is (SIGSTOP), so that it takes nothing from another one that is measured."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """`kill -9`, the crash."""
        self._signal_group(signal.SIGKILL)
        self._popen.wait()
        self._output.close()

    def stop(self, *, seconds: float = 15.0) -> None:
        """SIGTERM, then SIGKILL for what is still there after `seconds`."""
        self._signal_group(signal.SIGCONT)
        if self.alive():
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
        self.kill()

    def memory(self) -> int:
        """Resident memory in bytes, mapped files included."""
        return self._status("VmRSS")

    def anonymous_memory(self) -> int:
        """Resident memory in bytes without mapped files, which the system can take back."""
        return self._status("RssAnon")

    def cpu_seconds(self) -> float:
        """User and system time of all threads until now, of the processes that it has started as well."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it ended meanwhile
                fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
                if int(fields[3]) == self.pid:  # the session that began with it
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def bytes_written(self) -> int:
        """What it has had written to disks, in whole pages."""
        for line in Path(f"/proc/{self.pid}/io").read_text(encoding="ascii").splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
        raise BenchmarkError(f"process {self.pid} tells nothing of what it writes")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise BenchmarkError(f"process {self.pid} tells no {key}")

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
