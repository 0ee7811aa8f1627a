"""Ids as the database has them: products are named by text, and a table may call them by numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


class Kind(Protocol):
    """What the keys of a table are. A key has one text, and a text that is not one's names no product."""

    def value(self, text: str) -> object | None:
        """The key of this text; None where no key can have it, so that there is nothing to ask for."""

    def text(self, value: object) -> str:
        """The text of a key."""


@dataclass(frozen=True, slots=True)
class TextKeys:
    """Text of up to `most` bytes of UTF-8. `padded`: CHAR(n) of PostgreSQL, which adds blanks to its end."""

    most: int | None = None
    padded: bool = False

    def value(self, text: str) -> object | None:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:  # a lone surrogate
            return None
        if not text or "\0" in text or (self.most is not None and size > self.most):
            return None
        return None if self.padded and text.endswith(" ") else text

    def text(self, value: object) -> str:
        return str(value).rstrip(" ") if self.padded else str(value)


@dataclass(frozen=True, slots=True)
class IntegerKeys:
    """Integers of so many bits, as decimal numbers: 7, and neither 007 nor +7."""

    bits: int

    def value(self, text: str) -> object | None:
        if not re.fullmatch("0|-?[1-9][0-9]{0,18}", text):
            return None
        value = int(text)
        return value if -(1 << self.bits - 1) <= value < 1 << self.bits - 1 else None

    def text(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class UuidKeys:
    """UUIDs in their one form: 36 characters, small letters."""

    def value(self, text: str) -> object | None:
        if not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text):
            return None
        return UUID(text)

    def text(self, value: object) -> str:
        return str(value)
