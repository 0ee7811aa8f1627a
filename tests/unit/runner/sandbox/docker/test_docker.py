"""Boxes that are containers, against an engine that a test plays; no real Docker has part in it."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.unit.runner.executors.scripted import Bench
from tests.unit.runner.sandbox.docker.fake import FakeContainer, FakeEngine, Program
from windlass.errors import Invalid, SandboxUnavailable
from windlass.judge.verdict import Limits
from windlass.runner.executors.docker import DockerExecutor
from windlass.runner.sandbox import Command, Fetch
from windlass.runner.sandbox.docker import DockerSandbox

T = TypeVar("T")
LIMITS = Limits(time_ms=1_000, memory_kib=65_536, wall_ms=5_000)
IMAGE = "windlass-judge"


def command(*argv: str, **changes: Any) -> Command:
    return Command(**{"argv": argv or ("./main",), "limits": LIMITS, **changes})


def with_engine(
    tmp_path: Path, program: Program, do: Callable[[DockerSandbox, FakeEngine], Awaitable[T]]
) -> tuple[T, FakeEngine]:
    """What `do` returns; then all containers have to be gone."""

    async def all_of_it() -> tuple[T, FakeEngine]:
        engine = FakeEngine(program)
        async with engine.serving(tmp_path / "docker.sock") as socket:
            async with await DockerSandbox.open(IMAGE, socket) as sandbox:
                result = await do(sandbox, engine)
            assert all(container.removed for container in engine.containers)
        return result, engine

    return asyncio.run(all_of_it())


async def ends(_: FakeContainer) -> int:
    return 0


async def sleeps(_: FakeContainer) -> int:
    await asyncio.Event().wait()
    return 0


def test_a_container_has_no_more_than_a_program_needs(tmp_path: Path) -> None:
    """Planted defects: a network, capabilities, memory without limit, a root that can be written to."""
    (tmp_path / "main").write_bytes(b"\x7fELF")
    files: dict[str, bytes | Path] = {"main": tmp_path / "main", "data/a": b"1"}
    _, engine = with_engine(
        tmp_path,
        ends,
        lambda sandbox, _: sandbox.run(command(files=files, processes=7, environment={"LEVEL": "3"})),
    )
    [container] = engine.containers
    config, host = container.config, container.config["HostConfig"]
    assert (container.argv, config["WorkingDir"], config["User"]) == (["./main"], "/box", "65534:65534")
    assert (config["NetworkDisabled"], host["NetworkMode"], host["IpcMode"]) == (True, "none", "none")
    assert host["Memory"] == host["MemorySwap"] == 65_536 * 1024
    assert (host["PidsLimit"], host["CapDrop"], host["SecurityOpt"]) == (
        8,
        ["ALL"],
        ["no-new-privileges:true"],
    )
    assert "LEVEL=3" in config["Env"]
    assert {name: (file.mode, file.uid) for name, file in container.files.items()} == {
        "box": (0o755, 0),
        "box/main": (0o555, 0),
        "box/data/a": (0o555, 0),
    }
    assert container.contents == {"box/main": b"\x7fELF", "box/data/a": b"1"}


def test_input_goes_in_and_output_comes_out(tmp_path: Path) -> None:
    async def program(container: FakeContainer) -> int:
        given = await container.read()
        await container.print(b"err", 2)
        await container.print(given[::-1])
        await container.print(b"x" * 200_000)
        return 3

    (tmp_path / "input").write_bytes(b"0123456789" * 50_000)
    ran, _ = with_engine(
        tmp_path, program, lambda sandbox, _: sandbox.run(command(stdin=tmp_path / "input", stderr_bytes=2))
    )
    assert ran.stdout == b"9876543210" * 50_000 + b"x" * 200_000
    assert (ran.stderr, ran.run.exit_code, ran.run.signal, ran.run.fault) == (b"er", 3, None, None)
    assert ran.run.memory_kib in (0, 2 * 1024)  # without the page cache; 0 where it was never looked at


def test_a_program_that_never_reads_its_input(tmp_path: Path) -> None:
    """Planted defect: a feeder that waits for ever."""
    with (tmp_path / "input").open("wb") as file:
        file.truncate(50_000_000)
    ran, _ = with_engine(tmp_path, ends, lambda sandbox, _: sandbox.run(command(stdin=tmp_path / "input")))
    assert ran.run.exit_code == 0


def test_output_goes_where_it_is_wanted(tmp_path: Path) -> None:
    async def program(container: FakeContainer) -> int:
        await container.print(b"hello")
        return 0

    async def do(sandbox: DockerSandbox, _: FakeEngine) -> None:
        for wanted in (tmp_path / "output", write):
            assert (await sandbox.run(command(stdout=wanted))).stdout == b""

    read, write = os.pipe()
    try:
        with_engine(tmp_path, program, do)
        assert (tmp_path / "output").read_bytes() == os.read(read, 100) == b"hello"
    finally:
        os.close(read)
        os.close(write)


def test_too_much_output_ends_it(tmp_path: Path) -> None:
    """Planted defect: 100 GB in memory."""

    async def program(container: FakeContainer) -> int:
        while True:
            await container.print(b"x" * 1000)

    ran, _ = with_engine(tmp_path, program, lambda sandbox, _: sandbox.run(command(output_bytes=5_500)))
    assert (ran.run.output_exceeded, ran.run.signal, len(ran.stdout)) == (True, 9, 5_500)


def test_a_program_that_waits_is_ended(tmp_path: Path) -> None:
    limits = Limits(time_ms=1_000, memory_kib=65_536, wall_ms=60)
    ran, _ = with_engine(tmp_path, sleeps, lambda sandbox, _: sandbox.run(command(limits=limits)))
    assert ran.run.wall_ms > 60
    assert (ran.run.signal, ran.run.fault) == (9, None)


def test_a_program_that_ended_in_time_is_not_late_for_a_slow_engine(tmp_path: Path) -> None:
    """Planted defect: who was to be killed is called too late, although the engine says that it had ended."""

    async def program(container: FakeContainer) -> int:
        container.lingers = True
        return 0

    limits = Limits(time_ms=1_000, memory_kib=65_536, wall_ms=60)
    ran, _ = with_engine(tmp_path, program, lambda sandbox, _: sandbox.run(command(limits=limits)))
    assert (ran.run.exit_code, ran.run.wall_ms, ran.run.fault) == (0, 20, None)


def test_a_program_that_works_too_long_is_ended(tmp_path: Path) -> None:
    async def program(container: FakeContainer) -> int:
        container.cpu_ns = 1_200_000_000
        return await sleeps(container)

    ran, _ = with_engine(tmp_path, program, lambda sandbox, _: sandbox.run(command()))
    assert (ran.run.signal, ran.run.time_ms) == (9, 1_200)


def test_what_was_not_seen_counts_with_the_clock(tmp_path: Path) -> None:
    ran, _ = with_engine(tmp_path, ends, lambda sandbox, _: sandbox.run(command()))
    assert 0 < ran.run.time_ms <= ran.run.wall_ms == 20


def test_want_of_memory_and_signals_are_told(tmp_path: Path) -> None:
    async def program(container: FakeContainer) -> int:
        container.oom = True
        return 139

    ran, _ = with_engine(tmp_path, program, lambda sandbox, _: sandbox.run(command()))
    assert (ran.run.out_of_memory, ran.run.signal, ran.run.exit_code) == (True, 11, None)


@pytest.mark.parametrize(
    ("kind", "content", "why"),
    [
        (tarfile.REGTYPE, b"\x7fELF", ""),
        (tarfile.SYMTYPE, b"", "it is no regular file"),
        (tarfile.CHRTYPE, b"", "it is no regular file"),
        (tarfile.DIRTYPE, b"", "it is no regular file"),
        (tarfile.REGTYPE, b"x" * 1_001, "it is larger than 1000 bytes"),
        (tarfile.REGTYPE, b"x" * 100_000, "it is larger than 1000 bytes"),
        (None, b"", "the engine answered 404: Could not find the file"),
    ],
)
def test_one_file_comes_out(tmp_path: Path, kind: bytes | None, content: bytes, why: str) -> None:
    """Planted defects: a link that is followed; a file that fills the disk."""

    async def program(container: FakeContainer) -> int:
        if kind is not None:
            container.make("main", content, kind)
        return 0

    fetch = Fetch(name="main", to=tmp_path / "fetched", max_bytes=1_000)
    ran, engine = with_engine(tmp_path, program, lambda sandbox, _: sandbox.run(command(fetch=fetch)))
    assert (ran.unfetched, ran.fetched) == (why, None if why else tmp_path / "fetched")
    assert (tmp_path / "fetched").exists() == (not why)
    assert engine.containers[0].files["box"].uid == 65534
    if not why:
        assert (tmp_path / "fetched").read_bytes() == content
        assert (tmp_path / "fetched").stat().st_mode & 0o777 == 0o555


def test_two_containers_talk(tmp_path: Path) -> None:
    async def program(container: FakeContainer) -> int:
        if container.argv == ["./asks"]:
            for n in range(100):
                await container.print(b"%d\n" % n)
                assert await container.line() == b"%d\n" % (n + 1)
            return 0
        while line := await container.line():
            await container.print(b"%d\n" % (int(line) + 1))
        return 5

    pair, _ = with_engine(
        tmp_path, program, lambda sandbox, _: sandbox.run_pair(command("./asks"), command("./answers"))
    )
    assert (pair.one.run.exit_code, pair.other.run.exit_code, pair.one_ended_first) == (0, 5, True)


def test_two_that_wait_for_each_other_are_ended(tmp_path: Path) -> None:
    async def program(container: FakeContainer) -> int:
        await container.line()
        return 0

    short = Limits(time_ms=1_000, memory_kib=65_536, wall_ms=100)
    pair, _ = with_engine(
        tmp_path, program, lambda sandbox, _: sandbox.run_pair(command(limits=short), command("./other"))
    )
    assert (pair.one.run.signal, pair.other.run.exit_code) == (9, 0)


def test_one_that_talks_to_nobody_goes_on(tmp_path: Path) -> None:
    """Planted defect: a full pipe that nobody reads any more holds a container for ever."""

    async def program(container: FakeContainer) -> int:
        if container.argv == ["./talks"]:
            for _ in range(50):
                await container.print(b"x" * 65_536)
        return 0

    pair, _ = with_engine(
        tmp_path, program, lambda sandbox, _: sandbox.run_pair(command("./talks"), command("./other"))
    )
    assert (pair.one.run.exit_code, pair.other.run.exit_code) == (0, 0)


@pytest.mark.parametrize(
    "call", ["POST create", "PUT archive", "POST attach", "POST start", "GET stats", "POST wait", "GET json"]
)
def test_whatever_the_engine_refuses_is_a_fault(tmp_path: Path, call: str) -> None:
    """Planted defect: a program that runs on without limits because nobody can look at it."""

    async def do(sandbox: DockerSandbox, engine: FakeEngine) -> Any:
        engine.broken[call] = (500, "the engine is out of order")
        return await sandbox.run(command())

    ran, _ = with_engine(tmp_path, sleeps if call == "GET stats" else ends, do)
    assert ran.run.fault is not None
    assert ran.run.fault.startswith("Docker: the engine")


@pytest.mark.parametrize("moment", ["running", "closing"])
def test_a_container_that_nobody_waits_for_is_removed(tmp_path: Path, moment: str) -> None:
    """Planted defect: containers that run on after their job was cancelled, or their runner has ended."""

    async def do(sandbox: DockerSandbox, engine: FakeEngine) -> None:
        run = asyncio.ensure_future(sandbox.run(command()))
        while not engine.containers:  # noqa: ASYNC110 - the engine is on the same loop and cannot be awaited
            await asyncio.sleep(0)
        await engine.containers[0].started.wait()
        if moment == "running":
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
        else:
            await sandbox.close()
            assert (
                (await run).run.fault == (await sandbox.run(command())).run.fault == "the sandbox is closed"
            )
        assert engine.containers[0].removed

    with_engine(tmp_path, sleeps, do)


def test_what_makes_no_sense_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    async def do(sandbox: DockerSandbox, _: FakeEngine) -> None:
        for wrong in (command(files={"../x": b""}), command("a\0b"), command(stdin=0)):
            with pytest.raises(Invalid):
                await sandbox.run(wrong)
        with pytest.raises(Invalid):
            await sandbox.run_pair(command(stdout=1), command())

    _, engine = with_engine(tmp_path, ends, do)
    assert engine.containers == []


@pytest.mark.parametrize(
    ("info", "missing"),
    [
        ({"MemoryLimit": True, "PidsLimit": True, "SecurityOptions": ["name=seccomp"]}, {"cpu"}),
        ({"MemoryLimit": False, "PidsLimit": True, "SecurityOptions": ["name=seccomp"]}, {"cpu", "memory"}),
        ({}, {"cpu", "memory", "processes", "syscalls", "nesting"}),
    ],
)
def test_what_the_engine_does_not_enforce_is_told(
    tmp_path: Path, info: dict[str, Any], missing: set[str]
) -> None:
    async def look() -> None:
        engine = FakeEngine(ends)
        engine.info = info
        async with (
            engine.serving(tmp_path / "docker.sock") as socket,
            await DockerSandbox.open(IMAGE, socket) as sandbox,
        ):
            assert set(sandbox.missing) == missing
            assert {check for check, kept in sandbox.enforces.items() if not kept} == missing

    asyncio.run(look())


@pytest.mark.parametrize(("image", "info"), [("other", {}), (IMAGE, []), (IMAGE, "no")])
def test_no_engine_no_image_no_sandbox(tmp_path: Path, image: str, info: Any) -> None:
    async def look() -> None:
        with pytest.raises(SandboxUnavailable, match="Docker at"):
            await DockerSandbox.open(IMAGE, tmp_path / "none")
        engine = FakeEngine(ends)
        engine.info = info
        async with engine.serving(tmp_path / "docker.sock") as socket:
            with pytest.raises(SandboxUnavailable, match="Docker at"):
                await DockerSandbox.open(image, socket)

    asyncio.run(look())


def test_the_judge_in_containers(tmp_path: Path) -> None:
    async def program(container: FakeContainer) -> int:
        if container.argv[0] == "g++":
            assert container.contents == {"box/main.cpp": b"int main() {}"}
            container.make("main", b"\x7fELF")
        else:
            assert await container.read() in (b"1 1\n", b"1 2\n")
            await container.print(b"42\n")
        return 0

    async def judge() -> list[list[dict[str, Any]]]:
        engine = FakeEngine(program)
        async with engine.serving(tmp_path / "docker.sock") as socket:
            executor = await DockerExecutor.open(IMAGE, socket=socket)
            try:
                return await Bench(tmp_path, (2,)).do(executor)
            finally:
                await executor.close()
                assert [container.removed for container in engine.containers] == [True] * 3

    [cases] = asyncio.run(judge())
    assert [case["status"] for case in cases] == ["AC", "AC"]
