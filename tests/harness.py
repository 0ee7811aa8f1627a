"""A real `windlass serve` process for tests, and a way to wait for things without sleeping blindly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

T = TypeVar("T")

WINDLASS = Path(sys.executable).with_name("windlass")


def until(condition: Callable[[], T], within: float = 60.0, what: str = "the condition") -> T:
    """Poll `condition` until it is true and return its value; AssertionError after `within` seconds.

    These, like all limits of waiting in tests, guard against hanging and measure nothing: a minute at least.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {within} s")
        time.sleep(0.01)


def free_port(*above: int) -> int:
    """A port nobody listens on, below the range the kernel gives to outgoing connections.

    The ports that are as far `above` it are free as well.

    A port from that range would be wrong for a server that is killed and started again on it: a client
    that tries to reconnect meanwhile can be given the very port as its own, and then talks to itself.
    """
    while True:
        port = random.randrange(10_240, 32_768 - max(above, default=0))
        with contextlib.suppress(OSError):
            for distance in (0, *above):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port + distance))
            return port


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without the caller's own settings of Windlass, then `extra` on top."""
    ours = ("WINDLASS_", "REDIS_URL", "BLOOM_STATE_NAMESPACE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"PYTHONUNBUFFERED": "1"} | dict(extra or {})


class Jumping(asyncio.SelectorEventLoop):
    """An event loop on which time passes at once: with nothing to do it goes to its next timer.

    For code without files, threads or processes: what they would bring, this loop does not wait for.
    """

    def __init__(self) -> None:
        self._selector_of_time = _Skipping()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return self._selector_of_time.skipped  # and no real time: a busy machine must not be seen


class _Skipping(selectors.DefaultSelector):
    """Looks once, and counts the seconds that it should have waited."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.skipped += max(0.0, timeout or 0.0)
        return super().select(0)


class ServerProcess:
    """One `windlass serve` on one data directory, which may be killed and started again.

    The port is chosen once and kept, so clients reconnect to the same `url` after a restart.
    `program` is what takes `serve` and its options, where that is not windlass itself.
    What the process writes to stdout and stderr is appended to `log_path`, over all its lives.

        with ServerProcess(tmp_path / "data") as server:
            httpx.get(server.url + "/status")
            server.kill()
            server.start()
    """

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        ready_within: float = 60.0,
        program: Sequence[str] = (str(WINDLASS),),
    ) -> None:
        self.data_dir = data_dir
        self.program = list(program)
        self.arguments = arguments
        self.environment = dict(environment or {})
        self.ready_within = ready_within
        self.port = free_port()
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self.ready_file = data_dir.parent / f"{data_dir.name}.ready"
        self.process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Everything the server has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server was not started"
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start the process and return once it accepts connections."""
        self.launch()
        self.wait_until_ready()
        return self

    def launch(self) -> None:
        """Start the process without waiting for anything."""
        assert not self.running, "the server is running already"
        self.ready_file.unlink(missing_ok=True)
        self._close_log()
        self._log = self.log_path.open("ab")
        command = [
            *self.program, "serve", "--host", "127.0.0.1", "--port", str(self.port),
            "--data-dir", str(self.data_dir), "--ready-file", str(self.ready_file), *self.arguments,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=clean_environment(self.environment),
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.running, f"windlass serve ended:\n{self.log}"
            return self.ready_file.exists()

        try:
            until(ready, self.ready_within, "the server's ready file")
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.log}") from None

    def signal(self, number: int) -> None:
        assert self.process is not None, "the server was not started"
        self.process.send_signal(number)

    def kill(self) -> int:
        """SIGKILL; returns the exit status once the process is gone. Does nothing to a dead one."""
        if self.running:
            self.signal(signal.SIGKILL)
        return self.wait()

    def terminate(self, within: float = 60.0) -> int:
        """SIGTERM; returns the exit status of the graceful end, AssertionError when it takes longer."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(within)

    def wait(self, within: float = 60.0) -> int:
        assert self.process is not None, "the server was not started"
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server is still running after {within} s:\n{self.log}") from None
        self._close_log()
        return status

    def restart(self) -> Self:
        """End it gracefully and start it again on the same directory and port."""
        self.terminate()
        return self.start()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.kill()


def run_cli(
    *arguments: str,
    server: str | None = None,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run `windlass ARGUMENTS` to its end, `text` on its stdin, WINDLASS_URL set to `server`.

    `under` is a program that starts it, with its arguments.
    """
    extra = {"WINDLASS_URL": server} if server else {}
    return subprocess.run(
        [*under, str(WINDLASS), *arguments],
        input=text if text is not None else "",
        capture_output=True,
        text=True,
        env=clean_environment(extra | dict(environment or {})),
        timeout=timeout,
        check=False,
    )
