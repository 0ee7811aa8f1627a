"""`windlass serve`: takes the port, serves in one process or in several, and says once that it does."""

from __future__ import annotations

import secrets
from pathlib import Path

import structlog
from pydantic import SecretStr

from windlass import __version__
from windlass.server import control, process
from windlass.server.app import Windlass
from windlass.server.auth import is_loopback
from windlass.server.listening import address, listen
from windlass.settings import Settings

log = structlog.get_logger("windlass.server")


def serve(settings: Settings, ready_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError.

    Without a registration token, a server that only this machine can reach makes one for this start and says
    how to start a runner with it. Any other lets no runner in.
    """
    fresh_token = None
    if settings.registration_token is None and is_loopback(settings.host):
        fresh_token = secrets.token_urlsafe(18)
        settings = settings.model_copy(update={"registration_token": SecretStr(fresh_token)})

    def ready() -> None:
        _announce(settings, address(listener), ready_file, fresh_token)

    listener = listen(settings.host, settings.port)
    try:
        if settings.workers > 1:
            from windlass.server import workers  # most servers are one process

            workers.supervise(settings, listener, ready)
            return
        app = Windlass(settings)
        app.open()
        with control.bound(settings.data_dir) as commands:
            process.run(app, listener, commands, ready)
    finally:
        listener.close()


def _announce(settings: Settings, url: str, ready_file: Path | None, fresh_token: str | None) -> None:
    """`fresh_token`: the registration token where it was made for this start: it is shown."""
    more = {"workers": settings.workers} if settings.workers > 1 else {}
    log.info(
        "ready", message=f"Windlass {__version__} is ready on {url}", url=url, docs=f"{url}/docs", **more
    )
    if fresh_token is not None:
        how = f"windlass runner --server {url} --token {fresh_token}"
        log.info("registration_open", message=f"Start a runner on this machine with: {how}")
    if ready_file is not None:
        part = ready_file.with_name(ready_file.name + ".part")
        part.write_text(url)
        part.replace(ready_file)
