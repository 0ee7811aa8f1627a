"""The judge on hosts with Docker: the same, in containers of an image that has the compilers."""

from __future__ import annotations

from pathlib import Path

from windlass.runner.executors.judge import JudgeExecutor
from windlass.runner.sandbox.docker import SOCKET, DockerSandbox


class DockerExecutor(JudgeExecutor):
    """Judges in containers; `DockerExecutor.open()` makes one, and it closes its sandbox itself."""

    def __init__(self, sandbox: DockerSandbox, *, processors: int | None = None) -> None:
        super().__init__(sandbox, processors=processors, compilers_here=False)
        self.sandbox = sandbox

    @classmethod
    async def open(
        cls, image: str, *, socket: Path = SOCKET, processors: int | None = None
    ) -> DockerExecutor:
        """Raises SandboxUnavailable where there is no Docker at `socket`, or it does not have the image."""
        return cls(await DockerSandbox.open(image, socket), processors=processors)

    async def close(self) -> None:
        await self.sandbox.close()
