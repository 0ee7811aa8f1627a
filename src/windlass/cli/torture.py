"""windlass torture: kill a real server again and again under load, and check every promise."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Protocol(StrEnum):
    """What the clients speak."""

    HTTP = "http"
    SQS = "sqs"
    SQS_QUERY = "sqs-query"


def torture(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="A directory on the disk to test; a new folder is made in it. [default: a temporary one]"
        ),
    ] = None,
    kills: Annotated[int, typer.Option(min=1, help="How many times the server is killed.")] = 20,
    seed: Annotated[
        int | None, typer.Option(help="Repeat the choices of an earlier run. [default: a new one, printed]")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="No more kills after so many seconds. [default: no limit]")
    ] = None,
    senders: Annotated[int, typer.Option(min=1, help="Clients that send.")] = 8,
    consumers: Annotated[int, typer.Option(min=4, help="Clients that receive.")] = 12,
    protocol: Annotated[Protocol, typer.Option(help="What the clients speak.")] = Protocol.HTTP,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Kill a real server with SIGKILL again and again, under load, and check that it keeps its promises.

    The exit status is 0 when every promise was kept and 1 when not; the data and the log are then left for
    you to look at.
    """
    from rich.console import Console  # the other commands need none of it

    from windlass.torture import Plan, Report, Server, Storm, display

    plan = Plan(seed=random.randrange(2**32) if seed is None else seed, kills=kills, seconds=seconds,
                senders=senders, consumers=consumers, protocol=protocol.value)  # fmt: skip
    console = Console(stderr=True)
    try:
        if data_dir is not None:
            data_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="windlass-torture-", dir=data_dir))
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--data-dir") from None
    console.print(f"seed {plan.seed}, data in {folder}")
    with display.bar(console, plan) as progress:

        async def run() -> Report:
            return await Storm(plan, Server(folder / "data", folder), progress).run()

        report = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    else:
        display.show(report)
    if report.passed:
        shutil.rmtree(folder, ignore_errors=True)
        return
    console.print(f"the data and the server's log are kept in {folder}")
    raise typer.Exit(1)
