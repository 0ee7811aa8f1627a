"""What acknowledged messages survive on Redis, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from windlass.store.redis.persistence import LEVELS, Level, Persistence

LOSES: dict[Level, str] = {
    "nothing": "all messages are lost: Redis has them in memory alone",
    "snapshots": "what was sent after the last snapshot is lost, and what was received since then comes back",
    "unsynced": "some 30 s of answers may be lost: nobody tells the system when to write to the disk",
    "everysec": "the last 2 s of answers may be lost: the disk is written to once a second",
    "always": "nothing is lost: it is on disk before the answer",
}
"""By what a server keeps by itself, when its machine loses power."""


class Survival(msgspec.Struct, frozen=True):
    """What happens to acknowledged messages, a sentence for each misfortune."""

    process_kill: str
    """Of Redis. That of Windlass harms none."""
    power_cut: str
    machine_loss: str
    """With its disk."""
    partition: str


def weakest(masters: Sequence[Persistence]) -> Level:
    """What all masters keep by themselves."""
    return min((master.level for master in masters), key=LEVELS.index)


def survival(masters: Sequence[Persistence], waited_for: int, on_disk: bool) -> Survival:
    """What survives where `waited_for` replicas of each master have it, `on_disk` even, before the answer."""
    level = weakest(masters)
    power_cut = LOSES[level]
    if level == "unsynced" and not all(master.told for master in masters):
        power_cut = "nobody knows how much is lost: the server does not tell when it writes to the disk"
    return Survival(
        _process_kill(level),
        power_cut,
        _machine_loss(masters, waited_for, on_disk),
        _partition(masters, waited_for),
    )


def _process_kill(level: Level) -> str:
    if level == "everysec":
        return "nothing is lost, unless the disk was slow: then the last 2 s of answers"
    return (
        "nothing is lost: it is in a file before the answer"
        if level in ("always", "unsynced")
        else LOSES[level]
    )


def _machine_loss(masters: Sequence[Persistence], waited_for: int, on_disk: bool) -> str:
    if not all(master.replicas for master in masters):
        return "what a machine had is lost with its disk: it has no replica"
    if waited_for:
        had = "a replica" if waited_for == 1 else f"{waited_for} replicas"
        return f"nothing is lost: {had} had it {'on disk' if on_disk else 'in memory'} before the answer" + (
            "" if waited_for == 1 else f", so that up to {waited_for} machines may be lost at once"
        )
    return (
        "what had not reached a replica is lost, as a rule the last moments, and what was received in them"
        " comes back"
    )


def _partition(masters: Sequence[Persistence], waited_for: int) -> str:
    followed = [master for master in masters if master.replicas]
    if not followed:
        return "nothing is lost; whoever does not reach Redis is answered 503"
    if all(len(master.replicas) <= waited_for for master in masters):
        return (
            "nothing is lost where one of the replicas that are connected now is promoted: all of them had it"
            " before the answer"
        )
    which = "a replica" if not waited_for else "a replica that did not have it"
    loosest = max(followed, key=lambda master: (_window(master) is None, _window(master) or 0))
    return (
        f"if {which} is promoted meanwhile, what the old master answered is lost, and what it handed out"
        f" comes back: {_bound(loosest)}"
    )


def _window(master: Persistence) -> float | None:
    """Seconds for which a master that is cut off goes on, None: for as long as it lasts."""
    bounds = [bound for bound in (master.node_timeout, _lag(master)) if bound]
    return min(bounds, default=None)


def _lag(master: Persistence) -> int | None:
    return master.max_lag if master.min_replicas and master.max_lag else None


def _bound(master: Persistence) -> str:
    window = _window(master)
    if window is None:
        return "as long as the partition lasts, since min-replicas-to-write is 0"
    if window == _lag(master):
        return (
            f"for about {window:g} s, where it is cut off with fewer than {master.min_replicas} replicas"
            " (min-replicas-max-lag)"
        )
    return f"for about {window:g} s, until it sees that it is cut off (cluster-node-timeout)"
