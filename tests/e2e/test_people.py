"""What people do with jobs and the judge, as they do it: real commands, a real server, a real runner."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.harness import WINDLASS, ServerProcess, clean_environment, run_cli, until
from tests.installation import sleepers
from windlass.client import Client

EXAMPLES = Path(__file__).parents[2] / "examples/problems"
RUNNER_LINE = re.compile(r"windlass runner --server \S+ --token (\S+)")


class Site:
    """A server, and a runner that was started as the server says."""

    def __init__(self, folder: Path, lease: float = 60) -> None:
        environment = {"WINDLASS_RUNNER_HEARTBEAT": "0.5", "WINDLASS_RUNNER_LEASE": str(lease)}
        self.server = ServerProcess(folder / "data", environment=environment).start()
        self._folder = folder
        self._runners: list[subprocess.Popen[bytes]] = []
        self._problems: dict[str, int] = {}

    @property
    def url(self) -> str:
        return self.server.url

    def start_runner(self, *options: str) -> subprocess.Popen[bytes]:
        number = len(self._runners)
        token = RUNNER_LINE.findall(self.server.log)[-1]
        with (self._folder / f"runner-{number}.log").open("wb") as log:
            runner = subprocess.Popen(
                [str(WINDLASS), "runner", "--server", self.url, "--token", token,
                 "--dir", str(self._folder / f"runner-{number}"), "--name", f"runner-{number}", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(),
                start_new_session=True,
            )  # fmt: skip
        self._runners.append(runner)

        def registered() -> bool:
            text = (self._folder / f"runner-{number}.log").read_text(errors="replace")
            assert runner.poll() is None, text
            return "Registered" in text

        until(registered, 60, "the runner")
        return runner

    def end_sleep(self) -> None:
        """End the `sleep` of a runner's box, so that its script goes on."""

        def found() -> list[int]:
            return [pid for runner in self._runners for pid in sleepers(runner.pid)]

        for pid in until(found, what="a sleep"):
            os.kill(pid, signal.SIGPIPE)  # of which a shell says nothing

    def problem(self, name: str) -> int:
        """The number of an example, added where it is not there yet."""
        if name not in self._problems:
            added = self.run("problem", "add", str(EXAMPLES / name), "--json")
            self._problems[name] = json.loads(added.stdout)["problem_id"]
        return self._problems[name]

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return run_cli(*arguments, server=self.url, text=text)

    @contextmanager
    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [str(WINDLASS), *arguments],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
            env=clean_environment({"WINDLASS_URL": self.url}),
        )  # fmt: skip
        with process:
            try:
                yield process
            finally:
                process.kill()

    def close(self) -> None:
        for runner in self._runners:
            if runner.poll() is None:
                runner.send_signal(signal.SIGTERM)
        for runner in self._runners:
            try:
                runner.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(runner.pid, signal.SIGKILL)
                runner.wait()
        self.server.kill()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    folder.chmod(0o755)
    opened = Site(folder)
    try:
        opened.start_runner()
        yield opened
    finally:
        opened.close()


# --- the judge --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solution", "status"),
    [
        ("a-plus-b/solutions/ac.cpp", 0), ("a-plus-b/solutions/wa-floats.py", 1),
        ("a-plus-b/solutions/re-null.c", 1), ("a-plus-b/solutions/ce.c", 1),
        ("deviation/solutions/ac.py", 0), ("guess/solutions/ac.c", 0),
        ("guess/solutions/wa-gives-up.py", 1), ("parts/solutions/ac.py", 0),
        ("parts/solutions/wa-words.c", 1),
    ],
)  # fmt: skip
def test_a_submission_is_watched_to_its_verdict(site: Site, solution: str, status: int) -> None:
    """Every example problem, the interactive one and that with a checker of its own among them."""
    name = solution.partition("/")[0]
    number = site.problem(name)
    done = site.run("submit", str(EXAMPLES / solution), "--problem", str(number), "--watch")
    assert done.returncode == status, done.stderr
    verdict = Path(solution).stem.partition("-")[0].upper()
    lines = done.stdout.splitlines()
    assert lines[0] == "runner-0 has it"
    cases = len(list((EXAMPLES / name / "data").glob("*.in")))
    assert len({line[:16] for line in lines if line.startswith("task ")}) == cases
    assert any(line.startswith(f"{verdict}: ") for line in lines)


def test_the_cases_come_while_it_is_judged(site: Site, tmp_path: Path) -> None:
    """Planted defect: a runner that tells nothing, so that all cases come with the verdict."""
    slow = tmp_path / "slow.py"
    slow.write_text("import time; a, b = map(int, input().split()); time.sleep(1); print(a + b)")
    number = site.problem("a-plus-b")
    with site.start("submit", str(slow), "--problem", str(number), "--watch") as watching:
        assert watching.stdout is not None
        came = (line for line in watching.stdout if line.startswith(b"task "))
        next(came)
        newest = httpx.get(f"{site.url}/submissions?problem_id={number}").json()["submissions"][0]
        assert newest["status"] == "judging"
        assert len(list(came)) == 3
        assert watching.wait(60) == 0


def test_a_terminal_gets_a_live_table(site: Site) -> None:
    number = site.problem("a-plus-b")
    ours, theirs = pty.openpty()
    source = EXAMPLES / "a-plus-b/solutions/ac.py"
    with site.start("submit", str(source), "--problem", str(number), "--watch", stdout=theirs) as watching:
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                chunk = os.read(ours, 65_536)
            except OSError:
                break  # that is how a terminal ends
            said += chunk
        os.close(ours)
        assert watching.wait(60) == 0
        assert b"VERDICT" in said
        assert b"\x1b[2K" in said, "it was never drawn anew"
        assert b"AC: 100 of 100 points" in said


def test_a_rejudge_after_the_problem_was_replaced(site: Site, tmp_path: Path) -> None:
    problem = tmp_path / "problem"
    (problem / "data").mkdir(parents=True)
    for name in ("problem.toml", "statement.md"):
        (problem / name).write_bytes((EXAMPLES / "a-plus-b" / name).read_bytes())
    for file in (EXAMPLES / "a-plus-b/data").iterdir():
        (problem / "data" / file.name).write_bytes(file.read_bytes())
    number = json.loads(site.run("problem", "add", str(problem), "--json").stdout)["problem_id"]
    source = str(EXAMPLES / "a-plus-b/solutions/ac.py")
    done = site.run("submit", source, "-p", str(number), "--watch", "--json")
    submission = json.loads(done.stdout)["submission_id"]
    (problem / "data/0101.out").write_text("something else\n")
    assert "version 2" in site.run("problem", "add", str(problem), "--id", str(number)).stdout
    assert site.run("submission", "rejudge", submission, "--watch").returncode == 1
    shown = site.run("submission", "show", submission).stdout
    assert "WA: 0 of 100 points" in shown
    listed = site.run("submission", "list", "--problem", str(number)).stdout
    assert submission in listed
    assert site.run("problem", "remove", str(number), "--yes").returncode == 0
    assert "windlass problem list" in site.run("problem", "show", str(number)).stderr


# --- jobs -------------------------------------------------------------------------------------------


def test_a_command_gives_its_output_and_its_exit_status(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os, sys; print(input(), os.environ['A']); sys.exit(7)")
    done = site.run(
        "job", "run", "--file", f"{tmp_path / 'a.py'}:x/b.py", "--env", "A=b", "--stdin", "-", "--",
        "python3", "x/b.py", text="from here\n",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, "from here b\n"), done.stderr
    assert site.run("job", "run", "--time", "1s", "--", "sleep", "60").returncode == 124
    assert site.run("job", "run", "nosuch").returncode == 127


def test_output_comes_while_the_command_runs(site: Site) -> None:
    """Planted defect: a runner that tells nothing; all of it comes with the result."""
    script = "echo one; sleep 600; echo two"
    with site.start("job", "run", "--", "sh", "-c", script) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"one\n"
        site.end_sleep()  # or there would be no second line
        assert running.stdout.read() == b"two\n"
        assert running.wait(60) == 0


def test_a_mebibyte_of_output_arrives_whole(site: Site) -> None:
    done = site.run("job", "run", "--", "seq", "150000")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 150_001))
    assert done.stderr == ""


def state_of(site: Site, job_id: str) -> str:
    with Client(site.url) as client:
        return client.jobs.show(job_id).state


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_cancels_the_job(site: Site, number: int) -> None:
    with site.start("job", "run", "--", "sh", "-c", "echo here; sleep 600") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"here\n"
        with Client(site.url) as client:
            [job] = client.jobs.list("running")
        assert job.job_id in site.run("jobs").stdout
        running.send_signal(number)
        said = running.communicate(timeout=60)[1]
        assert running.returncode == 130, said
        assert b"is cancelled" in said
        assert state_of(site, job.job_id) == "cancelled"
        until(lambda: httpx.get(site.url + "/runners").json()["runners"][0]["jobs"] == 0, 60, "a free runner")


def test_a_reader_that_leaves_ends_the_job(site: Site) -> None:
    with site.start("job", "run", "--", "sh", "-c", "while echo y; do sleep 0.05; done") as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.wait(60) == 141
        with Client(site.url) as client:
            assert client.jobs.list("running") == []


def test_a_job_for_nobody_waits_and_says_so(site: Site) -> None:
    job_id = site.run("job", "run", "--detach", "--label", "nobody-has", "--", "true").stdout.strip()
    with site.start("job", "run", "--label", "nobody-has", "--", "true") as waiting:
        assert waiting.stderr is not None
        assert b"no runner that offers nobody-has" in waiting.stderr.readline()
        assert site.run("jobs", "--state", "queued").stdout.count("nobody-has") == 2
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=60)
        assert site.run("job", "cancel", job_id).returncode == 0
        assert "cancelled" in site.run("job", "show", job_id).stdout
        assert site.run("job", "cancel", job_id).returncode == 1


def test_the_server_may_start_anew_while_a_job_is_followed(tmp_path: Path) -> None:
    """Planted defect: a stream that is not asked for again."""
    tmp_path.chmod(0o755)
    site = Site(tmp_path)
    try:
        site.start_runner()
        with site.start("job", "run", "--", "sh", "-c", "echo one; sleep 600; echo two") as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"one\n"
            site.server.kill()
            site.server.start()
            site.end_sleep()
            out, said = running.communicate(timeout=60)
            assert (running.returncode, out) == (0, b"two\n"), said
    finally:
        site.close()


def test_a_runner_that_dies_is_followed_by_another(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    site = Site(tmp_path, lease=8)
    try:
        first = site.start_runner()
        with site.start("job", "run", "--", "sh", "-c", "echo here; sleep 600; echo done") as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"here\n"
            site.start_runner()
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            site.end_sleep()
            out, said = running.communicate(timeout=60)
            assert (running.returncode, out) == (0, b"here\ndone\n"), said
            assert b"runner-1 begins it anew" in said
            names = site.run("runners").stdout
            assert "runner-0" in names
            assert "runner-1" in names
    finally:
        site.close()
