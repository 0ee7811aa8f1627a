"""haproxy and nginx in front of servers of the tests' own: Debian's binaries, the files of deploy/."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness import ServerProcess, free_port, until

DEPLOY = Path(__file__).parents[1] / "deploy"
_SERVERS = ("server-1:8000", "server-2:8000")
"""What the files in deploy/ call them."""


def program(name: str) -> str:
    """Its path. Debian has it where only root looks."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert path is not None, f"{name} is not installed: scripts/test does that"
    return path


class Proxy:
    """A proxy in front of two servers, in the foreground."""

    def __init__(self, folder: Path, servers: Sequence[ServerProcess]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self._servers = servers
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def written(self, file: str, listen: tuple[str, str]) -> str:
        """A file of deploy/ with this machine's addresses."""
        text = (DEPLOY / file).read_text()
        here = [f"127.0.0.1:{server.port}" for server in self._servers]
        for old, new in (listen, *zip(_SERVERS, here, strict=True)):
            assert f" {old}" in text, f"{old} is not in deploy/{file}"
            text = text.replace(f" {old}", f" {new}")
        return text

    def __enter__(self) -> Self:
        with (self.folder / "proxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        until(self._listens, 60, "the proxy")
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "proxy.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


class HAProxy(Proxy):
    """haproxy as in deploy/haproxy.cfg, and a socket that tells what it has counted."""

    def command(self) -> list[str]:
        file, more = self.folder / "haproxy.cfg", self.folder / "more.cfg"
        file.write_text(self.written("haproxy.cfg", ("bind :8000", f"bind 127.0.0.1:{self.port}")))
        more.write_text(f"global\n    stats socket {self._socket} mode 600 level admin\n")
        few = ["-n", "1000"]  # connections: a machine may not let us have the files for its maxconn
        return [program("haproxy"), "-db", *few, "-f", str(file), "-f", str(more)]

    @property
    def _socket(self) -> Path:
        return self.folder / "haproxy.sock"

    def counts(self) -> dict[str, dict[str, str]]:
        """What haproxy tells of each server of its backend, by name."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(60)
            connection.connect(str(self._socket))
            connection.sendall(b"show stat\n")
            text = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return {row["svname"]: row for row in rows if row["pxname"] == "servers"}

    def up(self, name: str) -> bool:
        """Whether it sends requests to a server."""
        return self.counts()[name]["status"].startswith("UP")


class Nginx(Proxy):
    """nginx as in deploy/nginx.conf."""

    def command(self) -> list[str]:
        site, file = self.folder / "windlass.conf", self.folder / "nginx.conf"
        site.write_text(self.written("nginx.conf", ("listen 8000;", f"listen 127.0.0.1:{self.port};")))
        temporary = "".join(
            f"    {name}_temp_path {self.folder / name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file.write_text(
            f"daemon off;\npid {self.folder / 'nginx.pid'};\nerror_log stderr;\nevents {{}}\n"
            f"http {{\n    access_log off;\n{temporary}    include {site};\n}}\n"
        )
        return [program("nginx"), "-p", str(self.folder), "-c", str(file)]
