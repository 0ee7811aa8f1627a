"""What a queue may be named, and what its settings may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from windlass.errors import Forbidden, Invalid
from windlass.message import RESERVED

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"

_name = re.compile(NAME)


def check_name(name: str) -> None:
    """Raise Invalid for what is no name, Forbidden for one that is the product's own."""
    if not _name.match(name):
        shown = name if len(name) <= 40 else name[:40] + "..."
        raise Invalid(
            f"{shown!r} is no queue name: 1 to 128 letters, digits, dots, dashes and underscores,"
            " beginning with a letter or digit.",
            field="name",
        )
    check_own(name)


def check_own(name: str) -> None:
    """Raise Forbidden where `name` is the product's own queue."""
    if name.startswith(RESERVED):
        raise Forbidden(
            f"Queues that begin with {RESERVED!r} are Windlass's own: look at them, no more.", field="name"
        )


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise Invalid for settings that contradict each other. Ranges are checked where they are read."""
    if (
        settings.get("dead_letter") is not None
        and "max_deliveries" in settings
        and settings["max_deliveries"] is None
    ):
        raise Invalid(
            "A dead_letter without max_deliveries would never be used: name both.", field="max_deliveries"
        )
