"""windlass store: the store of a server that is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from windlass.cli.bar import bar
from windlass.cli.connect import Json, fail, termination_as_interrupt
from windlass.cli.output import note, number, print_json, print_table, seconds, shown
from windlass.errors import StartError, WindlassError

if TYPE_CHECKING:
    from windlass.store import Report
    from windlass.store.copying import Compared

app = typer.Typer(help="Move a store to another place.", no_args_is_help=True, rich_markup_mode=None)

_MOST_SHOWN = 50
"""Queues of a table; of more only those that differ."""
_COLUMNS = {
    "ready": "READY",
    "leased": "LEASED",
    "delayed": "DELAYED",
    "blocked": "BLOCKED",
    "dead": "DEAD",
    "records": "RECORDS",
    "dedup_ids": "DEDUP IDS",
    "idempotency_keys": "IDEMPOTENCY KEYS",
}


@app.callback()
def _store() -> None:
    """Move a store to another place."""  # with a callback, one command alone keeps its name


@app.command()
def copy(
    source: Annotated[
        str,
        typer.Argument(metavar="FROM", help="A data directory, or the URL of a Redis.", show_default=False),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TO", help="The same, with nothing in it yet.", show_default=False),
    ],
    json: Json = False,
) -> None:
    """Copy a whole store, from SQLite to Redis, back, or to another of its kind, and compare both.

    FROM and TO are each a data directory or a URL as of `windlass serve --store`. No server may run on FROM,
    which stays as it is; TO must hold nothing. All goes along: queues, messages with their leases, lives and
    dedup ids, records, Idempotency-Keys, API keys, runners, and the secret under which ids, receipts and job
    ids are valid. The judge's and the products' databases and the judge's files are not the store: they stay
    in the data directory, or in PostgreSQL.

    At the end everything is read back from TO and compared. The exit status is 1 where anything differs or it
    came to no end; then TO is refused by `windlass serve`, which says how to empty it to begin again.

    \b
    Examples:
      windlass store copy /var/lib/windlass redis://10.0.0.7/0?prefix=shop
      windlass store copy redis://10.0.0.7/0?prefix=shop /var/lib/windlass-2 --json
    """
    from windlass import logs  # the client commands start faster without
    from windlass.store import copy_store

    logs.configure("console", quiet=True)
    try:
        with termination_as_interrupt(), bar(1.0, "copied and compared") as show:
            report = copy_store(source, target, lambda done, total: show(done / max(1, total)))
    except KeyboardInterrupt:
        note("windlass: Interrupted. What was begun of TO is refused by `windlass serve`; FROM is as it was.")
        raise typer.Exit(130) from None
    except StartError as error:
        fail(error.detail)
    except WindlassError as error:
        fail(error.detail, "What was begun of TO is refused by `windlass serve`; FROM is as it was.")
    if json:
        print_json(report_json(report))
    else:
        _show(report)
    if not report.same:
        raise typer.Exit(1)


def report_json(report: Report) -> dict[str, object]:
    """A report as programs read it."""

    def side_by_side(compared: Compared) -> dict[str, object]:
        return {"from": compared.source, "to": compared.target, "same": compared.same}

    return {
        "same": report.same,
        "messages": report.messages,
        "renumbered": report.renumbered,
        "letters": report.letters,
        "dropped": report.dropped,
        "seconds": report.seconds,
        "installation": side_by_side(report.installation),
        "queues": [
            {"queue": queue.name, **side_by_side(queue), "same_order": queue.same_order}
            for queue in report.queues
        ],
    }


def _show(report: Report) -> None:
    queues = report.queues
    listed = queues if len(queues) <= _MOST_SHOWN else [queue for queue in queues if not queue.same]
    if listed:
        print_table(("QUEUE", *_COLUMNS.values(), "ORDER", ""), [_row(queue) for queue in listed])
    if len(listed) < len(queues):
        print(f"{len(queues) - len(listed):,} other queues are the same on both sides.")
    once = report.installation
    for name in ("queues", "keys", "runners"):
        print(f"{name:<8} {_cell(once, name)}")
    if not once.same:
        note("The secret, the queues' settings, keys or runners differ.")
    for sentence in _remarks(report):
        note(sentence)
    took = f"{report.messages:,} messages in {seconds(report.seconds)}"
    if report.same:
        note(f"{took}, the same on both sides. Use TO from now on. FROM is as it was: let no server open it.")
    else:
        note(
            f"windlass: {took}; what differs is marked. TO is refused by `windlass serve`; FROM is as it was."
        )


def _row(queue: Compared) -> Sequence[str]:
    order = "same" if queue.same_order else "differs"
    return (
        shown(queue.name),
        *(_cell(queue, name) for name in _COLUMNS),
        order,
        "" if queue.same else "DIFFERS",
    )


def _cell(compared: Compared, name: str) -> str:
    source, target = compared.source[name], compared.target[name]
    return number(source) if source == target else f"{source:,} != {target:,}"


def _remarks(report: Report) -> list[str]:
    """What did not stay as it was, and could not."""
    remarks = []
    if report.renumbered:
        remarks.append(
            f"{report.renumbered:,} messages had a number that one of another queue had, too: they have new"
            " ones, so their ids and receipts are others now."
        )
    if report.letters:
        remarks.append(
            f"{report.letters:,} messages of dead-letter queues are leased: whoever has them gets them again"
            " when the lease is over, as their receipts may not be known any more."
        )
    if report.dropped:
        remarks.append(f"{report.dropped:,} records of queues that were deleted before were left out.")
    return remarks
