"""One process that serves the application under uvicorn: limits, the way in, a stop in two steps.

A process that is told to stop first goes on serving for some seconds (`drain_delay`), while its /health says
503 and each answer ends its connection: a balancer in front sends it no more. Then it closes its port,
answers long polls, and finishes what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import structlog
import uvicorn

from windlass.errors import StartError
from windlass.server import control
from windlass.server.app import Windlass
from windlass.server.auth import is_loopback
from windlass.server.protocol import Protocol

log = structlog.get_logger("windlass.server")


class Server(uvicorn.Server):
    """uvicorn, with what is ours at the start and at the stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: Windlass,
        commands: socket.socket | None,
        ready: Callable[[], None],
        lifeline: int | None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._commands = commands
        self._ready = ready
        self._lifeline = lifeline
        self._control: asyncio.AbstractServer | None = None
        self._drained_at: float | None = None
        """When the first step of the stop is over, in the loop's time; None: nobody has told it to stop."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        if self._commands is not None:
            self._control = await control.serve(self._app, self._commands)
        if self._lifeline is not None:
            asyncio.get_running_loop().add_reader(self._lifeline, self._orphaned)
        _settle_memory()
        self._ready()

    def _orphaned(self) -> None:
        assert self._lifeline is not None
        asyncio.get_running_loop().remove_reader(self._lifeline)
        log.warning("orphaned", message="The process that watched over this one is gone: it stops, too.")
        self.should_exit = True
        self._drained_at = 0.0  # nobody will start another: whoever is sent here is better refused

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # it ended as it was told to: the exit status is 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks for a stop, another for an end at once.

        Not in a worker: Ctrl-C and systemd tell the whole group, and its supervisor tells it again.
        """
        if self.should_exit and self._lifeline is None:
            self.force_exit = True
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if not await super().on_tick(counter):
            return False
        now = asyncio.get_running_loop().time()
        if self._drained_at is None:
            delay = self._app.settings.drain_seconds
            self._drained_at = now + delay
            if delay:
                log.info("draining", seconds=delay, waiting=len(self._app.queues.lines))
            self._app.draining = True
        return self.force_exit or now >= self._drained_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("stopping", waiting=len(self._app.queues.lines))
        self._app.draining = True
        if self._control is not None:
            self._control.close()
        self._app.release_waiters()
        await asyncio.sleep(
            0
        )  # a turn of the loop, to take who is at the door: the kernel would turn them away
        await super().shutdown(sockets)
        log.info("stopped")


def run(
    app: Windlass,
    listener: socket.socket,
    commands: socket.socket | None,
    ready: Callable[[], None],
    lifeline: int | None = None,
) -> None:
    """Serve an opened application until SIGTERM or SIGINT; `ready` is called once it accepts.

    `listener` and `commands`, the control socket, are bound, and closed at the end. `lifeline`, of a worker,
    can be read once the supervisor is gone. Raises StartError.
    """
    settings = app.settings
    if app.door.open and not settings.insecure and not is_loopback(settings.host):
        raise StartError(
            f"{settings.host} can be reached from other machines and there is no API key."
            f" Make one with `windlass key create --scope all --data-dir {settings.data_dir}`,"
            " or say --insecure to let everybody in."
        )
    _more_files()
    # The writer takes the interpreter's lock a few times a commit and would wait 5 ms for a busy loop.
    sys.setswitchinterval(0.0005)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
        backlog=4096,
    )
    Server(config, app, commands, ready, lifeline).run(sockets=[listener])


def _more_files() -> None:
    """Ten thousand clients are ten thousand files: take all that the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_048_576
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settle_memory() -> None:
    """Keep the garbage collector off what lives as long as the process.

    It would look through all of FastAPI's objects every few thousand requests, which leave no cycles. Of the
    190,000 objects of a start 1,300 are garbage, and to look for them would take a tenth of a second.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
