"""scripts/demo: what it shows, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import clean_environment, until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(1200)  # it may have to make .venv


class Demo:
    """A demo that runs, in a session of its own, with `room` for its temporary files."""

    def __init__(self, room: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.room = room
        self.process = process
        self._log = log

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def end(self, within: float) -> int:
        """Its exit status."""
        return self.process.wait(within)

    def processes(self) -> list[str]:
        """Those of its session that live, the demo itself included: the runners' boxes have others."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, _, rest = stat.read_text().rpartition(")")
            except OSError:
                continue  # it has just ended
            state, _, _, session = rest.split()[:4]
            if int(session) == self.process.pid and state != "Z":
                found.append(name)
        return found

    def left(self) -> list[str]:
        return [*self.processes(), *(str(path) for path in self.room.iterdir())]


@contextmanager
def demo(folder: Path, path: str | None = None) -> Iterator[Demo]:
    room = folder / "room"
    room.mkdir()
    folder.chmod(0o755)
    environment = clean_environment({"TMPDIR": str(room), "PATH": path or os.environ["PATH"]})
    environment.pop("PYTHONPATH", None)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [ROOT / "scripts/demo"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Demo(room, process, folder / "log")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_the_demo_shows_what_it_is_for(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        assert running.end(500) == 0, running.said
        assert "The message outlived the server." in running.said
        assert "AC: 100 of 100 points" in running.said
        assert "WA: 0 of 100 points" in running.said
        assert "The job outlived its runner." in running.said
        until(lambda: running.left() == [], what="an end of everything")


@pytest.mark.parametrize(("tell", "number"), [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)])
def test_nothing_is_left_of_one_that_is_interrupted(
    tell: Callable[[int, int], None], number: signal.Signals, tmp_path: Path
) -> None:
    """Planted: at its end the server and the runners are left alone; its directory is."""
    with demo(tmp_path) as running:
        until(lambda: "windlass submit " in running.said, 500, "a submission")
        tell(running.process.pid, number)  # Ctrl-C reaches all of a terminal's processes, `kill` one
        assert running.end(60) == 128 + number, running.said
        until(lambda: running.left() == [], what="an end of everything")


def test_a_demo_that_goes_wrong_says_so(tmp_path: Path) -> None:
    """Planted: an exit status of 0 whatever happened."""
    broken = tmp_path / "bin/bwrap"
    broken.parent.mkdir()
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo bubblewrap 0.8.0 || exit 1\n')
    broken.chmod(0o755)
    with demo(tmp_path, f"{broken.parent}{os.pathsep}{os.environ['PATH']}") as running:
        assert running.end(500) == 1, running.said
        assert "Bubblewrap makes no box here" in running.said
        until(lambda: running.left() == [], what="an end of everything")
