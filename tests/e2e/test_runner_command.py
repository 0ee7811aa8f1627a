"""`windlass runner` as people start it: real boxes, real compilers, and a server on a port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.boxes import WEAK
from tests.harness import WINDLASS, clean_environment, free_port, run_cli, until
from tests.unit.runner.server import SECRET, Served, Server
from windlass.judge.languages import language_of_file
from windlass.judge.package import read_package
from windlass.judge.source import pack_source

PROBLEMS = Path(__file__).parents[2] / "examples/problems"


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server(heartbeat=0.2, poll=0.1, features=("control", "events", "wait"))
    with Served(serving, free_port()):
        yield serving


def submit(server: Server, job_id: str, problem: str, solution: str) -> None:
    """A job that judges one of the examples' solutions."""
    meta, testdata = read_package(PROBLEMS / problem)
    number = sorted(path.name for path in PROBLEMS.iterdir()).index(problem)
    source = PROBLEMS / problem / "solutions" / solution
    language = language_of_file(source.name)
    assert language is not None
    tasks = [
        {"task_id": place} | {name: task[name] for name in ("case_count", "memory_limit", "time_limit")}
        for place, task in enumerate(meta["tasks"], 1)
    ]
    server.put_up(number, testdata)
    server.files[f"/code/{job_id}"] = pack_source(source.read_bytes(), language)
    server.ready.append(
        {
            "job_id": job_id, "submission_id": "sb_1", "problem_id": number,
            "language": language.number, "code_url": f"{server.url}/code/{job_id}",
            "checker": meta.get("checker", ""), "tasks": tasks,
        }
    )  # fmt: skip


def statuses(server: Server, job_id: str) -> set[str]:
    return {case["status"] for task in server.results[job_id]["tasks"] for case in task}


def test_it_judges_and_runs_commands(server: Server, tmp_path: Path) -> None:
    """A right and a wrong submission and a command, one runner, one start; a terminal's Ctrl-C ends it."""
    submit(server, "jb_right", "a-plus-b", "ac.py")
    submit(server, "jb_wrong", "parts", "wa-words.c")
    server.add("jb_command", command={"argv": ["sh", "-c", "echo $((6 * 7)); exit 3"]})
    (tmp_path / "token").write_text(SECRET + "\n")
    log = tmp_path / "log"
    with log.open("wb") as out:
        running = subprocess.Popen(
            [WINDLASS, "runner", "--server", server.url, "--token-file", tmp_path / "token",
             "--name", "r1", "--dir", tmp_path / "runner", "--jobs", "2", "--labels", "gpu, big",
             "--allow-weak-sandbox"],
            stdout=out, stderr=out, env=clean_environment(), start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: len(server.results) == 3 or running.poll() is not None, 60, "the results")
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0, log.read_text()
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    assert statuses(server, "jb_right") == {"AC"}
    assert "WA" in statuses(server, "jb_wrong")
    [[case]] = server.results["jb_command"]["tasks"]
    assert (case["exitCode"], case["stdout"]) == (3, "42\n")
    labels = server.asked("register")[0].json["labels"]
    assert labels[:2] == ["gpu", "big"]
    assert all(label.startswith("sandbox-") for label in labels[2:]), "what the boxes here keep"
    told = [event for request in server.asked("events") for event in request.json["events"]]
    assert {"compiled", "case", "output"} == {event["event"] for event in told}
    assert list((tmp_path / "runner" / "jobs").iterdir()) == []
    words = log.read_text()
    for word in ("Registered", "Took jb_right", "Delivered jb_right", "No new jobs", "ended"):
        assert word in words


def test_ephemeral_is_one_job_and_nothing_left(server: Server, tmp_path: Path) -> None:
    server.add("jb_1", command={"argv": ["true"]})
    server.add("jb_2", command={"argv": ["true"]})
    done = run_cli(
        "runner", "--ephemeral", "--dir", str(tmp_path / "runners"), "--allow-weak-sandbox",
        server=server.url, environment={"WINDLASS_REGISTRATION_TOKEN": SECRET},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (list(server.results), len(server.ready)) == (["jb_1"], 1)
    assert list((tmp_path / "runners").iterdir()) == []


def test_a_refusal_is_a_plain_word(server: Server, tmp_path: Path) -> None:
    done = run_cli(
        "runner", "--token", "wrong", "--dir", str(tmp_path), "--allow-weak-sandbox", server=server.url
    )
    assert done.returncode == 1
    assert "refuses the registration token" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_weak_sandbox_is_refused_by_name_unless_it_is_allowed(server: Server, tmp_path: Path) -> None:
    """Planted defect: the command allows it always; one that registers before it looks."""
    server.add("jb_1", command={"argv": ["true"]})
    start = ("runner", "--once", "--token", SECRET, "--dir", str(tmp_path))
    refused = run_cli(*start, server=server.url, under=WEAK)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False), refused.stderr
    assert "every box has an unprivileged user of its own (too few user ids are mapped" in refused.stderr
    assert "Give the runner what is missing, or accept less with --allow-weak-sandbox" in refused.stderr
    assert server.requests == []
    allowed = run_cli(*start, "--allow-weak-sandbox", server=server.url, under=WEAK)
    assert (allowed.returncode, list(server.results)) == (0, ["jb_1"]), allowed.stderr
    assert "This sandbox is weak" in allowed.stderr
    labels = server.asked("register")[0].json["labels"]
    assert "sandbox-namespaces" in labels
    assert "sandbox-user" not in labels


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--server", "nonsense", "--token", "x"], 1, "is not an address"),
        (["--token-file", "/does/not/exist"], 2, "cannot be read"),
        (["--log-format", "xml"], 2, "neither console nor json"),
        (["--jobs", "0"], 2, "--jobs"),
        (["--dir", "/proc/nothing", "--token", "x"], 1, "cannot be used"),
        (["--docker", "gcc:13", "--token", "x"], 1, "Docker"),
        ([], 1, "There is no registration token"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    place = [] if "--dir" in arguments else ["--dir", str(tmp_path)]
    done = run_cli("runner", *place, *arguments, "--allow-weak-sandbox")
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert words in done.stderr


def test_logs_may_be_json(server: Server, tmp_path: Path) -> None:
    server.add("jb_1", command={"argv": ["true"]})
    done = run_cli(
        "runner", "--once", "--token", SECRET, "--dir", str(tmp_path), "--log-format", "json",
        "--allow-weak-sandbox", server=server.url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert [event for event in events if event != "weak_sandbox"] == [
        "registered",
        "taken",
        "delivered",
        "ended",
    ]
