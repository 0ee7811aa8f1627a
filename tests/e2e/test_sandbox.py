"""Real boxes: what programs do in them, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.e2e.boxes import LIMITS, Bench, bench, fine, processes
from tests.harness import until
from tests.installation import control_groups
from windlass.errors import Invalid
from windlass.judge.verdict import Limits, Status, of_run
from windlass.runner.sandbox import Command, Fetch
from windlass.runner.sandbox.box import SETUP_SECONDS

SHORT = Limits(time_ms=200, memory_kib=65_536, wall_ms=600)


@pytest.fixture
def box() -> Iterator[Bench]:
    with bench() as opened:
        yield opened
        while _LENT:
            os.close(_LENT.pop())


_LENT: list[int] = []


def lent(text: str) -> int:
    """The reading end of a pipe that holds `text`, closed after the test."""
    reading, writing = os.pipe()
    _LENT.append(reading)
    os.write(writing, text.encode())
    os.close(writing)
    return reading


def test_what_a_program_says_comes_back(box: Bench) -> None:
    files = {"hello": b"hi\n", "sub/two": Path(__file__), "script": b"#!/bin/sh\necho ran\n"}
    ran = box.run(
        "sh", "-c", "cat; echo oops >&2; cat hello sub/two; ./script", files=files, stdin=lent("in")
    )
    assert fine(ran).time_ms < 1000
    assert ran.stdout == b"in" + b"hi\n" + Path(__file__).read_bytes() + b"ran\n"
    assert ran.stderr == b"oops\n"


def test_a_signal_and_its_number_are_two_things(box: Bench) -> None:
    """Defect planted: the shim tells WEXITSTATUS of a shell's `$?`, 128 + the signal."""
    assert box.run("sh", "-c", "kill -SEGV $$").run.signal == signal.SIGSEGV
    ran = box.run("sh", "-c", "exit 139").run
    assert (ran.exit_code, ran.signal) == (139, None)


def test_the_environment_is_clean(box: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_SECRET", "rk_1")
    ran = box.run("env", environment={"MORE": "1"})
    names = {line.partition(b"=")[0] for line in ran.stdout.splitlines()}
    assert names == {b"PATH", b"HOME", b"TMPDIR", b"LANG", b"MORE"}


def test_nothing_tells_where_things_are_on_the_host(box: Bench, tmp_path: Path) -> None:
    """Defect planted: stdin is the file's own descriptor, or a bind mount; both show its path."""
    case = tmp_path / "secret-0203.in"
    case.write_bytes(b"1 2\n")
    ran = box.python(
        "import os\n"
        "print(os.readlink('/proc/self/fd/0'), open('/proc/self/mountinfo').read())\n"
        "print(open('/proc/1/cmdline').read(), open(0).read())",
        stdin=case,
        files={"placed": case},
    )
    fine(ran)
    assert b"secret" not in ran.stdout
    assert str(tmp_path).encode() not in ran.stdout
    assert b"1 2" in ran.stdout


def test_the_input_cannot_be_changed(box: Bench, tmp_path: Path) -> None:
    """Defect planted: the copy is not sealed."""
    case = tmp_path / "case.in"
    case.write_bytes(b"original")
    ran = box.python(
        "import os\n"
        "try:\n"
        "    print(os.write(os.open('/proc/self/fd/0', os.O_RDWR), b'changed!'))\n"
        "except OSError as error: print(error.errno)",
        stdin=case,
    )
    assert fine(ran)
    assert ran.stdout == b"1\n"  # EPERM
    assert case.read_bytes() == b"original"


def test_input_that_is_never_read_holds_nothing_up(box: Bench, tmp_path: Path) -> None:
    """Defect planted: a feeder that waits until all of it is read; then this never ends."""
    case = tmp_path / "big.in"
    case.write_bytes(b"x" * 8 * 2**20)
    fine(box.run("true", stdin=case))


def test_a_hundred_gigabytes_of_output_end_soon(box: Bench) -> None:
    """Defect planted: output beyond the cap is read on, without an end."""
    ran = box.run("sh", "-c", "yes | head -c 100G", output_bytes=1000)
    assert ran.run.output_exceeded
    assert len(ran.stdout) == 1000
    assert ran.run.signal == signal.SIGKILL
    assert of_run(ran.run, LIMITS) is Status.OUTPUT_LIMIT  # ended for it, before its time was up


def test_output_of_just_the_cap_is_not_too_much(box: Bench) -> None:
    """Defect planted: >= for > in Drain."""
    ran = box.run("sh", "-c", "printf 1234", output_bytes=4)
    assert not fine(ran).output_exceeded
    assert ran.stdout == b"1234"


def test_a_flood_on_stderr_is_drained(box: Bench) -> None:
    """Defect planted: stderr is read only at the end: the program blocks on a full pipe."""
    ran = box.run("sh", "-c", "head -c 30000000 /dev/zero >&2; echo done", stderr_bytes=100)
    assert fine(ran)
    assert (ran.stdout, ran.stderr) == (b"done\n", bytes(100))


def test_output_to_a_file_never_follows_a_link(box: Bench, tmp_path: Path) -> None:
    """Defect planted: open without O_EXCL and O_NOFOLLOW."""
    fine(box.run("echo", "hi", stdout=tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"hi\n"
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (tmp_path / "link").symlink_to(victim)
    assert box.run("echo", "hi", stdout=tmp_path / "link").run.fault
    assert victim.read_text() == "keep"


def test_output_that_the_host_cannot_keep_is_a_fault(box: Bench) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = box.run("sh", "-c", "echo hi", stdout=full.fileno())
    assert ran.stderr  # the program's own business: it was told so by its own descriptor
    assert ran.run.fault is None


# --- limits ---------------------------------------------------------------------------------------


def test_the_wall_clock_ends_a_sleeper(box: Bench) -> None:
    """Defect planted: the watchdog looks at processor time only."""
    run = box.run("sleep", "100", limits=SHORT).run
    assert of_run(run, SHORT) is Status.TIME_LIMIT
    assert run.wall_ms < SHORT.wall_ms + 20_000
    assert run.time_ms < 100


def test_processor_time_ends_a_loop_and_shows_by_how_much(box: Bench) -> None:
    """A run that misses its limit by less than a tenth is measured again, so no run may be cut off there."""
    limits = Limits(time_ms=300, memory_kib=65_536, wall_ms=60_000)
    run = box.run("sh", "-c", "while :; do :; done", limits=limits).run
    assert run.time_ms > 330
    assert run.wall_ms < limits.wall_ms


def test_time_of_children_that_nobody_waits_for_counts(box: Bench) -> None:
    """Defect planted: time from rusage; the kernel does not add up children that were never waited for."""
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while time.process_time() < 0.4: pass\n"
        "    os._exit(0)\n"
        "os.close(writing)\n"
        "os.read(reading, 1)\n"  # its end is the child's
    )
    assert fine(box.python(program)).time_ms >= 400


def test_memory_is_that_of_all_processes_together(box: Bench) -> None:
    """Defect planted: the largest process counts (ru_maxrss)."""
    program = (
        "import os, time\n"
        "r, w = os.pipe()\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        block = bytearray(b'x') * 20_000_000\n"
        "        os.write(w, b'.'); time.sleep(100)\n"
        "for _ in range(3): os.read(r, 1)\n"
    )
    assert 60_000 < fine(box.python(program)).memory_kib < 100_000


def test_too_much_memory_is_told_from_a_crash(box: Bench) -> None:
    run = box.python("block = bytearray(b'x') * 300_000_000").run
    assert run.out_of_memory
    assert of_run(run, LIMITS) is Status.MEMORY_LIMIT


def test_one_child_out_of_memory_is_enough(box: Bench) -> None:
    program = "import os\nif os.fork() == 0: bytearray(b'x') * 300_000_000\nos.wait()\nprint('survived')\n"
    assert of_run(box.python(program).run, LIMITS) is Status.MEMORY_LIMIT


def uncached() -> Path:
    """A file of /usr with more than 20 MB, g++'s own compiler, that has to be read from the disk."""
    name = subprocess.run(["g++", "-print-prog-name=cc1plus"], capture_output=True, text=True, check=True)
    big = Path(name.stdout.strip()).resolve()
    assert big.stat().st_size > 20_000_000
    with big.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return big


def test_page_cache_is_not_memory(box: Bench) -> None:
    """Reads files of /usr that are not in the cache: it is charged for them, and they do not count.

    Defect planted: `_peak.look` returns the kernel's peak.
    """
    big = uncached()
    size_kib = big.stat().st_size // 1024
    run = fine(box.run("sh", "-c", f"cat {big} > /dev/null"))
    assert run.memory_kib < size_kib / 2


def test_a_small_limit_does_not_fail_for_page_cache(box: Bench) -> None:
    limits = msgspec.structs.replace(LIMITS, memory_kib=8_192)
    big = uncached()
    fine(box.run("sh", "-c", f"cat {big} > /dev/null", limits=limits))


def test_what_is_written_is_memory_and_has_an_end(box: Bench) -> None:
    ran = box.run("sh", "-c", "head -c 20000000 /dev/zero > file; ls -l file | cut -d' ' -f5",
                  writable_bytes=10 * 2**20)  # fmt: skip
    assert fine(ran).memory_kib >= 10 * 1024
    assert b"No space left" in ran.stderr
    assert int(ran.stdout) <= 10 * 2**20


def test_placed_files_do_not_count_as_written(box: Bench) -> None:
    ran = box.run("sh", "-c", "wc -c < big; head -c 1000000 /dev/zero > more",
                  files={"big": bytes(5 * 2**20)}, writable_bytes=2**20)  # fmt: skip
    assert fine(ran).memory_kib < 5 * 1024
    assert ran.stdout.split() == [b"5242880"]


def test_each_process_has_limits_of_its_own(box: Bench) -> None:
    """Defect planted: the shim sets none. They hold where there are no control groups, too."""
    program = (
        "import resource\n"
        "for name in ('CORE', 'CPU', 'NOFILE', 'STACK', 'NPROC'):\n"
        "    print(name, *resource.getrlimit(getattr(resource, 'RLIMIT_' + name)))\n"
    )
    ran = box.python(program, processes=20)
    fine(ran)
    found = {name: int(soft) for name, soft, hard in map(str.split, ran.stdout.decode().splitlines())}
    cpu = LIMITS.time_ms // 1000 + 2  # a tenth, rounded up, and a second
    stack = LIMITS.memory_kib * 1024
    assert found == {"CORE": 0, "CPU": cpu, "NOFILE": 1024, "STACK": stack, "NPROC": 24}


def test_a_fork_bomb_is_bounded_and_ends(box: Bench) -> None:
    """Defect planted: pids.max is not written."""
    program = (
        "import os, signal\n"
        "count = 1\n"
        "try:\n"
        "    while count < 200:\n"
        "        if os.fork() == 0: os.setsid(); signal.pause()\n"
        "        count += 1\n"
        "except OSError: pass\n"
        "print(count)\n"
    )
    ran = box.python(program, processes=20)
    assert fine(ran)
    assert int(ran.stdout) <= 20


# --- what may be left, or seen --------------------------------------------------------------------


def test_an_orphan_in_its_own_session_does_not_outlive_the_box(box: Bench) -> None:
    """Defect planted: the process group is killed instead of the namespace."""
    reading, writing = os.pipe()
    program = (
        "import os, signal\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        for n in range(1, 32):\n"
        "            if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\n"
        "        while True: signal.pause()\n"
    )
    fine(box.python(program, stdin=reading))
    os.close(reading)
    with pytest.raises(BrokenPipeError):  # nobody has the other end
        os.write(writing, b"x")
    os.close(writing)


def test_orphans_are_gone_when_the_watchdog_fires(box: Bench) -> None:
    reading, writing = os.pipe()
    ran = box.run("sh", "-c", "setsid sleep 1000 & sleep 1000", stdin=reading, limits=SHORT)
    assert of_run(ran.run, SHORT) is Status.TIME_LIMIT
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("ln -s /etc/hostname out", "it is a link"),
        ("ln -s /proc/1/environ out", "it is a link"),
        ("mkfifo out", "it is no regular file"),
        ("mkdir out", "it is no regular file"),
        ("true", "there is no such file"),
        ("head -c 2000 /dev/zero > out", "it has more than 1000 bytes"),
        ("truncate -s 1T out", "it has more than 1000 bytes"),
    ],
)
def test_only_a_regular_file_is_fetched(box: Bench, tmp_path: Path, make: str, why: str) -> None:
    """Defect planted: open without O_NOFOLLOW follows the link; without O_NONBLOCK it waits at the FIFO."""
    ran = box.run("sh", "-c", make, fetch=Fetch(name="out", to=tmp_path / "got", max_bytes=1000))
    fine(ran)
    assert (ran.fetched, ran.unfetched) == (None, why)
    assert not (tmp_path / "got").exists()


def test_a_compiled_program_comes_out_and_runs_in_the_next_box(box: Bench, tmp_path: Path) -> None:
    source = b'#include <cstdio>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }\n'
    built = box.run("g++", "-O2", "-o", "main", "main.cpp", files={"main.cpp": source},
                    limits=Limits(time_ms=20_000, memory_kib=524_288, wall_ms=60_000),
                    fetch=Fetch(name="main", to=tmp_path / "main", max_bytes=2**24))  # fmt: skip
    fine(built)
    assert built.fetched == tmp_path / "main"
    ran = box.run("./main", files={"main": tmp_path / "main"}, stdin=lent("3 4\n"))
    assert fine(ran)
    assert ran.stdout == b"7\n"


@pytest.mark.parametrize("source", [b'#include "/dev/zero"\n', b'#include "/dev/stdin"\n#error end\n',
                                    b"template<int n> struct X { X<n + 1> x; }; X<0> x;\n"])  # fmt: skip
def test_a_compile_bomb_ends(box: Bench, source: bytes) -> None:
    limits = Limits(time_ms=3_000, memory_kib=262_144, wall_ms=5_000)
    run = box.run("g++", "-o", "main", "main.cpp", files={"main.cpp": source}, limits=limits).run
    assert run.fault is None
    assert of_run(run, limits) is not None


def test_every_box_has_a_user_of_its_own(box: Bench) -> None:
    """Defect planted: all boxes have the first user of the range, and may trace and end each other."""

    async def two() -> None:
        reading, writing = os.pipe()
        told, tell = os.pipe()
        command = Command(argv=("sh", "-c", "echo; read x"), limits=LIMITS, stdin=reading, stdout=tell)
        runs = [asyncio.ensure_future(box.sandbox.run(command)) for _ in range(2)]
        for _ in runs:
            await asyncio.to_thread(os.read, told, 1)
        found = processes(box.sandbox.host.users)
        for descriptor in (tell, writing, reading, told):
            os.close(descriptor)
        await asyncio.gather(*runs)
        assert len(found) == 2, found

    box.do(two())


def test_two_boxes_do_not_see_each_other(box: Bench) -> None:
    async def both() -> None:
        reading, writing = os.pipe()
        told, tell = os.pipe()
        victim = asyncio.ensure_future(box.sandbox.run(
            Command(argv=("sh", "-c", "echo secret > /tmp/f; echo here; read x"), limits=LIMITS,
                    stdin=reading, stdout=tell)))  # fmt: skip
        await asyncio.sleep(0)  # until the box has its own copies
        os.close(tell)
        assert await asyncio.to_thread(os.read, told, 1)
        ran = await box.sandbox.run(Command(
            argv=("sh", "-c", "ls /tmp/f; ls -d /proc/[0-9]*; kill -9 -1"), limits=LIMITS))  # fmt: skip
        for descriptor in (writing, reading, told):
            os.close(descriptor)
        assert b"/tmp/f" not in ran.stdout
        seen = [line for line in ran.stdout.splitlines() if line.startswith(b"/proc/")]
        assert len(seen) == 2  # the shim and sh
        assert (await victim).run.exit_code == 1  # its own end of input

    box.do(both())


# --- two that talk --------------------------------------------------------------------------------


AFTERWARDS = "cat >/dev/null; sleep 0.5"
"""Ends after the one that it reads from, whoever is told first that a pipe was closed."""


def talk(one: str, other: str, limits: Limits = LIMITS) -> tuple[Command, Command]:
    return (Command(argv=("sh", "-c", one), limits=limits), Command(argv=("sh", "-c", other), limits=limits))


def test_a_pair_talks_and_tells_who_ended_first(box: Bench) -> None:
    pair = box.do(box.sandbox.run_pair(*talk(
        "echo 3; read answer; echo $answer >&2", f"read n; echo $((n * n)); {AFTERWARDS}")))  # fmt: skip
    fine(pair.one)
    fine(pair.other)
    assert pair.one.stderr == b"9\n"
    assert pair.one_ended_first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("exit 3", "cat"),  # the other finds the end of its input
        ("exit 3", "yes"),  # or a broken pipe
        ("sleep 0.1; kill -9 $$", "cat"),
    ],
)
def test_the_end_of_one_is_the_end_of_the_others_pipes(box: Bench, one: str, other: str) -> None:
    """Defect planted: the host keeps its copies of the pipes open."""
    pair = box.do(box.sandbox.run_pair(*talk(one, f"{other}; {AFTERWARDS}")))
    assert pair.one.run.fault is pair.other.run.fault is None
    assert of_run(pair.other.run, LIMITS) is not Status.TIME_LIMIT
    assert pair.one_ended_first
    assert pair.other.run.exit_code == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sleep 100", "yes"),  # one never reads, the other blocks
        ("cat", "cat"),  # both wait for ever
    ],
)
def test_a_pair_never_hangs(box: Bench, one: str, other: str) -> None:
    """Defect planted: of two boxes one is watched."""
    pair = box.do(box.sandbox.run_pair(*talk(one, other, SHORT)))
    assert pair.one.run.fault is pair.other.run.fault is None
    assert Status.TIME_LIMIT in {of_run(ran.run, SHORT) for ran in (pair.one, pair.other)}
    assert max(pair.one.run.wall_ms, pair.other.run.wall_ms) < SHORT.wall_ms + 20_000


# --- our own faults -------------------------------------------------------------------------------


def test_a_program_that_is_not_there_is_a_fault(box: Bench) -> None:
    assert box.run("no-such-compiler").run.fault == "there is no program no-such-compiler in the box"


def test_a_program_that_is_none_is_its_own_fault(box: Bench) -> None:
    ran = box.run("./main", files={"main": b"\x7fELF, or so it says"})
    assert ran.run.exit_code == 126
    assert b"Exec format error" in ran.stderr


def test_a_missing_file_is_a_fault(box: Bench, tmp_path: Path) -> None:
    ran = box.run("true", stdin=tmp_path / "missing")
    assert "No such file" in str(ran.run.fault)
    assert "not a regular file" in str(box.run("true", files={"a": tmp_path}).run.fault)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "", ".", "a/../../b", ".tmp", "a\0b", "\ud800"])
def test_files_stay_in_the_box(box: Bench, name: str) -> None:
    with pytest.raises(Invalid):
        box.run("true", files={name: b""})


@pytest.mark.parametrize("argv", [(), ("",), ("a\0b",), ("\ud800",)])
def test_a_command_has_to_be_one(box: Bench, argv: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        box.run(*argv)


def test_what_was_cancelled_is_ended_first(box: Bench) -> None:
    """Defect planted: what the call waits for is cancelled with it, and its box is left to the wall clock."""
    limits = msgspec.structs.replace(LIMITS, wall_ms=100_000)

    async def cancel() -> None:
        reading, writing = os.pipe()
        told, tell = os.pipe()
        run = asyncio.ensure_future(
            box.sandbox.run(
                Command(argv=("sh", "-c", "echo; sleep 1000"), limits=limits, stdin=reading, stdout=tell)
            )
        )
        await asyncio.sleep(0)  # until the box has its own copies
        os.close(tell)
        os.close(reading)
        assert await asyncio.to_thread(os.read, told, 1)
        run.cancel()
        async with asyncio.timeout(SETUP_SECONDS - 5):  # when the box is given up
            with pytest.raises(asyncio.CancelledError):
                await run
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")
        os.close(writing)
        os.close(told)

    box.do(cancel())


def test_closing_ends_what_runs(box: Bench) -> None:
    async def close() -> None:
        runs = [
            asyncio.ensure_future(box.sandbox.run(Command(argv=("sleep", "1000"), limits=LIMITS)))
            for _ in range(3)
        ]
        await asyncio.sleep(0)  # they have begun; whether their boxes stand yet must not matter
        await box.sandbox.close()
        for run in runs:
            assert (await run).run.signal == signal.SIGKILL

    box.do(close())
    assert box.run("true").run.fault == "the sandbox is closed"


RUNNER = """
import asyncio, os, sys
from windlass.judge.verdict import Limits
from windlass.runner.sandbox import Command, open_sandbox

async def main():
    sandbox = await open_sandbox()
    limits = Limits(time_ms=60_000, memory_kib=65_536, wall_ms=60_000)
    argv = ("sh", "-c", "echo here; setsid sleep 60")
    await sandbox.run(Command(argv=argv, limits=limits, stdin=0, stdout=1))

asyncio.run(main())
"""


def test_boxes_die_with_their_runner() -> None:
    """Defect planted: process 1 inside waits for the program alone."""
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", RUNNER], stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.kill()
    process.wait()
    process.stdout.close()

    def closed() -> bool:
        try:
            os.write(writing, b"x")
        except BrokenPipeError:
            return True
        return False

    until(closed, what="the end of the box")
    os.close(writing)
    left = [path for path in control_groups() if path.name.startswith(f"windlass-{process.pid}-")]
    with bench():  # the next one sweeps
        assert not [path for path in left if path.exists()]


UNPRIVILEGED = """
import asyncio, os
from windlass.errors import SandboxWeak
from windlass.judge.verdict import Limits
from windlass.runner.sandbox import Command, open_sandbox

LIMITS = Limits(time_ms=1_000, memory_kib=65_536, wall_ms=60_000)

async def once():
    async with await open_sandbox(allow_weak=True) as sandbox:
        await sandbox.run(Command(argv=("true",), limits=LIMITS))

async def main():
    try:
        await open_sandbox()
    except SandboxWeak as error:
        print(error.detail)
    async with await open_sandbox(allow_weak=True) as sandbox:
        assert not sandbox.enforces["user"] and sandbox.enforces["namespaces"], sandbox.enforces
        for script in ("exit 139", "kill -SEGV $$", "while :; do :; done", "setsid sleep 1000 & exit 0",
                       "python3 -c 'bytearray(b\\"x\\") * 100_000_000; input()'", "ls /root /etc/shadow"):
            run = (await sandbox.run(Command(argv=("sh", "-c", script), limits=LIMITS))).run
            assert run.fault is None, run
            print(run.exit_code, run.signal, run.time_ms > 1_000, run.memory_kib > 65_536)

asyncio.run(once())  # as root, so that all modules are loaded: this Python may lie where others cannot read
os.environ["XDG_CACHE_HOME"] = "/nonexistent"
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
asyncio.run(main())
"""


def test_without_root_it_is_weak_and_says_so() -> None:
    """Processor time and memory are looked up process by process; the rest is as with root."""
    with tempfile.TemporaryDirectory(prefix="sandbox-test-") as scratch:
        Path(scratch).chmod(0o777)
        done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], env=os.environ | {"TMPDIR": scratch},
                              capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
        assert list(Path(scratch).iterdir()) == []
    assert done.returncode == 0, done.stderr[-2000:]
    reason, *lines = done.stdout.splitlines()
    assert "only root can give each box a user of its own" in reason
    assert lines[:4] == [
        "139 None False False",
        "None 11 False False",
        "None 9 True False",
        "0 None False False",
    ]
    assert lines[4].endswith("True")  # over its memory
    assert lines[5] == "2 None False False"
