"""Running the application under uvicorn: ready line, graceful stop, limits."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn
from pydantic import SecretStr

from windlass import __version__
from windlass.errors import StartError
from windlass.server import control
from windlass.server.app import Windlass
from windlass.server.auth import is_loopback
from windlass.server.protocol import Protocol
from windlass.settings import Settings

log = structlog.get_logger("windlass.server")


class Server(uvicorn.Server):
    """uvicorn, with what is ours at the start and at the stop."""

    def __init__(
        self, config: uvicorn.Config, app: Windlass, ready_file: Path | None, fresh_token: str | None
    ) -> None:
        """`fresh_token`: the registration token where it was made for this start: it is shown."""
        super().__init__(config)
        self._app = app
        self._ready_file = ready_file
        self._fresh_token = fresh_token
        self._control: asyncio.AbstractServer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        try:
            self._control = await control.listen(self._app)
        except OSError as error:
            log.warning("no_control_socket", message=f"`windlass key` must wait for a stop: {error}")
        _settle_memory()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info("ready", message=f"Windlass {__version__} is ready on {url}", url=url, docs=f"{url}/docs")
        if self._fresh_token is not None:
            how = f"windlass runner --server {url} --token {self._fresh_token}"
            log.info("registration_open", message=f"Start a runner on this machine with: {how}")
        if self._ready_file is not None:
            part = self._ready_file.with_name(self._ready_file.name + ".part")
            part.write_text(url)
            part.replace(self._ready_file)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # it ended as it was told to: the exit status is 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("stopping", waiting=len(self._app.queues.lines))
        if self._control is not None:
            self._control.close()
            with contextlib.suppress(OSError):
                (self._app.settings.data_dir / control.SOCKET).unlink()
        self._app.release_waiters()
        await super().shutdown(sockets)
        log.info("stopped")


def serve(settings: Settings, ready_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError.

    Without a registration token, a server that only this machine can reach makes one for this start and says
    how to start a runner with it. Any other lets no runner in.
    """
    fresh_token = None
    if settings.registration_token is None and is_loopback(settings.host):
        fresh_token = secrets.token_urlsafe(18)
        settings = settings.model_copy(update={"registration_token": SecretStr(fresh_token)})
    app = Windlass(settings)
    listener = _listen(settings)
    try:
        app.open()
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
        Server(config, app, ready_file, fresh_token).run(sockets=[listener])
    finally:
        listener.close()


def _listen(settings: Settings) -> socket.socket:
    """Take the port before anything is opened, so that a taken one is a plain word."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # a name that is none in the DNS either
        why = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"The host {settings.host!r} is no address of this machine: {why}.") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
    except OSError as error:
        listener.close()
        raise StartError(
            f"Port {settings.port} on {settings.host} cannot be used: {error.strerror}."
            " Stop what runs there, or name another with --port (0 takes a free one)."
        ) from error
    listener.set_inheritable(True)
    return listener


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
