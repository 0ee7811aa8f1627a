"""windlass products attack: see what look-ups of every kind cost the database."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windlass.cli.connect import Json, Key, Server, connect, fail
from windlass.cli.output import note, print_json
from windlass.client.transport import DEFAULT_URL

if TYPE_CHECKING:
    from rich.console import Console

    from windlass.attack import Kind, Plan, Report

_FORMATS = (".png", ".svg")
_MOST_CRAFTED = 100_000
_SHOWN = 5


def attack(
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long.")] = 20,
    rate: Annotated[int, typer.Option(min=1, max=100_000, help="Look-ups a second, at most.")] = 2000,
    connections: Annotated[int, typer.Option(min=1, max=256, help="Connections at a time.")] = 16,
    mix: Annotated[
        str,
        typer.Option(
            metavar="R:M:C",
            help="How many ids are real, missing and crafted: parts, such as 1:8:1 or 0:1:0.",
        ),
    ] = "40:40:20",
    ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Real ids, one a line.", show_default="the server's first thousand products"
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw a picture, too: FILE.png or FILE.svg.", show_default=False),
    ] = None,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Look up products that exist, products that do not, and ids crafted to get past a filter, for some time.

    It counts what that costs the server's database, by GET /metrics, and shows it beside what it would cost
    with nothing in front. Crafted ids have the hash of a real one in every filter that uses MurmurHash3
    without a key; crafting takes some seconds. It only reads, but it is load: aim it at a server of your own.

    The exit status is 1 where an id that is real was denied.

    \b
    Examples:
      windlass products attack
      windlass products attack --seconds 60 --rate 5000 --plot attack.svg
      windlass products attack --mix 0:1:0 --json | jq .roundtrip_reduction
    """
    from rich.console import Console

    from windlass.attack import Plan

    plan = Plan(seconds, rate, connections, _mix(mix))
    _check_plot(plot)
    known = _read_ids(ids)
    console = Console(stderr=True, quiet=json)
    with connect(server, key) as client:
        report = asyncio.run(_attack(plan, client.url, key, known, console))
    if plot is not None:
        from windlass.attack.plot import draw  # matplotlib takes a second

        try:
            draw(report, plot)
        except OSError as error:
            fail(f"the picture {plot} cannot be written: {error.strerror}")
    if json:
        print_json(report.as_json())
    else:
        from windlass.attack import display

        display.show(report)
    _remark(report)


async def _attack(plan: Plan, url: str, key: str | None, known: Sequence[str], console: Console) -> Report:
    from windlass.attack import Assault, Target, display
    from windlass.client.errors import NotSent

    target = Target(url, key, connections=plan.connections + 1)
    try:
        await target.counts()  # before some seconds of work
        real = known or await target.products()
        if not real:
            raise NotSent("the server has no products to attack; import some: windlass products import FILE")
        crafted = _craft(real, plan, console)
        with display.attacking(console, plan) as progress:
            return await Assault(plan, target, real, crafted, progress).run()
    finally:
        target.close()


def _craft(real: Sequence[str], plan: Plan, console: Console) -> list[str]:
    from windlass.attack import craft, display

    found: list[str] = []
    wanted = min(plan.crafted, _MOST_CRAFTED)
    with display.crafting(console, wanted) as progress:
        for id_ in craft(real):
            if len(found) >= wanted:
                break
            found.append(id_)
            if len(found) % 50 == 0:
                progress(len(found))
    return found


def _mix(text: str) -> dict[Kind, int]:
    from windlass.attack import KINDS

    try:
        parts = dict(zip(KINDS, map(int, text.split(":")), strict=True))
    except ValueError:
        parts = {}
    if not any(parts.values()) or not all(0 <= part <= 1000 for part in parts.values()):
        raise typer.BadParameter(
            f"{text!r} is not three whole numbers up to 1000, such as 40:40:20", param_hint="--mix"
        )
    return parts


def _read_ids(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        found = list(filter(None, file.read_text("utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="--ids") from None
    if not found:
        raise typer.BadParameter(f"there are no ids in {file}", param_hint="--ids")
    return found


def _check_plot(file: Path | None) -> None:
    """Say what is wrong before the attack, not after it."""
    if file is None:
        return
    if file.suffix not in _FORMATS:
        raise typer.BadParameter(f"{file} has to end in .png or .svg", param_hint="--plot")
    if not os.access(file.parent, os.W_OK):
        raise typer.BadParameter(f"{file.parent} is no directory that can be written", param_hint="--plot")
    if importlib.util.find_spec("matplotlib") is None:
        fail(
            "--plot needs matplotlib, which is not installed.",
            "Install it with: pip install 'windlass[plots]'",
        )


def _remark(report: Report) -> None:
    """What is odd about the figures; ends with 1 where a real product was denied."""
    sys.stdout.flush()
    others = report.requests - report.sent
    if others > 0.01 * report.sent:
        note(f"{others:,} of the look-ups counted were not ours: others used the server meanwhile.")
    elif others < -0.01 * report.sent:
        note(f"The server counted {-others:,} look-ups less than were sent: are there several of them?")
    for kind, tally in report.kinds.items():
        for failure, count in tally.failures.most_common(_SHOWN):
            note(f"{count:,} {kind} ids failed: {failure}")
    if report.denied:
        some = ", ".join(sorted(report.denied)[:_SHOWN])
        fail(
            f"{len(report.denied):,} ids that were said to be real got a 404: {some}",
            "Unless they were deleted meanwhile or the file names others, it is a fault: please report it.",
        )
