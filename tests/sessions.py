"""The terminal sessions in the documents, run against a real server and compared with what is printed.

A session is every ```console block of a document, in order: lines that begin with `$ ` are commands (`> `
goes on with one), the lines under a command are its output. Commands run in a shell, in a directory that
holds nothing but `examples`; `localhost:8000` is the test's server. `windlass serve … &` and `kill -9 %1`
start and kill that server, and `windlass runner … &` starts a runner, on any host: also one where the
sandbox is weak. `export NAME=VALUE` holds for all that comes after it. A ```python block between them is
run too, and has to succeed.

Output is compared exactly, but for what differs from run to run: an id or a receipt in the document stands
for the one that came, there and in every later command; a time only has to be a time, and so on; and "…"
stands for anything.

    python -m tests.sessions README.md      writes the answers of a real run into the document
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import WINDLASS, ServerProcess, clean_environment

ROOT = Path(__file__).parents[1]

BLOCK = re.compile(r"^```(?P<kind>console|python)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"^\$ (?P<command>.*\n(?:> .*\n)*)(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)

OPAQUE = {"by", "id", "job_id", "receipt", "runner_id", "submission_id"}
TIMES = {
    "at", "created_at", "ended_at", "enqueued_at", "judged_at", "lease_until", "submitted_at", "until",
    "updated_at",
}  # fmt: skip
MEASURES = {
    "execTime", "in_rate", "memoryUsage", "memory_kib", "oldest_age_seconds", "out_rate", "store_calls",
    "time_ms", "uptime_seconds",
}  # fmt: skip
UNTOLD = re.compile(r"^(?:cache-control|content-length|date|server): .*\n", re.MULTILINE)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass
class Session:
    """One document's session on one server; `known` maps what the document prints to what really came."""

    server: ServerProcess
    room: Path
    known: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)
    runners: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, command: str) -> str:
        """What `command` prints; of `curl --include` the lines that every answer has are left out."""
        if command.startswith("export "):
            name, _, value = self._here(command.removeprefix("export ")).partition("=")
            self.exported[name] = self._execute(["bash", "-c", f"printf %s {value}"]).stdout
            return ""
        if command.startswith("windlass serve "):
            if self.server.running and self.server.environment != self.exported:
                self.server.terminate()  # it was started before anything was exported
            if not self.server.running:
                self.server.environment = dict(self.exported)
                self.server.start()
            return ""
        if command.startswith("windlass runner"):
            self._start_runner(command.removesuffix("&").split())
            return ""
        if command.startswith("kill -9 "):
            self.server.kill()
            return ""
        command = self._here(self.real(command))
        printed = UNTOLD.sub("", self._execute(["bash", "-c", command]).stdout.replace("\r", ""))
        return printed.rstrip("\n") + "\n" if printed else ""

    def _here(self, command: str) -> str:
        """A command with the test's server in the place of `localhost:8000`."""
        return command.replace("localhost:8000", f"127.0.0.1:{self.server.port}")

    def script(self, python: str) -> str | None:
        """None where a Python script succeeds, else what it printed."""
        ran = self._execute([sys.executable, "-c", python])
        return None if ran.returncode == 0 else f"{python}{ran.stdout}"

    def _start_runner(self, command: list[str]) -> None:
        with (self.room / "runner.log").open("ab") as log:
            self.runners.append(
                subprocess.Popen(
                    [str(WINDLASS), *command[1:], "--allow-weak-sandbox"],
                    cwd=self.room,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def end(self) -> None:
        """End the runners."""
        for runner in self.runners:
            runner.terminate()
        for runner in self.runners:
            runner.wait(60)

    def _environment(self) -> dict[str, str]:
        path = f"{WINDLASS.parent}{os.pathsep}{os.environ['PATH']}"
        settings = {"CURL_HOME": str(self.room), "PATH": path, "WINDLASS_URL": self.server.url}
        return clean_environment(settings | self.exported)

    def _execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        (self.room / ".curlrc").write_text("silent\nshow-error\nmax-time = 60\n")
        return subprocess.run(
            command,
            cwd=self.room,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    def real(self, text: str) -> str:
        """`text` with the ids and receipts that really came in the place of the printed ones."""
        for printed, came in self.known.items():
            text = text.replace(printed, came)
        return text

    def difference(self, printed: str, came: str) -> str | None:
        """None where `came` is what the document prints, else both."""
        head, body = split(printed)
        head_came, body_came = split(came)
        self._learn(parsed(body), parsed(body_came))
        if head == head_came and (
            self._same(parsed(body), parsed(body_came)) or told_in_part(self.real(body), body_came)
        ):
            return None
        return f"the document says:\n{printed}but this came:\n{came}"

    def _learn(self, printed: Any, came: Any) -> None:
        """Note which id or receipt came where the document prints another."""
        if isinstance(printed, dict) and isinstance(came, dict):
            for key in printed.keys() & came.keys():
                if key in OPAQUE and isinstance(printed[key], str):
                    self.known.setdefault(printed[key], str(came[key]))
                else:
                    self._learn(printed[key], came[key])
        elif isinstance(printed, list) and isinstance(came, list):
            for one, other in zip(printed, came, strict=False):
                self._learn(one, other)

    def _same(self, printed: Any, came: Any, key: str | None = None) -> bool:
        if key in MEASURES and printed is not None and came is not None:
            return True
        if isinstance(printed, dict) and isinstance(came, dict):
            return list(printed) == list(came) and all(self._same(printed[k], came[k], k) for k in printed)
        if isinstance(printed, list) and isinstance(came, list):
            return len(printed) == len(came) and all(map(self._same, printed, came))
        if key in OPAQUE and isinstance(printed, str) and isinstance(came, str):
            return self.known[printed] == came
        if key in TIMES and isinstance(printed, str) and isinstance(came, str):
            return bool(TIME.fullmatch(printed) and TIME.fullmatch(came))
        return bool(printed == came) and type(printed) is type(came)


def told_in_part(printed: str, came: str) -> bool:
    """Whether `came` is what is printed, with anything in the place of "…" and any time and memory."""
    pattern = re.escape(printed).replace("…", ".*")
    pattern = re.sub(r"\d+\\\.\d+\\ s\b", r"\\d+\\.\\d+ s", pattern)
    pattern = re.sub(r"(?:\\ )+\d+\\ ms(?:\\ )+\d+\\ KiB", r" +\\d+ ms +[\\d.]+ [KM]iB", pattern)
    return re.fullmatch(pattern, came) is not None


def split(text: str) -> tuple[str, str]:
    """Head and body of what curl printed; the head is empty without --include."""
    head, _, body = text.rstrip("\n").partition("\n\n")
    return (head, body) if text.startswith("HTTP/") else ("", text)


def parsed(text: str) -> Any:
    """A JSON value if it is one, a list of them if every line is one, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return text


def steps(text: str) -> list[tuple[str, str]]:
    """(command, output) for every command of a ```console block."""
    found = STEP.finditer(text)
    return [(step["command"].rstrip("\n").replace("\n> ", "\n"), step["output"]) for step in found]


@contextmanager
def started(server: ServerProcess, room: Path) -> Iterator[Session]:
    """A session whose runners end with it."""
    session = Session(server, room)
    (room / "examples").symlink_to(ROOT / "examples")
    try:
        yield session
    finally:
        session.end()


def check(document: Path, folder: Path) -> list[str]:
    """Run a document's session; returns what differs, one text a command."""
    wrong = []
    with ServerProcess(folder / "data") as server, started(server, folder) as session:
        for block in BLOCK.finditer(document.read_text()):
            if block["kind"] == "python":
                wrong.append(session.script(block["text"]))
            for command, printed in steps(block["text"]):
                difference = session.difference(printed, session.run(command))
                wrong.append(difference and f"$ {command}\n{difference}")
    return [difference for difference in wrong if difference]


def rewrite(document: Path, folder: Path) -> None:
    """Write into a document what its commands really print."""
    with ServerProcess(folder / "data") as server, started(server, folder) as session:

        def step(found: re.Match[str]) -> str:
            asked = session.real(found["command"])
            came = session.run(asked.rstrip("\n").replace("\n> ", "\n"))
            same = session.difference(found["output"], came) is None
            return f"$ {asked}{session.real(found['output']) if same else came}"

        def block(found: re.Match[str]) -> str:
            if found["kind"] == "python":
                session.script(found["text"])
                return found[0]
            return f"```console\n{STEP.sub(step, found['text'])}```"

        document.write_text(BLOCK.sub(block, document.read_text()))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            rewrite(Path(name), Path(folder))
