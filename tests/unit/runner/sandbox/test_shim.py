from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness import until
from windlass.errors import SandboxUnavailable
from windlass.runner.sandbox import shim
from windlass.runner.sandbox.processes import children


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "windlass"


def test_it_is_made_once(cache: Path) -> None:
    program = shim.build()
    assert program.parent == cache
    made = program.stat().st_mtime_ns
    assert shim.build() == program
    assert program.stat().st_mtime_ns == made
    assert subprocess.run([program], stderr=subprocess.PIPE, check=False).returncode == 2
    assert [entry.name for entry in cache.iterdir()] == [program.name]


def test_a_cache_that_others_may_write_to_is_not_used(cache: Path) -> None:
    """Defect planted: `_trusted` says True. Who can write there would run his program as root."""
    cache.mkdir()
    cache.chmod(0o777)
    program = shim.build()
    assert program.parent != cache
    shim.discard(program)
    assert not program.parent.exists()


@pytest.mark.usefixtures("cache")
def test_a_link_in_the_cache_is_not_followed() -> None:
    program = shim.build()
    program.unlink()
    program.symlink_to("/bin/true")
    assert not shim.build().is_symlink()


def test_without_a_compiler_it_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(SandboxUnavailable, match="gcc"):
        shim.build()


@contextmanager
def inside(
    *argv: str, runner: int, status: int = 1, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """The shim as process 1 of a box of its own (what ends inside ends everybody it can see)."""
    config = os.memfd_create("config")
    words = [str(status), "0", "1", "2", "", "-1", "0", "0", "0", str(len(argv)), *argv, "0"]
    os.write(config, "".join(f"{word}\0" for word in words).encode())
    box = subprocess.Popen(
        [
            *("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-pid", "--as-pid-1"),
            *(str(shim.build()), str(config), str(runner)),
        ],
        stdin=stdin,
        stdout=subprocess.PIPE,
        pass_fds=(config, runner, status),
    )
    os.close(config)
    try:
        yield box
    finally:
        box.kill()
        box.communicate()


@pytest.mark.parametrize("when", ["before", "while it runs"])
def test_inside_a_box_everything_ends_with_the_runner(when: str) -> None:
    """Defect planted: process 1 waits for the program alone."""
    runner = subprocess.Popen(["/usr/bin/cat"], stdin=subprocess.PIPE)
    to_runner = os.pidfd_open(runner.pid)
    if when == "before":
        runner.kill()
        runner.wait()
    try:
        with inside("/usr/bin/sleep", "1000", runner=to_runner) as box:
            assert box.stdout is not None
            assert box.stdout.readline().startswith(b"started ")
            if when != "before":
                with pytest.raises(subprocess.TimeoutExpired):
                    box.wait(0.1)
                runner.kill()
            assert box.wait(60) == 125
    finally:
        os.close(to_runner)
        runner.kill()
        runner.communicate()


def test_the_end_of_the_program_is_told_before_what_it_left_is_ended() -> None:
    """Defect planted: "over" after the burial. The pipe is full, so the shim gets no further than to tell.

    What the program leaves holds the pipe from which the program reads.
    """
    told, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    to_us = os.pidfd_open(os.getpid())
    leaves = ("/bin/sh", "-c", "sleep 1000 <&0 & read line")
    with inside(*leaves, status=tell, runner=to_us, stdin=subprocess.PIPE) as box:
        os.set_blocking(tell, True)
        assert until(lambda: readable(told), 60, "the start").startswith(b"started ")
        os.set_blocking(tell, False)
        fill(tell)
        os.set_blocking(tell, True)
        assert box.stdin is not None
        [first] = children(box.pid)
        until(lambda: descendants(first) == ["sh", "sleep"], 60, "what it leaves")
        box.stdin.write(b"\n")
        box.stdin.flush()
        until(lambda: "sh" not in descendants(first), 60, "the end of the program")
        until(lambda: waits_in_write(first), 60, "the telling")
        assert descendants(first) == ["sleep"]
        os.set_blocking(told, True)
        os.close(tell)
        with os.fdopen(told, "rb") as lines:
            words = [line.split()[0] for line in lines if line.strip()]
        assert words == [b"over", b"buried"]
        assert box.wait(60) == 0
    os.close(to_us)


def fill(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"\n")


def readable(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def descendants(process: int) -> list[str]:
    """The names of those below a process that are no zombies."""
    found = []
    for child in children(process):
        with suppress(OSError):
            stat = Path(f"/proc/{child}/stat").read_text()
            found += re.findall(r"\((.*)\) [^Z]", stat)
            found += descendants(child)  # unless it has ended since
    return sorted(found)


def waits_in_write(process: int) -> bool:
    """Its system call is write(2), on x86-64 or on aarch64."""
    return Path(f"/proc/{process}/syscall").read_text().split()[0] in ("1", "64")


def test_a_compiler_that_fails_is_quoted(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gcc").write_text("#!/bin/sh\necho 'cannot find -lc' >&2; exit 1\n")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxUnavailable, match="cannot find -lc"):
        shim.build()
    assert list(cache.iterdir()) == []
