"""What every command that speaks to a server shares: its options, and errors put into advice."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from windlass.client import Client, Retry, WindlassError, errors
from windlass.client.transport import DEFAULT_URL

Server = Annotated[
    str, typer.Option("--server", envvar="WINDLASS_URL", metavar="URL", help="The server's address.")
]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="WINDLASS_KEY", metavar="KEY", help="An API key.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

NO_RETRY = Retry(limit=0)


def complete_queue(context: typer.Context, incomplete: str) -> list[str]:
    """Names of queues for the shell's completion; silent when the server does not answer at once."""
    url, key = context.params.get("server"), context.params.get("key")
    try:
        with Client(url, key, timeout=1.0, retry=NO_RETRY) as client:
            return [queue.name for queue in client.queues(incomplete)]
    except WindlassError:
        return []


Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.", autocompletion=complete_queue)]


@contextmanager
def connect(server: str, key: str | None) -> Iterator[Client]:
    """A client for one command.

    It does not try again by itself, so that a server that is not there is told at once; commands that run
    for long become patient (`client.retry = Retry()`) after the first answer. Errors end the program
    with status 1 and a line of advice, Ctrl-C with 130, a reader that has gone away with 141.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # messages are UTF-8, whatever the terminal's locale is
    log = logging.getLogger("windlass.client")
    log.setLevel(logging.INFO)
    log.handlers = [_Remarks()]
    try:
        with Client(server, key, retry=NO_RETRY) as client:
            yield client
    except WindlassError as error:
        fail(*advice(error, server))
    except KeyboardInterrupt:
        _drop_output()
        if sys.stderr.isatty():
            typer.echo(err=True)  # the prompt begins on a line of its own, after the terminal's ^C
        raise typer.Exit(130) from None
    except BrokenPipeError:
        _drop_output()
        raise typer.Exit(141) from None


class _Remarks(logging.Handler):
    """What the client has to say, such as that it tries again, goes to the person at the terminal, once."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text != self._last:
            # Not typer.echo, which would write past the progress bar and into it.
            print(f"windlass: {text}", file=sys.stderr)
            self._last = text


def _drop_output() -> None:
    """Send what is still buffered nowhere: at exit it would wait for a reader, or complain about none."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that both end a long command in the same orderly way."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def fail(problem: str, hint: str = "") -> NoReturn:
    """Say what is wrong and what to do next, and end with status 1."""
    typer.echo(f"windlass: {problem}", err=True)
    if hint:
        typer.echo(hint, err=True)
    raise typer.Exit(1)


def _how_to_start(server: str) -> str:
    if server == DEFAULT_URL:
        return "Start one with: windlass serve   (or name another with --server URL)"
    url = urlsplit(server)
    if url.hostname in ("127.0.0.1", "localhost", "::1") and url.port:
        return f"Start one with: windlass serve --port {url.port}"
    return "Is a server running there? The address is from --server or WINDLASS_URL."


_WHERE_TO_LOOK = {
    "problem_not_found": "windlass problem list",
    "submission_not_found": "windlass submission list",
    "job_not_found": "windlass jobs",
    "product_not_found": "windlass products list",
}


def advice(error: WindlassError, server: str) -> tuple[str, str]:
    """What went wrong, in a sentence, and what may help."""
    text = str(error)
    match error:
        case errors.Unreachable():
            return text, _how_to_start(server)
        case errors.AnswerLost():
            return text, "It may have been done, or not: look before you repeat it."
        case errors.BadAnswer():
            return text, f"Is {server} the address of a Windlass server?"
        case errors.Unauthenticated():
            return (
                text,
                "Give a key with --key or WINDLASS_KEY; the server's owner makes one: windlass key create",
            )
        case errors.Forbidden() if "scope" in text:
            return text, "A key that may do it is made on the server: windlass key create --scope ..."
        case errors.QueueNotFound():
            return text, "See what there is: windlass queue list   Make one: windlass queue create NAME"
        case errors.QueueExists():
            return text, "Compare with: windlass queue show NAME   Change it with: windlass queue update NAME"
        case errors.QueueInUse():
            return text, "Detach it first: windlass queue update OTHER --dead-letter none"
        case errors.QueueFull():
            return text, "Wait for consumers, or allow more: windlass queue update NAME --max-length N"
        case errors.NotFound() if error.code in _WHERE_TO_LOOK:
            return text, f"See what there is: {_WHERE_TO_LOOK[error.code]}"
        case errors.ServerFailed():
            return text, "The server is in trouble; its log says more."
        case _:
            return text, ""
