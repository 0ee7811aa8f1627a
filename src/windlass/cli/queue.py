"""windlass queue: make queues, look at them, change them, empty them."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from windlass.cli import receive, send
from windlass.cli.connect import Json, Key, Name, Server, connect
from windlass.cli.output import (
    content_line,
    message_json,
    note,
    number,
    print_fields,
    print_json,
    print_table,
    seconds,
    time,
)
from windlass.cli.queue_settings import (
    DeadLetter,
    DedupWindowSeconds,
    HistorySeconds,
    LeaseSeconds,
    MaxDeliveries,
    MaxLength,
    MaxMessageBytes,
    OutcomeTtlSeconds,
    RetentionSeconds,
    settings_of,
)
from windlass.client import QueueInfo, QueueStats
from windlass.client.transport import DEFAULT_URL

app = typer.Typer(
    help="Make queues, look at them, change them, empty them.", no_args_is_help=True, rich_markup_mode=None
)


class State(StrEnum):
    """The states a living message can be in."""

    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"
    BLOCKED = "blocked"
    DEAD = "dead"


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def create(
    name: Name,
    lease_seconds: LeaseSeconds = None,
    max_deliveries: MaxDeliveries = None,
    dead_letter: DeadLetter = None,
    max_length: MaxLength = None,
    max_message_bytes: MaxMessageBytes = None,
    retention_seconds: RetentionSeconds = None,
    dedup_window_seconds: DedupWindowSeconds = None,
    history_seconds: HistorySeconds = None,
    outcome_ttl_seconds: OutcomeTtlSeconds = None,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Create a queue. It may exist already, with these settings.

    \b
    Examples:
      windlass queue create orders
      windlass queue create orders --max-deliveries 5 --dead-letter orders-dead --lease-seconds 2m
    """
    settings = settings_of(
        lease_seconds, max_deliveries, dead_letter, max_length, max_message_bytes,
        retention_seconds, dedup_window_seconds, history_seconds, outcome_ttl_seconds,
    )  # fmt: skip
    with connect(server, key) as client:
        info = client.create_queue(name, **settings)
        if json:
            print_json(info)
        else:
            print(f"Queue {info.name} is there.")


@app.command("list")
def list_queues(
    prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only names that begin so.")] = "",
    counts: Annotated[
        bool, typer.Option("--counts", help="How many messages each holds; asks once for each queue.")
    ] = False,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """List the queues, by name.

    \b
    Examples:
      windlass queue list
      windlass queue list orders- --counts
      windlass queue list --json | jq -r '.[].name'
    """
    with connect(server, key) as client:
        found: list[QueueInfo] = list(client.queues(prefix))
        if counts:
            found = [client.queue(queue.name).show() for queue in found]
        if json:
            print_json(found)
        elif not found:
            note("There are no queues." if not prefix else f"No queue's name begins with {prefix}.")
        elif counts:
            header = ("NAME", "READY", "DELAYED", "LEASED", "BLOCKED", "DEAD", "OLDEST", "")
            print_table(header, [_counts_row(queue) for queue in found if isinstance(queue, QueueStats)])
        else:
            print_table(
                ("NAME", "LEASE", "DELIVERIES", "DEAD LETTERS", "MAX LENGTH", ""),
                [_settings_row(queue) for queue in found],
            )


def _settings_row(queue: QueueInfo) -> tuple[str, ...]:
    return (
        queue.name,
        seconds(queue.lease_seconds),
        number(queue.max_deliveries),
        queue.dead_letter or "-",
        number(queue.max_length),
        _paused(queue),
    )


def _counts_row(queue: QueueStats) -> tuple[str, ...]:
    counts = (queue.ready, queue.delayed, queue.leased, queue.blocked, queue.dead)
    return (queue.name, *map(number, counts), seconds(queue.oldest_age_seconds), _paused(queue))


def _paused(queue: QueueInfo) -> str:
    return "paused" if queue.paused else ""


@app.command()
def show(name: Name, server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Show a queue's counts, rates and settings.

    \b
    Examples:
      windlass queue show orders
      windlass queue show orders --json | jq .ready
    """
    with connect(server, key) as client:
        queue = client.queue(name).show()
        if json:
            print_json(queue)
            return
        print_fields(
            [
                ("queue", f"{queue.name} (paused)" if queue.paused else queue.name),
                ("ready", number(queue.ready)),
                ("delayed", number(queue.delayed)),
                ("leased", number(queue.leased)),
                ("blocked", number(queue.blocked)),
                ("dead", number(queue.dead)),
                ("oldest", seconds(queue.oldest_age_seconds)),
                ("in", f"{queue.in_rate:.1f}/s"),
                ("out", f"{queue.out_rate:.1f}/s"),
                ("created", time(queue.created_at)),
                *_setting_fields(queue),
            ]
        )


def _setting_fields(queue: QueueInfo) -> list[tuple[str, str]]:
    return [
        ("lease", seconds(queue.lease_seconds)),
        ("max deliveries", number(queue.max_deliveries)),
        ("dead letters", queue.dead_letter or "-"),
        ("max length", number(queue.max_length)),
        ("max message", f"{queue.max_message_bytes:,} bytes"),
        ("retention", seconds(queue.retention_seconds)),
        ("dedup window", seconds(queue.dedup_window_seconds)),
        ("history", seconds(queue.history_seconds)),
        ("outcomes kept", seconds(queue.outcome_ttl_seconds)),
    ]


@app.command()
def update(
    name: Name,
    lease_seconds: LeaseSeconds = None,
    max_deliveries: MaxDeliveries = None,
    dead_letter: DeadLetter = None,
    max_length: MaxLength = None,
    max_message_bytes: MaxMessageBytes = None,
    retention_seconds: RetentionSeconds = None,
    dedup_window_seconds: DedupWindowSeconds = None,
    history_seconds: HistorySeconds = None,
    outcome_ttl_seconds: OutcomeTtlSeconds = None,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Change settings of a queue; those not named stay. "none" takes a limit away.

    \b
    Examples:
      windlass queue update orders --lease-seconds 5m
      windlass queue update orders --max-length none --dead-letter none
    """
    settings = settings_of(
        lease_seconds, max_deliveries, dead_letter, max_length, max_message_bytes,
        retention_seconds, dedup_window_seconds, history_seconds, outcome_ttl_seconds,
    )  # fmt: skip
    if not settings:
        raise typer.BadParameter("name at least one setting to change, such as --lease-seconds 5m")
    with connect(server, key) as client:
        info = client.queue(name).update(**settings)
        if json:
            print_json(info)
        else:
            print_fields(_setting_fields(info))


@app.command()
def peek(
    name: Name,
    most: Annotated[int, typer.Option("--max", metavar="N", min=1, max=1000, help="How many.")] = 10,
    state: Annotated[State, typer.Option(help="Which messages.")] = State.READY,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Look at the first messages without taking them.

    With --json, one message a line.

    \b
    Examples:
      windlass queue peek orders
      windlass queue peek orders --state dead --json
    """
    with connect(server, key) as client:
        messages = client.queue(name).peek(max=most, state=state.value)
        if json:
            for message in messages:
                print(message_json(message))
        elif not messages:
            note(f"No message is {state} in {name}.")
        else:
            rows = [
                (time(message.enqueued_at), str(message.deliveries), message.id, content_line(message))
                for message in messages
            ]
            print_table(("SENT", "DELIVERIES", "ID", "CONTENT"), rows)


@app.command()
def purge(
    name: Name, yes: Yes = False, server: Server = DEFAULT_URL, key: Key = None, json: Json = False
) -> None:
    """Remove every message of a queue, leased ones too.

    \b
    Examples:
      windlass queue purge orders
      windlass queue purge orders --yes
    """
    with connect(server, key) as client:
        confirm(yes, f"Remove all messages of {name}? They cannot be brought back.")
        purged = client.queue(name).purge()
        if json:
            print_json({"purged": purged})
        else:
            print(f"{purged:,} removed")


@app.command()
def redrive(
    name: Name,
    most: Annotated[int | None, typer.Option("--max", metavar="N", min=1, help="At most so many.")] = None,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Make dead messages ready again, at the end of their queue.

    Named for a queue, it brings back that queue's dead messages; named for a dead-letter queue, it sends
    its messages back where they came from.

    \b
    Examples:
      windlass queue redrive orders
      windlass queue redrive orders-dead --max 10
    """
    with connect(server, key) as client:
        redriven = client.queue(name).redrive(max=most)
        if json:
            print_json({"redriven": redriven})
        else:
            print(f"{redriven:,} ready again")


@app.command()
def pause(name: Name, server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Hand out nothing until the queue is resumed; sends go on.

    \b
    Example:
      windlass queue pause orders
    """
    with connect(server, key) as client:
        info = client.queue(name).pause()
        if json:
            print_json(info)
        else:
            print(f"{name} is paused; go on with: windlass queue resume {name}")


@app.command()
def resume(name: Name, server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Hand out messages again after a pause.

    \b
    Example:
      windlass queue resume orders
    """
    with connect(server, key) as client:
        info = client.queue(name).resume()
        if json:
            print_json(info)
        else:
            print(f"{name} hands out messages")


@app.command()
def delete(
    name: Name, yes: Yes = False, server: Server = DEFAULT_URL, key: Key = None, json: Json = False
) -> None:
    """Delete a queue and every message in it.

    \b
    Examples:
      windlass queue delete orders
      windlass queue delete orders --yes
    """
    with connect(server, key) as client:
        confirm(yes, f"Delete {name} and all its messages? They cannot be brought back.")
        client.queue(name).delete()
        if json:
            print_json({"deleted": name})
        else:
            print(f"{name} deleted")


def confirm(yes: bool, question: str) -> None:
    """Ask on a terminal; where nobody can answer, --yes is required."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody is there to confirm; add --yes", param_hint="--yes")
    if not typer.confirm(question, err=True):
        note("Nothing was done.")
        raise typer.Exit(1)


app.command()(send.send)
app.command()(receive.receive)
