"""A queue's tags, kept with its settings as one JSON text. They mean nothing to Windlass."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

import msgspec

from windlass.message import QueueSettings
from windlass.server.sqs.errors import SqsError, missing

TAGS = "tags"
"""Under this name in `QueueSettings.sqs`: no attribute begins with a small letter."""
MAX_TAGS = 50
MAX_KEY = 128
MAX_VALUE = 256
_SYMBOLS = frozenset("_.:/=+-@'")
_decode = msgspec.json.Decoder(dict[str, str]).decode
_encode = msgspec.json.Encoder().encode


def of(settings: QueueSettings) -> dict[str, str]:
    """A queue's tags."""
    text = settings.sqs.get(TAGS)
    return _decode(text) if text else {}


def add(queue: str, old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """A queue's tags with more of them; a key that is there has another value then. Raises SqsError."""
    for key, value in new.items():
        _check_key(key)
        if len(value) > MAX_VALUE:
            raise _wrong(f"Tag values must be between 0 and {MAX_VALUE} characters in length.")
        _check_text(value)
    tags = {**old, **new}
    if len(tags) > MAX_TAGS:
        raise _wrong(f"Too many tags added for queue {queue}.")
    return tags


def add_some(queue: str, old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """As `add`, and there has to be one. Raises SqsError."""
    if not new:
        raise missing("Tags")
    return add(queue, old, new)


def remove(old: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """A queue's tags without those of these keys, which need not be there. Raises SqsError."""
    unwanted = set(keys)
    if not unwanted or not all(0 < len(key) <= MAX_KEY for key in unwanted):
        raise _wrong(f"Tag keys must be between 1 and {MAX_KEY} characters in length.")
    return {key: value for key, value in old.items() if key not in unwanted}


def kept(sqs: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """What SQS keeps of a queue, with these tags."""
    others = {name: value for name, value in sqs.items() if name != TAGS}
    return {**others, TAGS: _encode(tags).decode()} if tags else others


def _check_key(key: str) -> None:
    if not 0 < len(key) <= MAX_KEY:
        raise _wrong(f"Tag keys must be between 1 and {MAX_KEY} characters in length.")
    if key.lower().startswith("aws:"):
        raise _wrong("Tag keys that begin with aws: are reserved.")
    _check_text(key)


def _check_text(text: str) -> None:
    for character in text:
        if not (
            character.isalnum() or character in _SYMBOLS or unicodedata.category(character).startswith("Z")
        ):
            raise _wrong(
                "Tag keys and values may only contain unicode letters, digits, whitespace, or one of these"
                " symbols: _ . : / = + - @ '"
            )


def _wrong(why: str) -> SqsError:
    return SqsError("InvalidParameterValue", why)
