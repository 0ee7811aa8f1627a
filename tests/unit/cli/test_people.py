"""The commands for problems, submissions, jobs and runners against a scripted server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.cli.test_commands import Terminal
from tests.unit.client.script import SENT_AT, Script, ok, problem
from tests.unit.client.test_work import DONE, JOB, PROBLEM, SUBMISSION, parts, stream
from windlass.cli import connect

PROBLEMS = Path(__file__).parents[3] / "examples/problems"
RUNNER = {
    "runner_id": "rn_1", "name": "box", "labels": ["gpu"], "seen_at": 1, "seconds_ago": 3.2, "jobs": 2,
}  # fmt: skip
THERE = ok({"runners": [RUNNER]})
CREATED = ok({"job_id": "jb_1", "state": "queued"}, 202)
ACCEPTED = ok({"submission_id": "sb_1", "job_id": "jb_1", "status": "pending"}, 202)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("WINDLASS_URL", raising=False)
    monkeypatch.delenv("WINDLASS_KEY", raising=False)
    monkeypatch.setattr(connect, "_drop_output", lambda: None)  # here stdout is no file
    return Terminal(monkeypatch)


def events(*told: dict[str, Any]) -> httpx.Response:
    """A stream of what is told; `submission` is the name of an event that is a whole submission."""
    lines = [
        f"event: {'submission' if 'status' in one and 'event' not in one else one['event']}\nid: {number}\n"
        f"data: {json.dumps(one)}\n\n"
        for number, one in enumerate(told, 1)
    ]
    return stream(*(line.encode() for line in lines))


def ended(status: str = "AC", code: int = 0, stdout: str = "", stderr: str = "") -> httpx.Response:
    case = {"stdout": stdout, "stderr": stderr, "exitCode": code, "execTime": 1, "memoryUsage": 1}
    return ok(DONE | {"result": {"tasks": [[case | {"status": status}]]}})


# --- job run ----------------------------------------------------------------------------------------


def test_a_job_prints_what_it_prints_and_ends_as_it_does(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print(1)")
    told = events(
        {"event": "started", "runner": "box"}, {"event": "output", "text": "one\n"}, {"event": "done"}
    )
    final = ended("RE", 7, "one\ntwo\n")
    script = Script(CREATED, THERE, told, final, final)
    result = terminal.run(
        script, "job", "run", "--label", "gpu", "--env", "A=b=c", "--file", f"{tmp_path / 'a.py'}:x/a.py",
        "--time", "1m", "--memory", "64M", "--priority", "3", "--", "python3", "x/a.py", "--flag",
    )  # fmt: skip
    assert (result.exit_code, result.stdout, result.stderr) == (7, "one\ntwo\n", "")
    assert script.bodies[0] == {
        "command": {
            "argv": ["python3", "x/a.py", "--flag"], "env": {"A": "b=c"}, "files": {"x/a.py": "print(1)"},
            "time_limit": 60_000, "memory_limit": 65_536,
        },
        "labels": ["gpu"],
        "priority": 3,
    }  # fmt: skip
    assert script.asked[1:3] == ["GET /runners", "GET /jobs/jb_1/events"]


def test_options_behind_the_command_are_the_commands(terminal: Terminal) -> None:
    """Planted defect: `windlass job run ls --json` prints JSON."""
    script = Script(CREATED, THERE, events({"event": "done"}), ended(), ended())
    assert terminal.run(script, "job", "run", "ls", "--json").exit_code == 0
    assert script.bodies[0]["command"]["argv"] == ["ls", "--json"]


@pytest.mark.parametrize(
    ("status", "code", "exit_status", "said"),
    [
        ("AC", 0, 0, ""),
        ("RE", 255, 255, ""),
        ("RE", 139, 139, ""),
        ("TLE", 0, 124, "time limit"),
        ("MLE", 137, 137, "memory limit"),
        ("OLE", 0, 1, ""),
        ("JE", -1, 125, "could not run it"),
    ],
)
def test_exit_statuses(terminal: Terminal, status: str, code: int, exit_status: int, said: str) -> None:
    """Planted defect: 0 for a command that met its limit and had ended well."""
    script = Script(CREATED, THERE, events({"event": "done"}), *[ended(status, code)] * 2)
    result = terminal.run(script, "job", "run", "--", "x")
    assert result.exit_code == exit_status
    assert said in result.stderr


def test_a_job_that_nobody_could_do_is_125_with_the_reason(terminal: Terminal) -> None:
    failed = JOB | {
        "state": "failed",
        "attempts": 3,
        "events": [{"event": "given_back", "reason": "no \x1b[2J"}],
    }
    script = Script(CREATED, THERE, events({"event": "failed"}), *[ok(failed)] * 2)
    result = terminal.run(script, "job", "run", "--", "x")
    assert result.exit_code == 125
    assert "failed after 3 attempts: no \\x1b[2J" in result.stderr


@pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), problem(422, "invalid", field="labels")])
def test_no_server_or_a_refusal_is_125(terminal: Terminal, answer: httpx.Response | Exception) -> None:
    result = terminal.run(Script(answer), "job", "run", "--", "x")
    assert result.exit_code == 125
    assert result.stderr.startswith("windlass: ")


def test_another_attempt_and_a_loss_are_said(terminal: Terminal) -> None:
    told = events(
        {"event": "started", "runner": "one"}, {"event": "output", "text": "a\n"},
        {"event": "given_back", "runner": "one", "reason": "its disk is full"},
        {"event": "started", "runner": "two"}, {"event": "lost"}, {"event": "output", "text": "c\n"},
    )  # fmt: skip
    result = terminal.run(Script(CREATED, THERE, told, *[ended(stdout="a\nb\nc\n")] * 2), "job", "run", "x")
    assert result.stdout.startswith("a\nc\n")
    assert "its disk is full" in result.stderr
    assert "two begins it anew" in result.stderr
    assert "lost on the way" in result.stderr


def test_interrupted_it_cancels_the_job(terminal: Terminal) -> None:
    """Planted defect: Ctrl-C leaves the job running."""

    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    script = Script(CREATED, THERE, interrupt, CREATED, ok())
    result = terminal.run(script, "job", "run", "--", "x")
    assert result.exit_code == 130
    assert script.asked[-2:] == ["POST /jobs", "DELETE /jobs/jb_1"]
    keys = {request.headers.get("idempotency-key") for request in script.requests if request.method == "POST"}
    assert len(keys) == 1


def test_interrupted_before_it_knows_the_job_it_cancels_it_all_the_same(terminal: Terminal) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    script = Script(interrupt, CREATED, ok())
    assert terminal.run(script, "job", "run", "--", "x").exit_code == 130
    assert script.asked == ["POST /jobs", "POST /jobs", "DELETE /jobs/jb_1"]
    assert script.requests[0].headers["idempotency-key"] == script.requests[1].headers["idempotency-key"]


def test_nobody_there_is_said_at_once(terminal: Terminal) -> None:
    old = ok({"runners": [RUNNER | {"seconds_ago": 3600}, RUNNER | {"labels": []}]})
    script = Script(CREATED, old, events({"event": "done"}), ended(), ended())
    result = terminal.run(script, "job", "run", "--label", "gpu", "--", "x")
    assert "no runner that offers gpu" in result.stderr
    script = Script(CREATED, problem(403, "forbidden"), events({"event": "done"}), ended(), ended())
    assert terminal.run(script, "job", "run", "--", "x").exit_code == 0


def test_detached_it_prints_the_id_alone(terminal: Terminal) -> None:
    result = terminal.run(Script(CREATED), "job", "run", "--detach", "--", "x")
    assert (result.exit_code, result.stdout) == (0, "jb_1\n")


def test_as_json_it_prints_the_job_alone(terminal: Terminal) -> None:
    told = events({"event": "output", "text": "one\n"})
    result = terminal.run(
        Script(CREATED, THERE, told, *[ended("RE", 3, "one\n")] * 2), "job", "run", "--json", "x"
    )
    assert result.exit_code == 3
    assert json.loads(result.stdout)["result"]["tasks"][0][0]["stdout"] == "one\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--env", "A", "x"), ("--file", "/no/such", "x"), ("--time", "0", "x"), ("--time", "2h", "x"),
        ("--memory", "64", "x"), ("--priority", "10", "x"), ("--stdin", "/no/such", "x"), (),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    terminal: Terminal, arguments: tuple[str, ...]
) -> None:
    script = Script()
    assert terminal.run(script, "job", "run", *arguments).exit_code == 2
    assert script.requests == []


# --- jobs and runners -------------------------------------------------------------------------------


def test_jobs_lists_what_runs_and_what_waits(terminal: Terminal) -> None:
    waiting = JOB | {"job_id": "jb_2", "state": "queued", "command": None, "submission_id": "sb_1"}
    script = Script(ok({"jobs": [JOB]}), ok({"jobs": [waiting]}))
    lines = terminal.run(script, "jobs").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["JOB", "STATE"], ["jb_1", "running"], ["jb_2", "queued"]]
    assert lines[2].endswith("judge sb_1")
    assert script.asked == ["GET /jobs?state=running&limit=100", "GET /jobs?state=queued&limit=100"]


def test_jobs_of_one_state_as_json(terminal: Terminal) -> None:
    script = Script(ok({"jobs": [JOB | {"state": "failed"}]}))
    result = terminal.run(script, "job", "list", "--state", "failed", "--max", "3", "--json")
    assert [job["job_id"] for job in json.loads(result.stdout)] == ["jb_1"]
    assert script.asked == ["GET /jobs?state=failed&limit=3"]


def test_a_command_of_others_cannot_paint_the_terminal(terminal: Terminal) -> None:
    """Planted defect: an escape sequence in a command's arguments."""
    job = JOB | {"command": {"argv": ["echo", "\x1b[2J" + "x" * 100]}}
    result = terminal.run(Script(ok({"jobs": [job]})), "jobs", "--state", "running")
    assert "\x1b" not in result.stdout
    assert result.stdout.rstrip().endswith("...")


def test_job_show(terminal: Terminal) -> None:
    life = [
        {"event": "sent", "at": SENT_AT},
        {"event": "given_back", "at": SENT_AT, "by": "rn_1", "reason": "no"},
    ]
    case = {
        "stdout": "hi\x1b[31m\n",
        "stderr": "",
        "exitCode": 3,
        "execTime": 1,
        "memoryUsage": 1,
        "status": "RE",
    }
    job = DONE | {"events": life, "result": {"tasks": [[case]]}}
    result = terminal.run(Script(ok(job)), "job", "show", "jb_1")
    assert f"{SENT_AT}  given_back  rn_1: no" in result.stdout
    assert result.stdout.endswith("hi\\x1b[31m\n")


def test_cancelling_what_is_over_says_so(terminal: Terminal) -> None:
    assert terminal.run(Script(ok()), "job", "cancel", "jb_1").stdout == "jb_1 is cancelled\n"
    result = terminal.run(Script(problem(410, "message_gone")), "job", "cancel", "jb_1")
    assert result.exit_code == 1
    assert "windlass job show jb_1" in result.stderr


def test_runners(terminal: Terminal) -> None:
    assert "box   gpu     2     3 s ago" in terminal.run(Script(THERE), "runners").stdout
    nobody = terminal.run(Script(ok({"runners": []})), "runners")
    assert (nobody.exit_code, nobody.stdout) == (0, "")
    assert "windlass runner --server" in nobody.stderr


# --- problems ---------------------------------------------------------------------------------------


def test_a_directory_becomes_a_problem(terminal: Terminal) -> None:
    script = Script(ok(PROBLEM, 201))
    result = terminal.run(script, "problem", "add", str(PROBLEMS / "guess"))
    assert result.stdout.startswith("Problem 1 (A+B) is added")
    meta = json.loads(parts(script.requests[0])["meta"])
    assert (script.asked, len(meta["tasks"])) == (["POST /problems"], 1)
    script = Script(ok(PROBLEM | {"version": 2}))
    result = terminal.run(script, "problem", "add", str(PROBLEMS / "guess"), "--id", "7")
    assert script.asked == ["PUT /problems/7"]
    assert "replaced, version 2" in result.stdout


def test_a_directory_that_is_no_problem_is_told_before_anything_is_sent(
    terminal: Terminal, tmp_path: Path
) -> None:
    script = Script()
    result = terminal.run(script, "problem", "add", str(tmp_path))
    assert (result.exit_code, script.requests) == (1, [])
    assert "problem.toml" in result.stderr
    assert "problem add --help" in result.stderr


def test_problems_are_listed_shown_and_removed(terminal: Terminal) -> None:
    summary = {name: PROBLEM[name] for name in ("problem_id", "title", "max_score", "version", "updated_at")}
    listed = terminal.run(Script(ok({"problems": [summary], "next": None})), "problem", "list")
    assert listed.stdout.splitlines()[1].split()[:2] == ["1", "A+B"]
    task = {"score": 10, "case_count": 2, "time_limit": 1000, "memory_limit": 65_536, "scoring": "all"}
    shown = terminal.run(
        Script(ok(PROBLEM | {"tasks": [task], "statement": "Add\x1b."})), "problem", "show", "1"
    )
    assert "1,000 ms  64 MiB" in shown.stdout
    assert shown.stdout.endswith("Add\\x1b.\n")
    script = Script(ok())
    assert terminal.run(script, "problem", "remove", "1", "--yes").exit_code == 0
    assert script.asked == ["DELETE /problems/1"]
    assert terminal.run(Script(), "problem", "remove", "1").exit_code == 2  # nobody is there to confirm
    again = terminal.run(Script(ok({"submissions": 12}, 202)), "problem", "rejudge", "1", "--yes")
    assert again.stdout == "12 submissions are judged again.\n"


def test_a_problem_that_is_not_there_says_where_to_look(terminal: Terminal) -> None:
    result = terminal.run(Script(problem(404, "problem_not_found")), "problem", "show", "1")
    assert "windlass problem list" in result.stderr


# --- submissions ------------------------------------------------------------------------------------


def source(tmp_path: Path, name: str = "a.py", content: bytes = b"print(1)") -> str:
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "more", "language"),
    [
        ("a.py", (), b"2"), ("a.cpp", (), b"1"), ("a.c", (), b"0"), ("a.py", ("--language", "1"), b"1"),
        ("a.zip", ("-l", "C++17"), b"1"), ("a", ("-l", "c11"), b"0"),
    ],
)  # fmt: skip
def test_the_language_is_in_the_name_or_named(
    terminal: Terminal, tmp_path: Path, name: str, more: tuple[str, ...], language: bytes
) -> None:
    script = Script(ACCEPTED)
    result = terminal.run(script, "submit", source(tmp_path, name), "--problem", "3", *more)
    assert result.stdout == "sb_1\n"
    assert parts(script.requests[0])["language"] == language


@pytest.mark.parametrize("arguments", [("a.txt",), ("a.py", "-l", "cobol"), ("nothing.py",)])
def test_what_cannot_be_submitted_is_told_before_anything_is_asked(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    source(tmp_path)
    source(tmp_path, "a.txt")
    monkeypatch.chdir(tmp_path)
    script = Script()
    assert terminal.run(script, "submit", *arguments, "-p", "1").exit_code == 2
    assert script.requests == []


def case(number: int, verdict: str = "AC", stderr: str = "") -> dict[str, Any]:
    return {
        "case": number, "verdict": verdict, "time_ms": 12.0, "memory_kib": 2048, "exit_code": 0,
        "stdout": "", "stderr": stderr,
    }  # fmt: skip


def judged(*cases: dict[str, Any], verdict: str = "AC", score: float = 10, **more: Any) -> dict[str, Any]:
    tasks = [{"task_id": 1, "verdict": verdict, "score": score, "max_score": 10, "cases": cases}]
    return SUBMISSION | {"status": "done", "verdict": verdict, "score": score, "tasks": tasks, **more}


def told(number: int, status: str = "AC") -> dict[str, Any]:
    return {
        "event": "case", "task": 1, "case": number, "status": status, "execTime": 12, "memoryUsage": 2048,
    }  # fmt: skip


STARTED = {"event": "started", "runner": "box"}
COMPILED = {"event": "compiled", "status": None}


def test_a_pipe_gets_every_case_once_and_the_verdict(terminal: Terminal, tmp_path: Path) -> None:
    """Planted defect: a case whose event was lost is missing, or one is there twice."""
    done = judged(case(1), case(2), case(3, "WA", "checker: line 1 \x1b[2J"), verdict="WA", score=0)
    script = Script(
        ACCEPTED, THERE, events(SUBMISSION, STARTED, COMPILED, told(1), told(3, "WA"), done), ok(done)
    )
    result = terminal.run(script, "submit", source(tmp_path), "-p", "1", "--watch")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "box has it",
        "task 1  case 1   AC       12 ms  2 MiB",
        "task 1  case 3   WA       12 ms  2 MiB",
        "task 1  case 2   AC       12 ms  2 MiB",
        "WA: 0 of 10 points",
        "The first that was not right: task 1, case 3: WA",
        "checker: line 1 \\x1b[2J",
    ]


def test_a_runner_that_dies_is_followed_by_another(terminal: Terminal, tmp_path: Path) -> None:
    done = judged(case(1))
    twice = events(SUBMISSION, STARTED, told(1), STARTED | {"runner": "two"}, told(1), done)
    result = terminal.run(
        Script(ACCEPTED, THERE, twice, ok(done)), "submit", source(tmp_path), "-p", "1", "-w"
    )
    assert result.exit_code == 0
    assert "two begins it anew" in result.stdout
    assert result.stdout.endswith("AC: 10 of 10 points\n")


def test_as_json_it_prints_the_submission_alone(terminal: Terminal, tmp_path: Path) -> None:
    done = judged(case(1))
    script = Script(ACCEPTED, THERE, events(SUBMISSION, told(1), done), ok(done))
    result = terminal.run(script, "submit", source(tmp_path), "-p", "1", "-w", "--json")
    assert json.loads(result.stdout)["verdict"] == "AC"


def test_an_interrupted_watch_says_that_it_is_judged_all_the_same(terminal: Terminal, tmp_path: Path) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    script = Script(ACCEPTED, THERE, interrupt)
    result = terminal.run(script, "submit", source(tmp_path), "-p", "1", "-w")
    assert result.exit_code == 130
    assert "windlass submission show sb_1" in result.stderr
    assert len(script.requests) == 3


def test_submission_show_and_list(terminal: Terminal) -> None:
    done = judged(case(1, "CE", "main.c:1: error\n"), verdict="CE", score=0)
    shown = terminal.run(Script(ok(done)), "submission", "show", "sb_1").stdout
    assert shown.endswith("CE: 0 of 10 points\nmain.c:1: error\n")
    waiting = terminal.run(Script(ok(SUBMISSION)), "submission", "show", "sb_1").stdout
    assert waiting.endswith("It is pending; windlass jobs --state queued lists what waits.\n")
    summary = {name: value for name, value in done.items() if name not in ("tasks", "reason", "attempts")}
    listed = terminal.run(Script(ok({"submissions": [summary], "next": None})), "submission", "list")
    assert listed.stdout.splitlines()[1].split()[:8] == [
        "sb_1",
        "1",
        "python3",
        "done",
        "CE",
        "0",
        "of",
        "10",
    ]


def test_a_judges_error_tells_its_reason(terminal: Terminal) -> None:
    done = judged(verdict="JE", score=0, reason="The last runner fell silent.") | {"tasks": []}
    shown = terminal.run(Script(ok(done)), "submission", "show", "sb_1").stdout
    assert shown.endswith("JE: 0 of 10 points\nThe last runner fell silent.\n")


def test_submission_rejudge(terminal: Terminal) -> None:
    again = SUBMISSION | {"generation": 2}
    plain = terminal.run(Script(ok(again, 202)), "submission", "rejudge", "sb_1")
    assert plain.stdout == "sb_1 is judged again, for the 2nd time.\n"
    done = judged(case(1), generation=2)
    script = Script(ok(again, 202), THERE, events(again, told(1), done), ok(done))
    assert terminal.run(script, "submission", "rejudge", "sb_1", "--watch").exit_code == 0
