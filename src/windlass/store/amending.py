"""A queue's settings behind a change of some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from windlass.errors import Conflict
from windlass.message import Amendment, QueueSettings


def changed(old: QueueSettings, changes: Mapping[str, Any]) -> QueueSettings:
    """`old` with other values for those named. Raises Conflict, as an Amendment says."""
    sqs = changes.get("sqs")
    if isinstance(sqs, Amendment):
        changes = {**changes, "sqs": _amended(old.sqs, sqs)}
    return msgspec.structs.replace(old, **changes)


def _amended(old: Mapping[str, str], amendment: Amendment) -> dict[str, str]:
    for name, value in amendment.was.items():
        if old.get(name) != value:
            raise Conflict("Somebody else changed this queue at the same time: try again.")
    entries = {**old, **amendment.entries}
    return {name: value for name, value in entries.items() if value is not None}
