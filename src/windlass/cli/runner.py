"""windlass runner: take jobs from a server and do them here."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from windlass.cli.connect import Server, fail
from windlass.client.errors import WindlassError as ClientError
from windlass.client.transport import DEFAULT_URL
from windlass.errors import StartError


def runner(
    server: Server = DEFAULT_URL,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="WINDLASS_REGISTRATION_TOKEN",
            metavar="TOKEN",
            show_default=False,
            help="The server's registration token; needed until there is an identity in --dir.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read the registration token from this file.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What people call it. [default: this machine's name]")
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", metavar="DIR", help="Its own: identity, test data, jobs under way. [default: ./runner]"
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Jobs at a time. [default: what the server says, at most that]"
        ),
    ] = None,
    labels: Annotated[
        str, typer.Option(metavar="A,B", help="What it offers: jobs that ask for labels go where they are.")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Wait for one job, do it, and end.")] = False,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="The same, and leave nothing behind: no identity, no cache.")
    ] = False,
    allow_weak_sandbox: Annotated[
        bool,
        typer.Option("--allow-weak-sandbox", help="Run where this host cannot enforce all of the sandbox."),
    ] = False,
    docker: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Make boxes with Docker, of this image, instead of bubblewrap."),
    ] = None,
    drain_timeout: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long a stop waits for jobs under way."),
    ] = 60.0,
    log_format: Annotated[
        str, typer.Option(envvar="WINDLASS_LOG_FORMAT", metavar="FORMAT", help="console or json.")
    ] = "console",
) -> None:
    """Take jobs from a server, do them on this machine, and bring back what came of them.

    It registers with the server's registration token and keeps what it is given in --dir, so that the next
    start needs no token. It goes on however long the server is away.

    Ctrl-C or SIGTERM: no new jobs, those that run are finished and delivered, the others go back for another
    runner, and it ends with 0. A second one ends it at once. It ends with 1 only when the server refuses it.

    \b
    Examples:
      windlass runner --token "$(cat registration-token)"
      windlass runner --server https://judge.example --token-file /etc/windlass/token --jobs 4
      windlass runner --once                          # one job and gone
      windlass runner --labels gpu,big --dir runner-2
    """
    from windlass import logs  # the client commands start faster without
    from windlass.runner import host, process
    from windlass.runner.agent import Options

    if log_format not in ("console", "json"):
        raise typer.BadParameter(f"{log_format!r} is neither console nor json.", param_hint="--log-format")
    logs.configure(log_format)
    options = Options(
        server=server,
        directory=directory or Path("runner"),
        name=name or socket.gethostname() or "runner",
        token=_token(token, token_file),
        jobs=jobs,
        labels=tuple(label for each in labels.split(",") if (label := each.strip())),
        once=once or ephemeral,
        drain_timeout=drain_timeout,
    )
    process.go_on_in_a_child_of_process_1()
    try:
        with _passing(directory) if ephemeral else nullcontext(options.directory) as place:
            process.run(
                replace(options, directory=place, keep_identity=not ephemeral),
                lambda: host.executor(allow_weak=allow_weak_sandbox, docker=docker),
            )
    except (StartError, ClientError) as error:
        fail(str(error))


@contextmanager
def _passing(parent: Path | None) -> Iterator[Path]:
    """A directory for one run, in `parent` or where temporary files are."""
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix="windlass-runner-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise StartError(f"There is no directory for it: {error}.") from error
    with place as name:
        yield Path(name)


def _token(token: str | None, file: Path | None) -> str | None:
    """The registration token: what was given, or what is in the file, without the line's end."""
    if file is None:
        return token or None
    try:
        return file.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="--token-file") from None
