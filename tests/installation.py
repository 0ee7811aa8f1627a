"""A whole installation in real processes: a server, runners with real boxes, and whoever submits.

Server and runners may be killed at any moment. Whoever submits goes on asking until there is an answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import signal
import subprocess
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import httpx

from tests.harness import WINDLASS, ServerProcess, clean_environment, until

TOKEN = "a registration token"
PYTHON, C = 2, 0


def server_environment(lease: float, heartbeat: float, poll: float = 0.2) -> dict[str, str]:
    """The settings of a server whose leases last so many seconds."""
    return {
        "WINDLASS_REGISTRATION_TOKEN": TOKEN,
        "WINDLASS_RUNNER_LEASE": str(lease),
        "WINDLASS_RUNNER_HEARTBEAT": str(heartbeat),
        "WINDLASS_RUNNER_POLL": str(poll),
    }


class RunnerProcess:
    """One `windlass runner` with a directory of its own, which may be killed and started again."""

    def __init__(self, server: ServerProcess, folder: Path, name: str, *arguments: str) -> None:
        self.name = name
        self.directory = folder / name
        self.log_path = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.pids: list[int] = []
        """Of all its lives."""
        self._command = [
            *(str(WINDLASS), "runner", "--server", server.url, "--token", TOKEN, "--name", name),
            *("--dir", str(self.directory), "--allow-weak-sandbox", "--drain-timeout", "10", *arguments),
        ]

    @property
    def pid(self) -> int:
        assert self.process is not None, "the runner was not started"
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def jobs(self) -> list[str]:
        """What lies in its directory of each job under way."""
        folder = self.directory / "jobs"
        return sorted(each.name for each in folder.iterdir()) if folder.exists() else []

    def start(self) -> None:
        """Start the process without waiting for anything."""
        assert not self.running
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
                start_new_session=True,
            )
        self.pids.append(self.process.pid)

    def kill(self) -> int:
        """SIGKILL to the runner alone; how many processes of its boxes went with it.

        AssertionError where one of them, or an orphan, is still there some seconds later.
        """
        boxes = descendants(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(60)
        until(lambda: not any(each.lives() for each in boxes), 60, f"the end of the boxes of {self.name}")
        until(lambda: not orphans(), 60, f"the end of boxes that {self.name} had only begun")
        return len(boxes)

    def terminate(self, within: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} is still there after {within} s:\n{self.log}") from None

    def groups(self) -> list[Path]:
        """The control groups of all its lives that there still are."""
        names = tuple(f"windlass-{pid}-" for pid in self.pids)
        return [path for path in control_groups() if path.name.startswith(names)]


def control_groups() -> Iterator[Path]:
    """All of this machine; those that go meanwhile may be missing, and are no error."""
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (Path(folder, name) for name in names)


class Process(NamedTuple):
    """A process that no other one is ever taken for."""

    pid: int
    began: str

    def lives(self) -> bool:
        """Whether it is there, and is more than an entry that nobody has asked for yet."""
        stat = _stat(self.pid)
        return len(stat) > 19 and stat[19] == self.began and stat[0] not in "ZX"


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Whoever outlives the process that started it becomes a child of this one meanwhile: see `orphans`."""
    _become_subreaper(1)
    try:
        yield
    finally:
        _become_subreaper(0)


def orphans() -> list[Process]:
    """Living processes of boxes whose runner is gone, while this process is `adopting`; buries the dead."""
    found = []
    for child in _children(os.getpid()):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{child}/cmdline").read_bytes().partition(b"\0")[0]
            stat = _stat(child)
            if stat[:1] == ["Z"] and Path(f"/proc/{child}/comm").read_text().strip() in _BOXES:
                os.waitpid(child, os.WNOHANG)
            elif name.startswith(b"/proc/self/fd/") or name.decode() in _BOXES:
                found.append(Process(child, stat[19]))
    return found


_BOXES = ("bwrap", "windlass-box", "shim")
_PR_SET_CHILD_SUBREAPER = 36


def _become_subreaper(wanted: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, wanted, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, children.read_text().split())
    return found


def descendants(pid: int) -> list[Process]:
    """Everybody below a process, as far as they are seen now."""
    found, left = [], [pid]
    while left:
        above = left.pop()
        left += _children(above)
        stat = _stat(above)
        if above != pid and len(stat) > 19:
            found.append(Process(above, stat[19]))
    return found


def sleepers(pid: int) -> list[int]:
    """Whoever is called `sleep` below a process: programs that go on once it is ended."""
    found = []
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{each.pid}/comm").read_text() == "sleep\n":
                found.append(each.pid)
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc_pid_stat(5)), none where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Caller:
    """Whoever asks over HTTP, and asks again where the server is away; for any thread."""

    def __init__(self, server: ServerProcess, patience: float = 60.0) -> None:
        self._http = httpx.Client(base_url=server.url, timeout=60, trust_env=False)
        self._patience = patience

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """An answer below 500, however long the server is away. What came of requests without one is open."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                said = repr(error)
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    assert answer.status_code < 500, f"{method} {path}: {answer.text}"
                    return answer
                said = answer.text
            assert time.monotonic() < deadline, f"{method} {path}: no answer for {self._patience} s: {said}"
            time.sleep(0.02)

    def call_once(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        """The answer to one request, None where the server went away."""
        try:
            return self._http.request(method, path, **request)
        except httpx.TransportError:
            return None


class Judge(Caller):
    """Whoever has problems and submissions."""

    def get(self, path: str, **query: Any) -> Any:
        answer = self.call("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put_problem(
        self, number: int, cases: Sequence[tuple[str, str]], *, time_limit: int = 1_000, memory: int = 65_536
    ) -> None:
        """A problem with one task of these inputs and outputs; limits in ms and KiB."""
        task = {
            "score": 1, "case_count": len(cases), "time_limit": time_limit, "memory_limit": memory,
        }  # fmt: skip
        data = {f"01{n:02}.{end}": text for n, case in enumerate(cases, 1) for end, text in _named(case)}
        parts = {
            "meta": (None, json.dumps({"title": "a problem", "tasks": [task]})),
            "testdata": ("data.zip", _zipped(data)),
        }
        answer = self.call("PUT", f"/problems/{number}", files=parts)
        assert answer.status_code in (200, 201), answer.text

    def submit(
        self, problem: int, source: str, language: int = PYTHON, *, key: str, labels: Sequence[str] = ()
    ) -> str:
        """A submission's id. The same `key` is the same submission."""
        body = {"problem_id": problem, "language": language, "source": source, "labels": list(labels)}
        answer = self.call("POST", "/submissions", json=body, headers={"idempotency-key": key})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["submission_id"])

    def submission(self, submission_id: str, wait: float = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/submissions/{submission_id}", wait=wait)
        return found

    def done(self, submission_id: str, within: float = 60.0) -> dict[str, Any]:
        """A submission once it is done."""
        deadline = time.monotonic() + within
        while True:
            found = self.submission(submission_id, wait=min(5.0, max(0.0, deadline - time.monotonic())))
            if found["status"] == "done":
                return found
            assert time.monotonic() < deadline, f"not done within {within} s: {found}"

    def rejudge(self, submission_id: str) -> dict[str, Any]:
        answer = self.call("POST", f"/submissions/{submission_id}/rejudge")
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def rejudge_all(self, problem: int) -> None:
        answer = self.call("POST", f"/problems/{problem}/rejudge")
        assert answer.status_code == 202, answer.text

    def submissions(self, problem: int) -> list[dict[str, Any]]:
        """All of a problem's, without their cases."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"problem_id": problem, "limit": 1000}
        while True:
            page = self.get("/submissions", **query)
            found += page["submissions"]
            if page["next"] is None:
                return found
            query["after"] = page["next"]

    def jobs(self, state: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/jobs", state=state, limit=1000)["jobs"]
        return found

    def holder(self, job_id: str, runners: Sequence[RunnerProcess]) -> RunnerProcess | None:
        """The one of these that has a job now."""
        names = {each["runner_id"]: each["name"] for each in self.get("/runners")["runners"]}
        name = names.get(self.get(f"/jobs/{job_id}")["runner"])
        return next((each for each in runners if each.name == name), None)


def burnt(job: Mapping[str, Any]) -> int:
    """How many attempts a job has used up."""
    ends = [each for each in job["events"] if each["event"] in ("lease_expired", "given_back")]
    return sum(each.get("counts", True) for each in ends)


class Ends(NamedTuple):
    """What a data directory says of the jobs that have ended."""

    verdicts: Counter[tuple[str, int]]
    """(submission, generation) -> how many jobs brought a result."""
    untold: int
    """Ends that their submission has not confirmed."""
    left: int
    """Messages that are neither ended nor dead."""
    unsent: int
    """Rows of the judge's outbox."""


def ends(data_dir: Path) -> Ends:
    """Read them beside a server, or after its end."""
    with _looking(data_dir / "windlass.db") as db:
        records = [
            (json.loads(life), untold) for life, untold in db.execute("SELECT life, untold FROM ended")
        ]
        outcomes = [json.loads(record["outcome"]) for record, _ in records if record["outcome"] is not None]
        dead_untold, left = next(
            db.execute(
                "SELECT count(*) FILTER (WHERE d.state = 3 AND d.claim IS NOT NULL),"
                " count(*) FILTER (WHERE coalesce(d.state, 0) <> 3)"
                " FROM messages m LEFT JOIN deliveries d ON d.id = m.id"
            )
        )
    with _looking(data_dir / "judge.db") as db:
        unsent = next(db.execute("SELECT count(*) FROM outbox"))[0]
    return Ends(
        Counter(
            (outcome["owner"], outcome["generation"]) for outcome in outcomes if "tasks" in outcome["result"]
        ),
        sum(untold is not None for _, untold in records) + dead_untold,
        left,
        unsent,
    )


@contextlib.contextmanager
def _looking(database: Path) -> Iterator[apsw.Connection]:
    with contextlib.closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        db.set_busy_timeout(60_000)
        yield db


def _named(case: tuple[str, str]) -> Iterator[tuple[str, str]]:
    yield from zip(("in", "out"), case, strict=True)


def _zipped(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return packed.getvalue()
