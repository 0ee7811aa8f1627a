"""What stores refuse of queues, in the same words whatever the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windlass.errors import Conflict, Invalid, QueueExists, QueueInUse, QueueNotFound
from windlass.message import QueueSettings


def not_found(name: str) -> QueueNotFound:
    return QueueNotFound(f"There is no queue named {name[:128]!r}. Create it with POST /queues.")


def in_use(name: str, by: str) -> QueueInUse:
    return QueueInUse(f"Queue {by!r} names {name!r} as its dead letter. Change that first.")


def purged_lately(name: str) -> Conflict:
    return Conflict(f"Queue {name!r} has just been purged.")


def own_letter() -> Invalid:
    return Invalid("A queue cannot be its own dead letter.", field="dead_letter")


def no_letter(name: str | None) -> Invalid:
    return Invalid(
        f"There is no queue named {name!r}: create the dead-letter queue first.", field="dead_letter"
    )


def compare(name: str, settings: QueueSettings, named: Mapping[str, Any]) -> None:
    """Raise QueueExists where a setting of queue `name` is another one than is named."""
    for setting, value in named.items():
        found = getattr(settings, setting)
        if found != value:
            raise QueueExists(
                f"Queue {name!r} exists with {setting} = {found!r}, not {value!r}."
                " Change it with PATCH, or leave the setting out.",
                field=setting,
            )
