"""The sandbox on a Docker Engine: every box is a container."""

from windlass.runner.sandbox.docker.sandbox import SOCKET, DockerSandbox

__all__ = ["SOCKET", "DockerSandbox"]
