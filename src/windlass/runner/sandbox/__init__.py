"""Boxes in which foreign programs run: nothing gets out but what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from windlass.errors import SandboxWeak
from windlass.runner.sandbox.base import CHECKS, PLACE, Command, Fetch, Pair, Ran, Sandbox
from windlass.runner.sandbox.bubblewrap import Bubblewrap

__all__ = ["CHECKS", "PLACE", "Command", "Fetch", "Pair", "Ran", "Sandbox", "accepted", "open_sandbox"]


async def open_sandbox(*, allow_weak: bool = False, expose: Sequence[Path] = ()) -> Sandbox:
    """The sandbox of this host; `expose` are directories besides /usr that every box may read.

    Raises SandboxUnavailable where there is none, and SandboxWeak as `accepted` does.
    """
    return await accepted(await Bubblewrap.open(expose), allow_weak=allow_weak)


async def accepted(sandbox: Sandbox, *, allow_weak: bool) -> Sandbox:
    """The same sandbox, if it keeps all of CHECKS or `allow_weak`: then `enforces` tells what it keeps.

    Else it is closed, and SandboxWeak names what is not kept.
    """
    if sandbox.missing and not allow_weak:
        await sandbox.close()
        reasons = "; ".join(f"{CHECKS[check]} ({why})" for check, why in sandbox.missing.items())
        raise SandboxWeak(
            f"This sandbox is weak: not kept is that {reasons}. "
            "Give the runner what is missing, or accept less with --allow-weak-sandbox."
        )
    return sandbox
