"""What a runner does its jobs with on this host: its sandbox, and an executor for each kind of job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from windlass.runner.executors.base import Assignment, Executed, Executor, Progress
from windlass.runner.executors.command import CommandExecutor
from windlass.runner.executors.judge import JudgeExecutor
from windlass.runner.sandbox import CHECKS, Sandbox, accepted, open_sandbox
from windlass.runner.sandbox.docker import DockerSandbox
from windlass.runner.workspace import JobDirectory

log = structlog.get_logger("windlass.runner")


@asynccontextmanager
async def executor(*, allow_weak: bool, docker: str | None = None) -> AsyncIterator[Executor]:
    """The executor of every kind of job, in the sandbox of this host, which lasts as long as the context.

    `docker`: the image of which Docker makes the boxes; None: bubblewrap makes them. Raises
    SandboxUnavailable, and SandboxWeak unless `allow_weak`.
    """
    async with await _sandbox(docker, allow_weak=allow_weak) as sandbox:
        missing = [CHECKS[check] for check, kept in sandbox.enforces.items() if not kept]
        if missing:
            log.warning(
                "weak_sandbox", message=f"This sandbox is weak: not kept is that {'; '.join(missing)}."
            )
        judge = JudgeExecutor(sandbox, compilers_here=docker is None)
        by_kind = ByKind(judge=judge, command=CommandExecutor(sandbox))
        by_kind.labels = tuple(f"sandbox-{check}" for check, kept in sandbox.enforces.items() if kept)
        yield by_kind


async def _sandbox(docker: str | None, *, allow_weak: bool) -> Sandbox:
    if docker is None:
        return await open_sandbox(allow_weak=allow_weak)
    return await accepted(await DockerSandbox.open(docker), allow_weak=allow_weak)


class ByKind(Executor):
    """Gives a job that has a `command` to one executor, and every other to the other."""

    def __init__(self, *, judge: Executor, command: Executor) -> None:
        self._judge = judge
        self._command = command

    async def execute(self, assignment: Assignment, directory: JobDirectory, progress: Progress) -> Executed:
        chosen = self._command if "command" in assignment.payload else self._judge
        return await chosen.execute(assignment, directory, progress)

    async def close(self) -> None:
        await self._judge.close()
        await self._command.close()
