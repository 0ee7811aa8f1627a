"""windlass send: one message from the command line, or a line a message from a pipe."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import typer
from msgspec import structs

from windlass.cli.connect import Json, Key, Name, Server, connect, termination_as_interrupt
from windlass.cli.durations import parse_seconds
from windlass.cli.output import note, print_json
from windlass.cli.pipe import Batch, batches, read_lines
from windlass.client import Client, NewMessage, RawJson, Retry
from windlass.client.calls import MAX_BATCH_MESSAGES, send_batch
from windlass.client.errors import NotSent, WindlassError
from windlass.client.transport import DEFAULT_URL
from windlass.client.values import checked_json


def send(
    name: Name,
    text: Annotated[
        str, typer.Argument(metavar="TEXT|-", help="The message; - reads a line a message from a pipe.")
    ],
    json_content: Annotated[bool, typer.Option("--json-content", help="TEXT is JSON, not a string.")] = False,
    ndjson: Annotated[
        bool, typer.Option("--ndjson", help="Each line is a JSON value, not a string.")
    ] = False,
    envelope: Annotated[
        bool,
        typer.Option("--envelope", help='Each line is a whole message: {"content": ..., "delay": 5}.'),
    ] = False,
    delay: Annotated[
        float | None,
        typer.Option(parser=parse_seconds, metavar="TIME", help="Keep it back for so long: 30, 5m, 2h."),
    ] = None,
    ttl: Annotated[
        float | None, typer.Option(parser=parse_seconds, metavar="TIME", help="Let it expire after so long.")
    ] = None,
    priority: Annotated[int | None, typer.Option(metavar="0-9", min=0, max=9, help="9 leaves first.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Messages of one group leave one after the other.")
    ] = None,
    dedup_id: Annotated[
        str | None, typer.Option(metavar="ID", help="A second send with the same one adds nothing.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header; may be repeated.")
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_BATCH_MESSAGES, help="Lines sent at once, all or none.")
    ] = MAX_BATCH_MESSAGES,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Send a message, or a line a message from a pipe.

    When it returns, the messages are on disk. If a pipe cannot be sent to its end, it says how many
    messages are in the queue and which line is the first that is not.

    \b
    Examples:
      windlass send orders "two ropes"
      windlass send orders '{"item": "rope"}' --json-content --delay 5m
      seq 1000 | windlass send orders -
      windlass send orders - --ndjson < orders.ndjson
      windlass receive a --all --raw | windlass send b - --ndjson
    """
    common = NewMessage(None, delay=delay, ttl=ttl, priority=priority, group=group, headers=_headers(header))
    if text == "-":
        _refuse(json_content, "--json-content", "for lines from a pipe it is --ndjson")
        _refuse(dedup_id is not None, "--dedup-id", "it would make all lines one message; use --envelope")
        _refuse(
            envelope and common != NewMessage(None),
            "--envelope",
            "each line carries its own delay, group and so on; leave the other options out",
        )
        body_of = _whole_message if envelope else _content_of(common, ndjson)
        _send_pipe(name, body_of, batch, server, key, json)
    else:
        _refuse(ndjson, "--ndjson", "it goes with lines from a pipe: give - instead of TEXT")
        _refuse(envelope, "--envelope", "it goes with lines from a pipe: give - instead of TEXT")
        content = RawJson(text) if json_content else text
        _send_one(name, structs.replace(common, content=content, dedup_id=dedup_id), server, key, json)


def _send_one(name: str, message: NewMessage, server: str, key: str | None, json: bool) -> None:
    with connect(server, key) as client:
        sent = client.queue(name).send(message)
        if json:
            print_json(sent)
        else:
            print(sent.id)
            if sent.duplicate:
                note("A message with this dedup id was there already; nothing was added.")


def _send_pipe(
    name: str, body_of: Callable[[bytes], str | None], most: int, server: str, key: str | None, json: bool
) -> None:
    if sys.stdin.isatty():
        note("Reading lines from the terminal; end with Ctrl-D.")
    tally = _Tally()
    try:
        with connect(server, key) as client, termination_as_interrupt(), _progress(tally) as show:
            client.retry = Retry(wait_for_server=False)
            for batch in batches(read_lines(sys.stdin.fileno()), body_of, most):
                _send_batch(client, name, batch, tally)
                show()
            tally.finished = True
    finally:
        tally.report(json)


@dataclass
class _Tally:
    """How far a pipe has come. Lines are counted from 1."""

    sent: int = 0
    duplicates: int = 0
    input_bytes: int = 0
    next_line: int = 1
    in_doubt: int | None = None
    finished: bool = False
    began: float = field(default_factory=time.monotonic)

    def report(self, json: bool) -> None:
        """Say what was achieved, however it ended."""
        took = time.monotonic() - self.began
        if json:
            summary: dict[str, object] = {
                "sent": self.sent,
                "duplicates": self.duplicates,
                "seconds": round(took, 3),
            }
            if not self.finished:
                summary |= {"first_unsent_line": self.next_line, "in_doubt_to_line": self.in_doubt}
            print_json(summary)
            return
        known = f", {self.duplicates:,} of them known already" if self.duplicates else ""
        note(f"{_messages(self.sent)} sent in {took:.1f} s{known}")
        if self.finished:
            return
        if self.in_doubt is None:
            note(f"The first line that is not in the queue is line {self.next_line}.")
        elif self.in_doubt == self.next_line:
            note(f"It is not known whether line {self.next_line} is in the queue.")
        else:
            note(f"It is not known whether lines {self.next_line} to {self.in_doubt} are in the queue.")


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _send_batch(client: Client, name: str, batch: Batch, tally: _Tally) -> None:
    tally.in_doubt = batch.last
    try:
        sent = client.run(send_batch(name, batch.bodies, make_key=True))
    except WindlassError as error:
        if not error.in_doubt:
            tally.in_doubt = None
        raise
    client.retry = Retry()
    tally.in_doubt = None
    tally.sent += len(sent)
    tally.duplicates += sum(message.duplicate for message in sent)
    tally.input_bytes += batch.input_bytes
    tally.next_line = batch.last + 1


@contextmanager
def _progress(tally: _Tally) -> Iterator[Callable[[], None]]:
    """A bar on stderr while it is a terminal; of the whole when the input is a file, else a count."""
    # Here, as only a pipe needs them and they take long to import.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    about = os.fstat(sys.stdin.fileno())
    total = about.st_size if stat.S_ISREG(about.st_mode) else None
    columns = [
        SpinnerColumn(),
        TextColumn("{task.fields[sent]:,} sent, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    ]
    if total:
        columns[1:1] = [BarColumn(), TaskProgressColumn()]
    shown = console.is_terminal and not sys.stdin.isatty()
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=total, sent=0, rate=0.0)

        def show() -> None:
            rate = tally.sent / max(time.monotonic() - tally.began, 1e-6)
            progress.update(task, completed=tally.input_bytes, sent=tally.sent, rate=rate)

        yield show


def _content_of(common: NewMessage, ndjson: bool) -> Callable[[bytes], str | None]:
    def body_of(line: bytes) -> str | None:
        text = _decoded(line)
        if ndjson and not text.strip():
            return None
        return structs.replace(common, content=RawJson(text) if ndjson else text).to_json()

    return body_of


def _whole_message(line: bytes) -> str | None:
    text = _decoded(line).strip()
    if text and not text.startswith("{"):
        raise NotSent('a whole message is a JSON object with a "content"')
    return checked_json(text) if text else None


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise NotSent(f"this is not UTF-8: {error.reason} at byte {error.start + 1}") from None


def _headers(pairs: list[str] | None) -> dict[str, str] | None:
    headers = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        _refuse(not (name and equals), "--header", f"{pair!r} is not NAME=VALUE")
        headers[name] = value
    return headers or None


def _refuse(wrong: bool, option: str, reason: str) -> None:
    """End with a usage error, status 2, when something is wrong."""
    if wrong:
        raise typer.BadParameter(reason, param_hint=option)
