"""What a figure depends on and a reader needs beside it: machine, versions, commit, disk."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.processes import file_system

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "windlass",
    "uvicorn",
    "uvloop",
    "httptools",
    "apsw",
    "msgspec",
    "fastapi",
    "bitarray",
    "numpy",
    "rbloom",
    "fastbloom-rs",
    "pybloom-live",
    "pyprobables",
    "nats-py",
    "aio-pika",
    "redis",
    "dramatiq",
    "huey",
    "celery",
    "saq",
    "rq",
)
PROGRAMS = {
    "wrk": ("wrk", "-v"),
    "gcc": ("gcc", "--version"),
    "beanstalkd": ("beanstalkd", "-v"),
    "nats-server": ("nats-server", "--version"),
    "redis-server": ("redis-server", "--version"),
    "rabbitmq-server": ("dpkg-query", "-W", "-f=${Version}", "rabbitmq-server"),
}


def commit() -> str:
    return _output("git", "-C", str(ROOT), "rev-parse", "HEAD")


def dirty() -> bool:
    """Whether the source or the benchmarks differ from the commit (results themselves do not count)."""
    changed = _output(
        "git", "-C", str(ROOT), "status", "--porcelain", "--", "src", "benchmarks", "pyproject.toml"
    )
    return any("benchmarks/results/" not in line for line in changed.splitlines())


def versions() -> dict[str, str]:
    """Versions of everything that takes part; what is not installed is left out."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "apsw" in found:
        found["apsw_sqlite"] = _output(sys.executable, "-c", "import apsw; print(apsw.sqlitelibversion())")
    for program, argv in PROGRAMS.items():
        if shutil.which(argv[0]) and (line := _output(*argv)):
            found[program] = line
    return found


def machine() -> dict[str, str | int]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "memory_mib": memory // 2**20,
        "kernel": f"{platform.system()} {platform.release()}",
    }


def disk(directory: Path) -> dict[str, str | float]:
    """The file system and the median time of 200 appends of 4 KiB, each followed by fdatasync."""
    path = directory / "fsync-probe"
    times = []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(200):
            os.write(handle, b"\0" * 4096)
            started = time.perf_counter()
            os.fdatasync(handle)
            times.append(time.perf_counter() - started)
    finally:
        os.close(handle)
        path.unlink()
    return {
        "file_system": file_system(directory),
        "fdatasync_median_us": round(statistics.median(times) * 1e6, 1),
    }


def disk_flushes() -> int:
    """Flush requests that all disks of this machine have completed since it started.

    An fsync that reaches the disk is one, so a server that confirms without it is seen here.
    Source: the kernel's Documentation/admin-guide/iostats, field 16 (Linux 5.5 and later).
    """
    lines = Path("/proc/diskstats").read_text(encoding="ascii").splitlines()
    whole_disks = {path.name for path in Path("/sys/block").iterdir()}
    fields = [line.split() for line in lines]
    return sum(int(row[18]) for row in fields if row[2] in whole_disks and len(row) > 18)


def idle_seconds() -> float:
    """How long the processors of this machine have had nothing to do since it started, all together."""
    idle, waiting = Path("/proc/stat").read_text(encoding="ascii").split()[4:6]
    return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


def load_average() -> tuple[float, float, float]:
    """Of the last 1, 5 and 15 minutes: above 1 before the start, somebody else is at work."""
    return os.getloadavg()


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0] if len(text.splitlines()) == 1 or argv[0] != "git" else text
