"""windlass status: is the server there, and what does it hold."""

from __future__ import annotations

from windlass.cli.connect import Json, Key, Server, connect
from windlass.cli.output import number, print_fields, print_json, seconds
from windlass.client.transport import DEFAULT_URL


def status(server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Say whether the server runs, and how much it holds.

    \b
    Examples:
      windlass status
      windlass status --server http://10.0.0.5:8000 --json
    """
    with connect(server, key) as client:
        answer = client.status()
        if json:
            print_json(answer)
            return
        print_fields(
            [
                ("server", client.url),
                ("status", answer.status),
                ("version", answer.version),
                ("up for", seconds(answer.uptime_seconds)),
                ("queues", number(answer.queues)),
                ("messages", number(answer.messages)),
                *((f"  {state}", number(count)) for state, count in answer.states.items()),
            ]
        )
