"""The settings of a queue as options of the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from windlass.cli.durations import parse_count_or_none, parse_seconds, parse_seconds_or_none
from windlass.client import QueueSettings

LeaseSeconds = Annotated[
    str | None, typer.Option("--lease-seconds", metavar="TIME", help="Lease, when a receive names none (30).")
]
MaxDeliveries = Annotated[
    str | None,
    typer.Option("--max-deliveries", metavar="N|none", help="Deliveries until it is dead."),
]
DeadLetter = Annotated[
    str | None, typer.Option("--dead-letter", metavar="QUEUE|none", help="Where dead messages go.")
]
MaxLength = Annotated[
    str | None,
    typer.Option("--max-length", metavar="N|none", help="Messages it holds at most."),
]
MaxMessageBytes = Annotated[
    int | None, typer.Option("--max-message-bytes", metavar="N", help="Largest content (1048576).")
]
RetentionSeconds = Annotated[
    str | None,
    typer.Option("--retention-seconds", metavar="TIME|none", help="Messages live so long."),
]
DedupWindowSeconds = Annotated[
    str | None,
    typer.Option("--dedup-window-seconds", metavar="TIME", help="A dedup id counts so long (300)."),
]
HistorySeconds = Annotated[
    str | None, typer.Option("--history-seconds", metavar="TIME", help="Keep the life of ended messages (0).")
]
OutcomeTtlSeconds = Annotated[
    str | None, typer.Option("--outcome-ttl-seconds", metavar="TIME", help="Keep outcomes so long (3600).")
]


def settings_of(
    lease_seconds: str | None,
    max_deliveries: str | None,
    dead_letter: str | None,
    max_length: str | None,
    max_message_bytes: int | None,
    retention_seconds: str | None,
    dedup_window_seconds: str | None,
    history_seconds: str | None,
    outcome_ttl_seconds: str | None,
) -> QueueSettings:
    """The settings that were given; the word none stands for null where null is possible."""
    settings = QueueSettings()
    if lease_seconds is not None:
        settings["lease_seconds"] = parse_seconds(lease_seconds, "--lease-seconds")
    if max_deliveries is not None:
        settings["max_deliveries"] = parse_count_or_none(max_deliveries, "--max-deliveries")
    if dead_letter is not None:
        settings["dead_letter"] = None if dead_letter == "none" else dead_letter
    if max_length is not None:
        settings["max_length"] = parse_count_or_none(max_length, "--max-length")
    if max_message_bytes is not None:
        settings["max_message_bytes"] = max_message_bytes
    if retention_seconds is not None:
        settings["retention_seconds"] = parse_seconds_or_none(retention_seconds, "--retention-seconds")
    if dedup_window_seconds is not None:
        settings["dedup_window_seconds"] = parse_seconds(dedup_window_seconds, "--dedup-window-seconds")
    if history_seconds is not None:
        settings["history_seconds"] = parse_seconds(history_seconds, "--history-seconds")
    if outcome_ttl_seconds is not None:
        settings["outcome_ttl_seconds"] = parse_seconds(outcome_ttl_seconds, "--outcome-ttl-seconds")
    return settings
