"""The escape suite: everything is contained here, and each planted weakness is found by its attempt."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.boxes import WEAK, Bench, bench
from tests.harness import WINDLASS, run_cli, until
from windlass.judge.verdict import Run
from windlass.runner.sandbox import CHECKS, Command, Pair, Ran, Sandbox, box, doctor, shim
from windlass.runner.sandbox.arguments import Copy, Layout, box_arguments, host_arguments, joined
from windlass.runner.sandbox.cgroup import NoGroups, read
from windlass.runner.sandbox.doctor import ESCAPES, Attempts
from windlass.runner.sandbox.processes import children

UNIT = Path(__file__).parents[2] / "deploy/systemd/windlass-runner@.service"


@pytest.mark.parametrize("how", ["as it is", "as a runner's unit and container have it"])
def test_nothing_gets_out_here(how: str) -> None:
    """Planted, for the unit: a capability less in it, without which a box cannot be made."""
    confined: list[str | Path] = []
    if how != "as it is":
        (line,) = re.findall(r"^CapabilityBoundingSet=(.+)$", UNIT.read_text(), re.MULTILINE)
        kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in line.split())
        confined = ["setpriv", "--no-new-privs", "--bounding-set", f"-all{kept}"]
    command = [*confined, WINDLASS, "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert [each for each in report["findings"] if not each["contained"]] == []
    assert len(report["findings"]) == len(ESCAPES)
    assert report["missing"] == {}
    assert all(report["enforces"].values())
    assert (done.returncode, report["sound"]) == (0, True)


def test_the_table_says_what_gets_through_and_what_is_not_kept() -> None:
    """Planted defects: a status of 0 whatever was found; a table that calls everything contained."""
    done = run_cli("doctor", under=WEAK, environment={"COLUMNS": "200"})
    attempts, kept = (rows(table) for table in done.stdout.split("What this host enforces"))
    assert attempts["user"][1:] == ["got through", "on the host it is root"]
    assert attempts["devices"][1:] == ["contained", ""]
    assert attempts.keys() == {escape.name for escape in ESCAPES}
    assert kept["user"][0] == "no"
    assert kept["user"][2] == "too few user ids are mapped into this container"
    assert [name for name, (yes, *_) in kept.items() if yes != "yes"] == ["user"]
    assert kept.keys() == CHECKS.keys()
    assert done.returncode == 1


def rows(table: str) -> dict[str, list[str]]:
    """The cells of a printed table by those of the first column."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    return {name: cells for name, *cells in lines}


def test_without_bubblewrap_it_is_one_line(tmp_path: Path) -> None:
    done = run_cli("doctor", environment={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "The sandbox needs bubblewrap: install the package bubblewrap.\n"


# --- what is not contained is found ------------------------------------------------------------------


def weaken(opened: Bench, **fields: Any) -> None:
    opened.sandbox.host = msgspec.structs.replace(opened.sandbox.host, **fields)


def without(*options: str) -> bytes:
    return joined([word for word in host_arguments(Layout()) if word not in options])


def no_filter(opened: Bench, _: pytest.MonkeyPatch) -> None:
    weaken(opened, filter=None)


def no_limit_of_namespaces(opened: Bench, _: pytest.MonkeyPatch) -> None:
    weaken(opened, filter=None, arguments=without("--disable-userns"))


def the_hosts_network(opened: Bench, _: pytest.MonkeyPatch) -> None:
    weaken(opened, arguments=without("--unshare-net"))


def root_outside(opened: Bench, _: pytest.MonkeyPatch) -> None:
    """Started by root and left so, a box keeps root's rights on the kernel's settings."""
    weaken(opened, users=0)


def files_of_the_host(opened: Bench, _: pytest.MonkeyPatch) -> None:
    weaken(opened, arguments=joined(host_arguments(Layout(expose=(Path("/etc"),)))))


def a_root_that_can_be_written_to(_: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def writable(files: Iterable[Copy], size: int, seccomp: int | None) -> list[str]:
        words = box_arguments(files, size, seccomp)
        at = words.index("--remount-ro")
        return words[:at] + words[at + 2 :]

    monkeypatch.setattr(box, "box_arguments", writable)


def ten_times_the_room(_: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        box, "box_arguments", lambda files, size, seccomp: box_arguments(files, 10 * size, seccomp)
    )


def no_groups(opened: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for memory: without groups too it is seen, if not so well."""
    opened.sandbox.host.groups.close()
    weaken(opened, groups=NoGroups("planted"))
    burning = msgspec.structs.replace(doctor._BURNING, wall_ms=1_000)
    monkeypatch.setattr(doctor, "_BURNING", burning)  # or it takes all of its 10 s


IN_A_WEAKER_BOX = [
    ("files", files_of_the_host, "/etc/passwd can be opened"),
    ("elsewhere", a_root_that_can_be_written_to, "can be opened for writing"),
    ("settings", root_outside, "can be opened for writing"),
    ("namespaces", the_hosts_network, "net namespace"),
    ("user", root_outside, "on the host it is root"),
    ("nesting", no_limit_of_namespaces, "CLONE_NEWUSER"),
    ("syscalls", no_filter, "works"),
    ("network", no_filter, "a socket for"),
    ("socket", the_hosts_network, "abstract socket"),
    ("disk", ten_times_the_room, "bytes can be written"),
    ("forks", no_groups, "processes at one time"),
    ("burn", no_groups, "ms of it were counted"),
]


@pytest.mark.parametrize(("name", "plant", "words"), IN_A_WEAKER_BOX, ids=lambda each: str(each)[:12])
def test_a_weaker_box_is_found(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    plant: Callable[[Bench, pytest.MonkeyPatch], None],
    words: str,
) -> None:
    """Planted defect: an attempt that tries nothing."""
    with bench() as opened:
        plant(opened, monkeypatch)
        assert words in opened.do(attempted(opened.sandbox, name))


def test_without_the_filter_the_kernels_limit_still_stops_nesting() -> None:
    with bench() as opened:
        weaken(opened, filter=None)
        assert opened.do(attempted(opened.sandbox, "nesting")) == ""


async def attempted(sandbox: Sandbox, name: str) -> str:
    """What the attempt called `name` gets."""
    escape = next(each for each in ESCAPES if each.name == name)
    return await escape.attempt(Attempts(sandbox, shim.build("escapes")))


class Unprotected(Sandbox):
    """No box, but a process and a mount namespace, which keep the host from harm, and little memory.

    There is a process besides the program; nobody limits output, and nobody reads stderr to its end. What
    the program leaves behind stays until this is closed.
    """

    enforces: Mapping[str, bool] = {}
    missing: Mapping[str, str] = {}
    _SCRIPT = """
        ulimit -v 65536
        (trap '' TERM; exec sleep 1000) <&4 >/dev/null 2>&1 3>&- 4<&- &
        "$@" 3>&- 4<&-
        echo $? >&3
        read line <&4
    """

    def __init__(self) -> None:
        self._places = ExitStack()
        self._hold, self._held = os.pipe()
        self.running: list[asyncio.subprocess.Process] = []

    async def run(self, command: Command) -> Ran:
        assert not isinstance(command.stdin, Path)
        place = Path(self._places.enter_context(tempfile.TemporaryDirectory()))
        for name, content in command.files.items():
            assert isinstance(content, Path)
            shutil.copy(content, place / name)
        told, tell = os.pipe()
        out, to_out = os.pipe()
        murmurs, to_murmurs = os.pipe()
        os.close(murmurs)
        flood = "flood" in command.argv
        process = await asyncio.create_subprocess_exec(
            *("bwrap", "--dev-bind", "/", "/", "--proc", "/proc", "--unshare-pid", "--as-pid-1"),
            *("bash", "-c", f"exec 3>&{tell} 4<&{self._hold}\n{self._SCRIPT}", "bash", *command.argv),
            stdin=command.stdin or asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL if flood else to_out,
            stderr=to_murmurs,
            cwd=place,
            pass_fds=(tell, self._hold),
        )
        for descriptor in (tell, to_out, to_murmurs):
            os.close(descriptor)
        self.running.append(process)
        status = int(await asyncio.to_thread(os.read, told, 100))
        os.set_blocking(out, False)
        try:
            said = os.read(out, 4096)
        except BlockingIOError:
            said = b""
        os.close(told)
        os.close(out)
        return Ran(
            run=Run(exit_code=status) if status < 128 else Run(signal=status - 128),
            stdout=said,
            fetched=place / "out" if (place / "out").is_symlink() else None,
        )

    async def run_pair(self, one: Command, other: Command) -> Pair:
        raise NotImplementedError

    async def close(self) -> None:
        os.close(self._held)
        os.close(self._hold)
        for process in self.running:
            await process.wait()
        self._places.close()


UNPROTECTED = [
    ("devices", "can be opened"),
    ("rights", "it has capabilities"),
    ("mounts", "works"),
    ("processes", "is to be seen"),
    ("first", "/proc/1/environ can be opened"),
    ("kill", "it ended process 2"),
    ("link", "the sandbox fetched what a link led to"),
    ("memory", "it was not ended for them"),
    ("shared memory", "it was not ended for them"),
    ("output", "it ended with 1"),
    ("errors", "it ended by signal 13"),
]


@pytest.mark.parametrize(("name", "words"), UNPROTECTED)
def test_without_protection_it_is_found(name: str, words: str) -> None:
    """Planted defect: an attempt that tries nothing."""

    async def main() -> str:
        async with Unprotected() as sandbox:
            return await attempted(sandbox, name)

    assert words in asyncio.run(main())


class Scripted(Sandbox):
    """Says what would have come of a command that is too harmful, or too slow, to be let loose."""

    enforces: Mapping[str, bool] = {}
    missing: Mapping[str, str] = {}

    def __init__(self) -> None:
        self._killed = asyncio.Event()
        self._kept = -1

    async def run(self, command: Command) -> Ran:
        match command.argv[1]:
            case "victim":
                assert isinstance(command.stdout, int)
                os.write(command.stdout, b"here")
                await self._killed.wait()
                return Ran(run=Run(signal=9))
            case "killing":
                self._killed.set()
                return Ran(run=Run(exit_code=0))
            case "orphan":
                assert isinstance(command.stdin, int)
                self._kept = os.dup(command.stdin)
                return Ran(run=Run(exit_code=0))
        return Ran(run=Run(exit_code=1, time_ms=10_000, wall_ms=1_000_000), stdout=b"all of it")

    async def run_pair(self, one: Command, other: Command) -> Pair:
        raise NotImplementedError

    async def close(self) -> None:
        if self._kept >= 0:
            os.close(self._kept)


SCRIPTED = [
    # Two boxes would have to share their processes, and with them those of the host.
    ("neighbour", "the other box ended (it ended by signal 9)"),
    # Whoever starts the program has its stdin too, as an orphan would.
    ("orphan", "a process outlived its box"),
    # A sleep that nobody ends takes 1,000 s.
    ("sleep", "all of it"),
    # Here too: a burning that nobody ends. In a weaker box it is counted wrongly.
    ("burn", "all of it"),
]


@pytest.mark.parametrize(("name", "words"), SCRIPTED)
def test_what_is_not_let_loose_would_be_found(name: str, words: str) -> None:
    """Planted defect: a program that went on to its own end, past all limits, counts as contained."""

    async def main() -> str:
        async with Scripted() as sandbox:
            return await attempted(sandbox, name)

    assert asyncio.run(main()) == words


def test_the_orphan_is_one() -> None:
    """Planted defect: a program that leaves nobody behind, which any box would survive."""

    async def main() -> None:
        async with Unprotected() as sandbox:
            await sandbox.run(Attempts(sandbox, shim.build("escapes")).command("orphan"))
            [first] = children(sandbox.running[0].pid)
            # Who was between it and the program may be a moment from its end.
            await asyncio.to_thread(until, lambda: names(children(first)) == ["escapes", "sleep"])

    asyncio.run(main())


def names(processes: Iterable[int]) -> list[str]:
    return sorted(read(Path(f"/proc/{each}/comm")).strip() for each in processes)


def test_every_attempt_was_seen_to_find_something() -> None:
    found = {row[0] for row in (*IN_A_WEAKER_BOX, *UNPROTECTED, *SCRIPTED)}
    assert found == {escape.name for escape in ESCAPES}
