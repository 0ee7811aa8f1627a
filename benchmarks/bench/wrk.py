"""wrk, the HTTP client of most measurements: one run, its figures, and no silent errors."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.processes import BenchmarkError

SCRIPT = Path(__file__).with_name("windlass.lua")
_ERRORS = ("connect", "read", "write", "timeout", "status")


@dataclass(frozen=True)
class WrkRun:
    """What one run of wrk answered. `leased` and `acknowledged` count answers of `lease_ack` only.

    `messages` are those that were acknowledged, several by an answer where they go together.
    `cpu_seconds` is what wrk computed itself.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    leased: int = 0
    acknowledged: int = 0
    messages: int = 0
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return self.requests / self.seconds


def run_wrk(
    port: int,
    operation: str,
    *,
    connections: int,
    seconds: float,
    threads: int = 1,
    queues: int = 0,
    batch: int = 1,
    strict: bool = False,
    paths: Path | None = None,
    absent: bool = False,
) -> WrkRun:
    """Drive the server on `port`; operations and arguments are those of windlass.lua.

    With `strict` a receive that finds nothing is an error. `paths` is the file of `get`. Raises
    BenchmarkError for any answer that is not 2xx (with `absent`: that is), and any error of a socket.
    """
    arguments = [operation, str(queues), str(batch), "strict" if strict else "fast"]
    if paths:
        arguments.append(str(paths))
    return run_script(
        SCRIPT, port, arguments, connections=connections, seconds=seconds, threads=threads, absent=absent
    )


def run_script(
    script: Path,
    port: int,
    arguments: Sequence[str],
    *,
    connections: int,
    seconds: float,
    threads: int = 1,
    absent: bool = False,
) -> WrkRun:
    """Drive the server on `port` by a script that prints its figures as windlass.lua does."""
    whole_seconds = max(1, round(seconds))
    argv = [
        "wrk",
        f"-t{threads}",
        f"-c{connections}",
        f"-d{whole_seconds}s",
        "--timeout=30s",
        f"--script={script}",
        f"http://127.0.0.1:{port}",
        "--",
        *arguments,
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=whole_seconds + 60, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise BenchmarkError(f"wrk ended with {done.returncode}: {done.stdout}{done.stderr}")
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return replace(parse(done.stdout, absent=absent), cpu_seconds=cpu)


def parse(output: str, *, absent: bool = False) -> WrkRun:
    """Read the line that windlass.lua prints; BenchmarkError if there is none or it counts an error.

    With `absent` every answer has to be a 4xx or 5xx, which wrk counts as errors.
    """
    line = next((line for line in output.splitlines() if line.startswith("BENCH ")), None)
    if line is None:
        raise BenchmarkError(f"wrk printed no figures:\n{output}")
    numbers = {key: int(value) for key, _, value in (pair.partition("=") for pair in line.split()[1:])}
    if absent:
        numbers["status"] -= numbers["requests"]
    errors = {name: numbers[name] for name in _ERRORS if numbers[name]}
    if errors:
        raise BenchmarkError(f"wrk counted errors: {errors}")
    leased, acknowledged = numbers.get("leased", 0), numbers.get("acknowledged", 0)
    if leased + acknowledged not in (0, numbers["requests"]):
        raise BenchmarkError(f"{numbers['requests']} answers, but {leased} leases and {acknowledged} acks")
    if numbers.get("empty", 0):
        raise BenchmarkError(f"{numbers['empty']} receives found nothing")
    if acknowledged > numbers.get("acknowledging", 0):
        raise BenchmarkError("more 204 than acknowledgements: a lease found nothing")
    return WrkRun(
        requests=numbers["requests"],
        seconds=numbers["microseconds"] / 1e6,
        p50_ms=numbers["p50"] / 1e3,
        p99_ms=numbers["p99"] / 1e3,
        leased=leased,
        acknowledged=acknowledged,
        messages=numbers.get("messages", 0),
    )
