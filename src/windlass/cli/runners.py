"""windlass runners: who takes jobs."""

from __future__ import annotations

from collections.abc import Iterable

from windlass.cli.connect import Json, Key, Server, connect
from windlass.cli.output import note, number, print_json, print_table, seconds
from windlass.client import Client, WindlassError
from windlass.client.transport import DEFAULT_URL

_THERE = 60.0
"""Seconds of silence after which a runner does not look as if it would take a job."""


def runners(server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """List the runners that may take jobs, and how many each holds.

    A runner is forgotten a week after its last sign of life.

    \b
    Examples:
      windlass runners
      windlass runners --json | jq -r '.[] | select(.seconds_ago < 60) | .name'
    """
    with connect(server, key) as client:
        found = client.jobs.runners()
        if json:
            print_json(found)
        elif not found:
            note("There are no runners. " + how_to_start(client))
        else:
            print_table(
                ("RUNNER", "NAME", "LABELS", "JOBS", "SEEN"),
                [
                    (
                        runner.runner_id,
                        runner.name,
                        ",".join(runner.labels) or "-",
                        number(runner.jobs),
                        f"{seconds(round(runner.seconds_ago))} ago",
                    )
                    for runner in found
                ],
            )


def how_to_start(client: Client) -> str:
    return f"Start one with: windlass runner --server {client.url}   (the server's log says the token)"


def say_if_nobody(client: Client, labels: Iterable[str] = ()) -> None:
    """A remark where no runner is there that would take a job with these labels. Never an error."""
    asked = frozenset(labels)
    try:
        there = [runner for runner in client.jobs.runners() if runner.seconds_ago < _THERE]
    except WindlassError:  # this key may not look, say
        return
    if not any(asked <= frozenset(runner.labels) for runner in there):
        which = f" that offers {', '.join(sorted(asked))}" if asked else ""
        note(f"There is no runner{which} just now: it waits for one. {how_to_start(client)}")
