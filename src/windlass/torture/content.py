"""The messages of the storm: each says who it is and how long, so that damage shows."""

from __future__ import annotations

import re


def content(token: str, size: int) -> str:
    """The message for a token: it says how long it is, so that damage shows."""
    return f"{token}/{size}/" + "x" * size


def token_of(received: object) -> str:
    """The token of a message; a text that matches no token if it is not as it was sent."""
    match = re.fullmatch(r"([\w-]+)/(\d+)/(x*)", received) if isinstance(received, str) else None
    if match is None or len(match[3]) != int(match[2]):
        return f"damaged: {str(received)[:60]!r}"
    return match[1]
