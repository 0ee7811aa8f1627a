"""The runner's invariants, with real processes and real signals against a server that can be told to fail.

The numbers are those of "Invariants of the runner" in the contract.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import clean_environment, free_port, until
from tests.unit.runner.server import DROP, HANG, LOSE, SECRET, Held, Served, Server, zipped

ROOT = Path(__file__).parents[2]


class Runner:
    """One runner process; `started`: the ids of the jobs that its executor was given, in order."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.directory = folder / "runner"
        self.log_path = folder / "runner.log"
        self._starts = folder / "starts"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *prefix: str, **options: Any) -> None:
        given = {"server": self.server.url, "directory": str(self.directory), "token": SECRET}
        given |= {"starts": str(self._starts)} | options
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.e2e.agent_process", json.dumps(given)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env=clean_environment(), start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def started(self) -> list[str]:
        return [line.split()[0] for line in self._lines()]

    @property
    def places(self) -> list[Path]:
        return [Path(line.split()[1]) for line in self._lines()]

    def _lines(self) -> list[str]:
        return self._starts.read_text().splitlines() if self._starts.exists() else []

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, within: float = 60.0) -> int:
        """The exit status."""
        assert self.process is not None
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the runner is still there after {within} s:\n{self.log}") from None

    def stop(self, within: float = 60.0) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def until(self, condition: Callable[[], object], what: str, within: float = 60.0) -> None:
        def holds() -> object:
            assert self.process is not None
            assert self.process.poll() is None, f"the runner ended:\n{self.log}"
            return condition()

        try:
            until(holds, within, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None


@pytest.fixture
def server() -> Iterator[Server]:
    """Fast enough for tests, on a real port."""
    serving = Server(heartbeat=0.2, poll=0.1)
    with Served(serving, free_port()):
        yield serving


@pytest.fixture
def runner(server: Server, tmp_path: Path) -> Iterator[Runner]:
    running = Runner(server, tmp_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()


def test_one_job_from_its_delivery_to_its_result(server: Server, runner: Runner) -> None:
    server.problem(7, {"0101.in": b"1 2\n", "0101.out": b"3\n"})
    server.add("jb_1", problem_id=7, reads="0101.out")
    runner.start()
    runner.until(lambda: server.results, "the result")
    assert server.results == {"jb_1": {"tasks": [[{"status": "AC", "stdout": "3\n"}]]}}
    assert runner.stop() == 0
    assert runner.started == ["jb_1"]
    assert not runner.places[0].exists()
    [code] = server.asked("code")
    assert "authorization" not in code.headers
    fixed = {"register", "heartbeat", "next-job", "code", "problem", "complete"}
    assert {request.route for request in server.requests} == fixed, "what no server of the contract knows"


# --- 1 ----------------------------------------------------------------------------------------------


def test_1_heartbeats_go_on_while_it_prepares_runs_drains_and_delivers(
    server: Server, runner: Runner
) -> None:
    """Planted defect: heartbeats that begin with the work, or that stop when draining begins."""
    done = runner.folder / "done"
    server.problem(7, {"0101.in": b"", "0101.out": b""})
    server.add("jb_1", problem_id=7, wait_for=str(done))
    source, taking = Held(), Held()
    server.fail("code", source)
    server.fail("complete", taking)

    def named_since(moment: int) -> Callable[[], bool]:
        return lambda: len([r for r in later_than(moment) if r.json["active_job_ids"] == ["jb_1"]]) >= 2

    def later_than(moment: int) -> list[Any]:
        return [request for request in server.requests[moment:] if request.route == "heartbeat"]

    runner.start()
    runner.until(lambda: server.asked("code"), "the preparation")
    runner.until(named_since(len(server.requests)), "heartbeats while it prepares")
    assert runner.started == []
    source.release()
    runner.until(lambda: runner.started, "the start")
    runner.until(named_since(len(server.requests)), "heartbeats while it runs")
    runner.signal(signal.SIGTERM)
    runner.until(lambda: "No new jobs" in runner.log, "the draining")
    runner.until(named_since(len(server.requests)), "heartbeats while it drains")
    done.touch()
    runner.until(lambda: server.asked("complete"), "the first try to deliver")
    runner.until(named_since(len(server.requests)), "heartbeats while it delivers")
    taking.release()
    assert runner.wait() == 0
    assert list(server.results) == ["jb_1"]


def test_1_the_identity_is_kept_and_used_again(server: Server, runner: Runner) -> None:
    runner.start()
    runner.until(lambda: server.asked("next-job"), "a poll")
    assert runner.stop() == 0
    assert stat.S_IMODE((runner.directory / "identity.json").stat().st_mode) == 0o600
    runner.start(token=None)
    polls = len(server.asked("next-job"))
    runner.until(lambda: len(server.asked("next-job")) > polls, "a poll of the second start")
    assert (runner.stop(), len(server.names)) == (0, 1)


def test_1_two_401_in_a_row_register_anew_and_a_refusal_ends_it(server: Server, runner: Runner) -> None:
    """Planted defect: a runner that asks for ever with a token that nobody knows."""
    runner.start()
    runner.until(lambda: server.asked("next-job"), "a poll")
    server.tokens.clear()
    runner.until(lambda: len(server.names) == 2, "a new registration")
    server.fail("register", 401)
    server.tokens.clear()
    assert runner.wait() == 1
    assert "refuses the registration token" in runner.log
    assert "Traceback" not in runner.log


def test_1_registration_goes_on_until_the_server_is_there(runner: Runner) -> None:
    runner.server.url = f"http://127.0.0.1:{free_port()}"
    runner.start()
    runner.until(lambda: runner.log.count("Not registered yet") >= 2, "two tries")
    assert runner.stop() == 0


# --- 2 ----------------------------------------------------------------------------------------------


def test_2_capacity_is_in_jobs_and_one_counts_until_it_is_handed_over(server: Server, runner: Runner) -> None:
    """Planted defect: a slot that is free when the work is done, before the server has taken the result."""
    server.limit = 2
    done = runner.folder / "done"
    for number in range(5):
        server.add(f"jb_{number}", wait_for=str(done))
    refusals = [Held(then=(500, b"")) for _ in range(2)]
    server.fail("complete", *refusals)
    runner.start()
    runner.until(lambda: len(runner.started) == 2, "two jobs")
    beats = len(server.asked("heartbeat"))
    runner.until(lambda: len(server.asked("heartbeat")) > beats + 3, "some heartbeats")
    assert len(runner.started) == 2
    done.touch()
    runner.until(lambda: len(server.asked("complete")) == 2, "two tries to deliver")
    beats = len(server.asked("heartbeat"))
    runner.until(lambda: len(server.asked("heartbeat")) > beats + 3, "some heartbeats")
    assert len(runner.started) == 2
    for refusal in refusals:
        refusal.release()
    runner.until(lambda: len(server.results) == 5, "all results")
    assert sorted(runner.started) == [f"jb_{number}" for number in range(5)]


def test_2_a_job_with_many_cases_is_no_different(server: Server, runner: Runner) -> None:
    """Planted defect: a queue of fixed length inside the runner that many cases overflow."""
    files = {f"{t:02}{c:02}.{end}": b"" for t in range(1, 11) for c in range(1, 100) for end in ("in", "out")}
    server.problem(7, files)
    server.add("jb_1", problem_id=7, tasks=[{"task_id": task, "case_count": 99} for task in range(10)])
    runner.start(jobs=1)
    runner.until(lambda: server.results, "the result", within=300)  # it syncs two thousand files


# --- 3 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [403, 500, DROP])
def test_3_preparation_is_tried_three_times_and_then_handed_back(
    server: Server, runner: Runner, fault: int | str
) -> None:
    server.problem(7, {"0101.in": b"", "0101.out": b""})
    server.add("jb_1", problem_id=7)
    server.fail("code", *[fault] * 3)
    runner.start()
    runner.until(lambda: server.aborts, "the abort")
    assert len(server.asked("code")) == 3
    assert server.aborts[0][0] == "jb_1"
    assert "could not be prepared in 3 tries" in server.aborts[0][1]
    assert (runner.stop(), runner.started) == (0, [])
    assert list((runner.directory / "jobs").iterdir()) == []


def test_3_the_third_try_may_succeed(server: Server, runner: Runner) -> None:
    server.add("jb_1", problem_id=7)
    server.fail("code", 500)
    runner.start()
    runner.until(lambda: server.asked("problem"), "the first look for test data")  # 404 until now
    server.problem(7, {"0101.in": b"", "0101.out": b""})
    runner.until(lambda: server.results, "the result")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"../0101.in": b"", "0101.out": b""}, "has no place"),
        ({"0101.in": b"", "0101.out": b"", "0102.in": b"", "0102.out": b""}, "[2] cases"),
        ({}, "no case"),
    ],
)
def test_3_and_7_bad_test_data_is_handed_back(
    server: Server, runner: Runner, files: dict[str, bytes], reason: str
) -> None:
    """Planted defect: zip-slip, or a job whose cases nobody has."""
    server.problem(7, files)
    server.add("jb_1", problem_id=7)
    runner.start()
    runner.until(lambda: server.aborts, "the abort")
    assert reason in server.aborts[0][1]


def test_3_a_duplicate_is_ignored_and_a_job_is_started_once(server: Server, runner: Runner) -> None:
    """Planted defect: a second delivery of a held job that starts it again."""
    done = runner.folder / "done"
    for _ in range(3):
        server.add("jb_1", wait_for=str(done))
    runner.start()
    runner.until(lambda: not server.ready, "all deliveries")
    done.touch()
    runner.until(lambda: server.results, "the result")
    assert runner.stop() == 0
    assert runner.started == ["jb_1"]
    assert "came again" in runner.log


# --- 4 ----------------------------------------------------------------------------------------------


def test_4_a_result_is_brought_through_failures(server: Server, runner: Runner) -> None:
    server.add("jb_1")
    server.fail("complete", 500, LOSE, 202)
    runner.start()
    runner.until(lambda: len(server.asked("complete")) == 4, "four tries")
    assert runner.stop() == 0
    assert server.results == {"jb_1": {"tasks": [[{"status": "AC", "stdout": "done"}]]}}
    assert (server.aborts, runner.started) == ([], ["jb_1"])


@pytest.mark.parametrize("status", [404, 409])
def test_4_what_is_no_longer_wanted_ends_quietly(server: Server, runner: Runner, status: int) -> None:
    server.add("jb_1")
    server.fail("complete", status)
    runner.start()
    runner.until(lambda: server.asked("complete"), "the result")
    server.add("jb_2")
    runner.until(lambda: "jb_2" in server.results, "the next job")
    assert runner.stop() == 0
    assert (len(server.asked("complete")), server.aborts) == (2, [])
    assert list((runner.directory / "jobs").iterdir()) == []


def test_4_a_refused_result_is_kept_as_evidence_and_the_job_handed_back(
    server: Server, runner: Runner
) -> None:
    """Planted defect: a malformed result that vanishes with its directory."""
    server.add("jb_1", text="evidence")
    server.fail("complete", (400, b"tasks is no list"))
    runner.start()
    runner.until(lambda: server.aborts, "the abort")
    assert "tasks is no list" in server.aborts[0][1]
    assert runner.stop() == 0
    [kept] = (runner.directory / "evidence").iterdir()
    assert "evidence" in (kept / "result.json").read_text()
    assert "tasks is no list" in (kept / "why.txt").read_text()
    assert list((runner.directory / "jobs").iterdir()) == []


# --- 5 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_5_a_signal_lets_what_runs_finish_and_takes_no_more(
    server: Server, runner: Runner, number: signal.Signals
) -> None:
    done = runner.folder / "done"
    server.add("jb_1", wait_for=str(done))
    runner.start(jobs=1)
    runner.until(lambda: runner.started, "the start")
    runner.signal(number)
    runner.until(lambda: "No new jobs" in runner.log, "the draining")
    server.add("jb_2")
    done.touch()
    assert runner.wait() == 0
    assert (list(server.results), server.aborts, runner.started) == (["jb_1"], [], ["jb_1"])
    assert "Traceback" not in runner.log


def test_5_what_does_not_finish_in_time_is_handed_back(server: Server, runner: Runner) -> None:
    server.add("jb_1", wait_for="/never")
    server.add("jb_2", problem_id=7)
    server.fail("code", HANG)
    runner.start(drain_timeout=0.5)
    runner.until(lambda: runner.started and server.asked("code"), "one that runs and one that prepares")
    assert runner.stop() == 0
    assert sorted(server.aborts) == [("jb_1", "shutdown"), ("jb_2", "drain")]
    assert list((runner.directory / "jobs").iterdir()) == []


def test_5_a_second_signal_ends_it_at_once(server: Server, runner: Runner) -> None:
    server.add("jb_1", wait_for="/never")
    runner.start(drain_timeout=3600)
    runner.until(lambda: runner.started, "the start")
    runner.signal(signal.SIGTERM)
    runner.until(lambda: "No new jobs" in runner.log, "the draining")
    runner.signal(signal.SIGINT)
    assert runner.wait() == 128 + signal.SIGINT, "the job would have an hour"


def test_5_process_1_of_a_container_reaps_and_passes_signals_on(server: Server, runner: Runner) -> None:
    """Planted defect: without the reaping the orphan stays a zombie; without handlers no signal arrives."""
    server.add("jb_1", orphan=True)
    done = runner.folder / "done"
    server.add("jb_2", wait_for=str(done))
    bwrap = shutil.which("bwrap")
    assert bwrap is not None
    runner.start(bwrap, "--unshare-pid", "--as-pid-1", "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    assert runner.process is not None
    runner.until(lambda: "jb_1" in server.results and len(runner.started) == 2, "the jobs")
    first = process_1_of(runner.process.pid)
    runner.until(lambda: len(children(first)) == 1, "the orphan's burial")
    os.kill(first, signal.SIGTERM)
    runner.until(lambda: "No new jobs" in runner.log, "the draining")
    done.touch()
    assert runner.wait() == 0
    assert sorted(server.results) == ["jb_1", "jb_2"]


def process_1_of(bwrap: int) -> int:
    """The host's pid of process 1 in the namespace that this bwrap made."""
    [pid] = children(bwrap)
    return pid


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# --- 6 ----------------------------------------------------------------------------------------------


def test_6_nothing_in_one_job_ends_the_others(server: Server, runner: Runner) -> None:
    """Planted defect: an exception of an executor, or a malformed payload, that reaches the loops."""
    server.add("jb_1", fault="a defect")
    server.fail("next-job", (200, b"{"), (200, b'{"data": {"job_id": "jb_x", "tasks": 5}}'))
    server.leased["jb_x"] = ("rn_1", {"job_id": "jb_x"})
    server.add("jb_2", cannot="no compiler")
    server.add("jb_3")
    runner.start()
    runner.until(lambda: "jb_3" in server.results, "the sound job")
    reasons = dict(server.aborts)
    assert "a fault of the runner: ZeroDivisionError('a defect')" in reasons["jb_1"]
    assert reasons["jb_2"] == "no compiler"
    assert "it is malformed" in reasons["jb_x"]
    assert runner.stop() == 0


def test_6_directories_are_swept_at_the_next_start(server: Server, runner: Runner) -> None:
    """Planted defect: what a killed runner leaves behind stays for ever, or is used again."""
    server.add("jb_1", wait_for="/never")
    runner.start()
    runner.until(lambda: runner.started, "the start")
    runner.signal(signal.SIGKILL)
    runner.wait()
    [left] = (runner.directory / "jobs").iterdir()
    (left / "locked").mkdir()
    (left / "locked" / "file").touch()
    (left / "locked").chmod(0o500)
    outside = runner.folder / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (left / "link").symlink_to(outside)
    runner.start()
    runner.until(lambda: not left.exists(), "the sweeping")
    assert (outside / "precious").exists()
    assert runner.stop() == 0


def test_6_a_full_disk_hands_the_job_back_and_ends_nothing(server: Server, runner: Runner) -> None:
    """Planted defect: an error of the disk in a download ends the runner. EFBIG stands for ENOSPC here."""
    server.problem(7, {"0101.in": b"", "0101.out": b""})
    server.add("jb_1", problem_id=7)
    server.files["/code/jb_1"] = zipped({"main.py": b"#" * 200_000})
    runner.start("prlimit", "--fsize=100000")
    runner.until(lambda: server.aborts, "the abort")
    assert "the runner's disk says" in server.aborts[0][1]
    server.add("jb_2")
    runner.until(lambda: "jb_2" in server.results, "the next job")
    assert runner.stop() == 0


def test_6_a_result_without_room_is_handed_back_and_its_room_is_free_again(
    server: Server, runner: Runner
) -> None:
    """Planted defect: a job's directory that stays when its result could not be written."""
    runner.directory.mkdir()
    server.add("jb_1", big=200_000_000)
    mount = f"mount -t tmpfs -o size=160m none '{runner.directory}' && exec \"$@\""
    runner.start("unshare", "--mount", "sh", "-c", mount, "sh")
    runner.until(lambda: server.aborts, "the abort")
    assert server.aborts == [("jb_1", "the runner's disk says No space left on device")]
    server.add("jb_2")  # for which it wants 128 MiB of room
    runner.until(lambda: "jb_2" in server.results, "the next job")
    assert runner.stop() == 0


def test_6_one_directory_is_for_one_runner(server: Server, runner: Runner, tmp_path: Path) -> None:
    runner.start()
    runner.until(lambda: server.asked("next-job"), "a poll")
    other = Runner(server, tmp_path)
    other.log_path = tmp_path / "other.log"
    other.start()
    assert other.wait() == 1
    assert "Another runner uses" in other.log


# --- 7 ----------------------------------------------------------------------------------------------


def test_7_a_big_result_is_not_built_in_memory(server: Server, runner: Runner) -> None:
    """Planted defect: the result is read whole before it is sent."""
    server.add("jb_1", big=300_000_000)
    runner.start(jobs=1)
    assert runner.process is not None
    runner.until(lambda: server.results, "the result", within=300)
    peak = Path(f"/proc/{runner.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(peak) < 200_000
    [request] = server.asked("complete")
    assert len(request.body) > 300_000_000


def test_7_a_download_has_an_end(server: Server, runner: Runner) -> None:
    """Planted defect: what `code_url` names is written to the disk however large it is."""
    server.problem(7, {"0101.in": b"", "0101.out": b""})
    server.add("jb_1", problem_id=7)
    server.files["/code/jb_1"] = bytes(33 * 1024 * 1024)
    runner.start()
    runner.until(lambda: server.aborts, "the abort")
    assert "larger than 32 MiB" in server.aborts[0][1]


# --- what goes beyond ---------------------------------------------------------------------------------


def test_control_stops_work_at_once_and_hands_nothing_over(server: Server, runner: Runner) -> None:
    server.features = ("control",)
    server.add("jb_1", wait_for="/never")
    runner.start(jobs=1)
    runner.until(lambda: runner.started, "the start")
    server.control = {"superseded": ["jb_1"], "lost": [], "cancelled": []}
    server.add("jb_2")
    runner.until(lambda: "jb_2" in server.results, "the next job")
    assert (server.aborts, len(server.asked("complete"))) == ([], 1)
    assert runner.stop() == 0


def test_control_that_comes_late_does_not_stop_the_next_delivery(server: Server, runner: Runner) -> None:
    """Planted defect: "lost", of a delivery that was handed back, stops the job when it has come again."""
    server.features = ("control",)
    late = Held(then=(200, b'{"data": {"lost": ["jb_1"]}}'))
    server.fail("heartbeat", late)
    done = runner.folder / "done"
    runner.start()
    runner.until(lambda: server.asked("heartbeat"), "a heartbeat that takes its time")
    server.add("jb_1", wait_for=str(done))
    runner.until(lambda: runner.started, "the start")
    late.release()
    runner.until(lambda: len(server.asked("heartbeat")) > 1, "the next one, after the answer")
    first, second, *_ = server.asked("heartbeat")
    assert (first.json["active_job_ids"], second.json["active_job_ids"]) == ([], ["jb_1"])
    done.touch()
    runner.until(lambda: server.results, "the result")
    assert "Stopped" not in runner.log


def test_long_polling_starts_a_job_at_once_and_ends_with_the_runner(server: Server, runner: Runner) -> None:
    """Planted defect: a runner that is told to stop waits until its poll is answered."""
    server.features = ("wait",)
    first = Held()
    server.fail("next-job", first, Held())
    runner.start()
    runner.until(lambda: server.asked("next-job"), "a poll")
    server.add("jb_1")
    first.release()
    runner.until(lambda: server.results and len(server.asked("next-job")) == 2, "the result and a poll")
    assert [request.query.get("wait") for request in server.asked("next-job")] == ["20", "20"]
    assert runner.stop(within=20) == 0, "its poll would go on for longer"


def test_once_is_one_job(server: Server, runner: Runner) -> None:
    server.add("jb_1")
    server.add("jb_2")
    runner.start(once=True)
    assert runner.wait() == 0
    assert (list(server.results), len(server.ready)) == (["jb_1"], 1)
