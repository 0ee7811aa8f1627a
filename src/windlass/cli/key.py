"""windlass key: API keys. Beside a live server through its socket in the data directory."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from windlass.errors import StartError, WindlassError

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)

DataDir = Annotated[Path | None, typer.Option(help="The server's data directory [default: data].")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    scope: Annotated[
        list[str],
        typer.Option(
            help="all, or send:QUEUE, receive:QUEUE, admin:QUEUE; QUEUE may end in *. Repeat for more."
        ),
    ],
    name: Annotated[str, typer.Option(help="Who it is for; shown in a message's life.")] = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, once, with the pair for clients of SQS. Only its hash is kept.

    As soon as one key exists, every request needs one.

    Example: windlass key create --scope send:orders --scope receive:orders --name shop
    """
    made = _do({"do": "create_key", "name": name, "scopes": scope}, data_dir)
    if as_json:
        typer.echo(json.dumps(made))
    else:
        typer.echo(made["key"])
        typer.echo(
            f"Key {made['id']} ({', '.join(made['scopes'])}). It is shown only now: keep it,"
            " and send it as `Authorization: Bearer ...` or WINDLASS_KEY.\n"
            "Clients of SQS take this pair in its place, shown only now too:\n"
            f"AWS_ACCESS_KEY_ID={made['access_key_id']}\n"
            f"AWS_SECRET_ACCESS_KEY={made['secret_access_key']}",
            err=True,
        )


@app.command("list")
def list_keys(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the keys: ids, names and scopes.

    Example: windlass key list
    """
    keys = _do({"do": "list_keys"}, data_dir)["keys"]
    if as_json:
        typer.echo(json.dumps(keys))
        return
    for key in keys:
        typer.echo(f"{key['id']}  {key['name']:<20}  {', '.join(key['scopes'])}")
    if not keys:
        typer.echo("No keys: who reaches the server may use it.", err=True)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `windlass key list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Make a key worthless, at once.

    Example: windlass key revoke 1a2b3c4d
    """
    _do({"do": "revoke_key", "id": key_id}, data_dir)
    typer.echo(f"Key {key_id} is revoked.")


def _do(command: dict[str, Any], data_dir: Path | None) -> dict[str, Any]:
    """Ask the server that runs on the directory, or open the directory where none does."""
    from windlass import logs, settings  # the client commands start faster without
    from windlass.server import control
    from windlass.server.app import Windlass

    logs.configure("console", quiet=True)
    try:
        wanted = settings.read(data_dir=data_dir)
        answer = control.ask(wanted.data_dir, command)
        if answer is None:
            if command["do"] != "create_key" and not wanted.data_dir.exists():
                raise StartError(f"There is no data directory {wanted.data_dir}: name it with --data-dir.")

            async def alone() -> dict[str, Any]:
                app = Windlass(wanted)
                app.open()
                try:
                    return await control.act(app, command)
                finally:
                    await app.close()

            answer = asyncio.run(alone())
    except WindlassError as error:
        answer = {"error": error.detail}
    if "error" in answer:
        typer.echo(f"windlass: {answer['error']}", err=True)
        raise typer.Exit(1)
    return answer
