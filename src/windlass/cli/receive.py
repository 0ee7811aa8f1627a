"""windlass receive: messages to stdout, a line each, acknowledged once they are out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated

import typer

from windlass.cli.connect import Json, Key, Name, Server, connect, termination_as_interrupt
from windlass.cli.durations import parse_seconds
from windlass.cli.output import content_line, message_json, note, raw_line
from windlass.client import LeasedMessage, Queue, Retry
from windlass.client.calls import LONGEST_WAIT, MAX_BATCH_MESSAGES
from windlass.client.transport import DEFAULT_URL

_POLL = 20.0
"""Seconds one request of --follow waits."""

_REST = 0.5


def receive(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Go on until the queue is empty.")] = False,
    most: Annotated[
        int | None, typer.Option("--max", metavar="N", min=1, help="Stop after N messages.", show_default="1")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            parser=parse_seconds, metavar="TIME", help="Wait so long for a message.", show_default="0"
        ),
    ] = None,
    lease: Annotated[
        float | None,
        typer.Option(
            parser=parse_seconds, metavar="TIME", help="Length of the lease.", show_default="the queue's own"
        ),
    ] = None,
    acknowledge: Annotated[
        bool,
        typer.Option(
            "--ack/--no-ack",
            help="Acknowledge what was printed, or leave it leased: it comes back when the lease ends.",
        ),
    ] = True,
    batch: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=MAX_BATCH_MESSAGES,
            help="Messages taken, printed and acknowledged together; more is faster, "
            "but a reader that stops half-way has been given up to so many.",
        ),
    ] = 1,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the JSON of each content, as it was sent.")
    ] = False,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Receive messages and print them, a line each.

    Each message is acknowledged after its line has been written, so none is lost if this program or its
    reader dies. Without --follow, --all or --max it takes one message. A content that is text is printed
    as it is; --raw prints JSON, --json the whole message.

    \b
    Examples:
      windlass receive orders
      windlass receive orders --follow | while read -r line; do echo "got $line"; done
      windlass receive orders --all --raw > orders.ndjson
      windlass receive orders --no-ack --lease 5m --json    # it has the receipt
    """
    if follow and everything:
        raise typer.BadParameter(
            "it ends when the queue is empty, --follow never; take one", param_hint="--all"
        )
    limit = most if most is not None else (None if follow or everything else 1)
    show = message_json if json else raw_line if raw else content_line
    count = 0
    try:
        with connect(server, key) as client, termination_as_interrupt():
            queue = client.queue(name)
            patience = 0.0 if follow else wait or 0.0
            while limit is None or count < limit:
                size = batch if limit is None else min(batch, limit - count)
                messages = _wait_for(queue, size, lease, patience)
                client.retry = Retry()
                if messages:
                    _hand_over(queue, messages, [show(message) for message in messages], acknowledge)
                    count += len(messages)
                elif not follow:
                    break
                patience = _POLL if follow else wait or 0.0
    except typer.Exit as end:
        if end.exit_code == 130 and follow:
            raise typer.Exit(0) from None
        raise
    if count == 0:
        note(f"No message is ready in {name}.")


def _wait_for(queue: Queue, most: int, lease: float | None, wait: float) -> list[LeasedMessage]:
    """Up to `most` messages; nothing when none came within `wait` seconds, in as many polls as it takes."""
    deadline = time.monotonic() + wait
    while True:
        left = max(0.0, deadline - time.monotonic())
        messages = queue.receive_batch(max=most, lease=lease, wait=min(left, LONGEST_WAIT))
        if messages or time.monotonic() >= deadline:
            return messages
        # An empty answer before its time comes from a server that is stopping: do not storm it.
        time.sleep(min(_REST, max(0.0, deadline - time.monotonic())))


def _hand_over(
    queue: Queue, messages: Sequence[LeasedMessage], lines: Sequence[str], acknowledge: bool
) -> None:
    """Write the lines, then acknowledge. If the writing fails, the messages are given back."""
    with ExitStack() as held:
        if acknowledge:
            for message in messages:
                held.enter_context(message)
        for line in lines:
            print(line)
        sys.stdout.flush()
        if acknowledge:
            results = queue.acknowledge_many(messages)
            lost = sum(result.status == "stale" for result in results)
            if lost:
                note(f"The lease of {lost} printed messages had run out: they will come again.")
