"""windlass doctor: what this host's sandbox is worth."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from windlass.cli.output import note, print_json
from windlass.errors import SandboxUnavailable

if TYPE_CHECKING:
    from windlass.runner.sandbox.doctor import Finding


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Try on this host, as the user you are, everything a hostile program is known to try in a sandbox.

    The exit status is 0 when nothing got out and every limit held, else 1. Run it as the user that will run
    the runner.

    \b
    Examples:
      sudo windlass doctor
      windlass doctor --json
    """
    try:
        enforces, missing, findings = asyncio.run(_examine(quiet=as_json))
    except SandboxUnavailable as error:
        if as_json:
            print_json({"available": False, "reason": error.detail, "enforces": {}, "findings": []})
        note(error.detail)
        raise typer.Exit(1) from None
    sound = all(enforces.values()) and all(finding.contained for finding in findings)
    if as_json:
        print_json({"available": True, "sound": sound, "enforces": enforces, "missing": missing,
                    "findings": findings})  # fmt: skip
    else:
        _show(enforces, missing, findings)
    if not sound:
        raise typer.Exit(1)


async def _examine(*, quiet: bool) -> tuple[dict[str, bool], dict[str, str], list[Finding]]:
    from rich.console import Console  # the other commands need none of it
    from rich.progress import Progress

    from windlass.runner.sandbox import open_sandbox
    from windlass.runner.sandbox.doctor import ESCAPES, examine

    console = Console(stderr=True, quiet=quiet)
    async with await open_sandbox(allow_weak=True) as sandbox:
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("escapes", total=len(ESCAPES))
            findings = await examine(sandbox, lambda _: progress.advance(bar))
        return dict(sandbox.enforces), dict(sandbox.missing), findings


def _show(enforces: dict[str, bool], missing: dict[str, str], findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    from windlass.runner.sandbox import CHECKS

    console = Console()
    table = Table(title="What a program tries in a box")
    for heading in ("escape", "it tries to", "result", "what it got"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        result = "[green]contained[/green]" if finding.contained else "[red]got through[/red]"
        table.add_row(finding.name, finding.tries, result, finding.detail)
    console.print(table)
    table = Table(title="What this host enforces")
    for heading in ("name", "", "what it means", "why not"):
        table.add_column(heading, overflow="fold")
    for name, meaning in CHECKS.items():
        table.add_row(name, "[green]yes[/green]" if enforces[name] else "[red]no[/red]", meaning,
                      missing.get(name, ""))  # fmt: skip
    console.print(table)
