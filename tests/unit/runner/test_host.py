"""What a runner does its jobs with on this host."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from tests.unit.runner.sandbox.docker.fake import FakeContainer, FakeEngine
from windlass.errors import SandboxWeak
from windlass.runner import host
from windlass.runner.sandbox.docker import DockerSandbox


async def ends(_: FakeContainer) -> int:
    return 0


def labels(folder: Path, monkeypatch: pytest.MonkeyPatch, *, allow_weak: bool) -> tuple[str, ...]:
    """Those of a runner whose boxes Docker makes; an engine that a test plays limits no memory."""

    async def main() -> tuple[str, ...]:
        engine = FakeEngine(ends)
        engine.info = engine.info | {"MemoryLimit": False}
        async with engine.serving(folder / "docker.sock") as socket:
            monkeypatch.setattr(DockerSandbox, "open", partial(DockerSandbox.open, socket=socket))
            async with host.executor(allow_weak=allow_weak, docker="windlass-judge") as executor:
                return tuple(executor.labels)

    return asyncio.run(main())


def test_a_weak_docker_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: what Docker does not keep is a warning only."""
    with pytest.raises(SandboxWeak) as refused:
        labels(tmp_path, monkeypatch, allow_weak=False)
    for word in ("this engine cannot limit memory", "Docker's figures are samples", "--allow-weak-sandbox"):
        assert word in refused.value.detail


def test_a_weak_docker_is_taken_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: it offers what it does not keep."""
    kept = {"sandbox-user", "sandbox-namespaces", "sandbox-nesting", "sandbox-syscalls", "sandbox-processes"}
    assert set(labels(tmp_path, monkeypatch, allow_weak=True)) == kept
