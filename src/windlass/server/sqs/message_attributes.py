"""Attributes of messages: what they may be, their MD5, and how a message's headers keep them.

A header and an attribute of type String are the same thing. Of any other type the header holds the text of
the value, base64 where that is binary, and one header more tells the types. Names that begin with `AWS.` are
no client's: there the headers keep what SQS knows of a message besides.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from windlass.server.sqs.errors import XML_CANNOT, SqsError, invalid
from windlass.server.sqs.requests import AttributeValue, MessageAttributes

OWN = "AWS."
"""How headers begin that are no attributes."""
TYPES = "AWS.Types"
"""The header with the types of attributes that are no String: JSON, by name."""
TRACE = "AWS.TraceHeader"
GROUP = "AWS.MessageGroupId"
DEDUPLICATION = "AWS.MessageDeduplicationId"
_STRING = "String"
_MOST = 10
_NAME = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)\Z")
_TYPE = re.compile(r"(String|Number|Binary)(?:\..{1,})?\Z", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?\Z")
"""Without a way back: of a million digits and a letter each would be tried as the last one."""
_MAX_TYPE = 256

_ALL = frozenset({"All", ".*", "*"})
"""What selects all attributes. The last is not in the API reference, and SQS takes it."""

Headers = dict[str, str]
_encode = msgspec.json.Encoder().encode
_types = msgspec.json.Decoder(dict[str, str]).decode
_headers = msgspec.json.Decoder(dict[str, str]).decode


def check(attributes: MessageAttributes) -> int:
    """The bytes that attributes count as: names, types and values. Raises SqsError."""
    if len(attributes) > _MOST:
        raise SqsError(
            "InvalidParameterValue",
            f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [{_MOST}].",
        )
    for name, value in attributes.items():
        if not _NAME.match(name) or name.lower().startswith(("aws.", "amazon.")):
            raise SqsError(
                "InvalidParameterValue",
                f"Invalid message attribute name {name[:256]!r}: 1 to 256 letters, digits,"
                " underscores, hyphens and periods, not beginning with AWS. or Amazon., with no period at"
                " its ends or beside another.",
            )
        _check(name, value)
    return size(attributes)


def size(attributes: MessageAttributes) -> int:
    """The bytes that attributes count as, whatever they are."""
    return sum(
        len(name.encode())
        + len(value.data_type.encode())
        + len((value.string_value or "").encode())
        + len(value.binary_value or b"")
        for name, value in attributes.items()
    )


def check_system(attributes: MessageAttributes) -> str | None:
    """The trace header among system attributes. Raises SqsError for whatever else there is."""
    for name, value in attributes.items():
        if name != "AWSTraceHeader":
            raise invalid("MessageSystemAttributes", name, "Only AWSTraceHeader may be sent.")
        if value.data_type != _STRING:
            raise SqsError("InvalidParameterValue", "The type of AWSTraceHeader has to be String.")
        _check(name, value)
        return value.string_value
    return None


def _check(name: str, value: AttributeValue) -> None:
    kind = value.data_type
    found = _TYPE.match(kind)
    if found is None or len(kind) > _MAX_TYPE:
        raise SqsError(
            "InvalidParameterValue",
            f"The type of message attribute {name!r} is {kind[:256]!r}: it has to be"
            " String, Number or Binary, or one of these with a label, as in String.uuid.",
        )
    if value.string_list_values or value.binary_list_values:
        raise SqsError(
            "UnsupportedOperation", "Lists as values of message attributes are not implemented by SQS."
        )
    if found[1] == "Binary":
        if not value.binary_value or value.string_value is not None:
            raise _without(name, kind, "BinaryValue")
        return
    text = value.string_value
    if not text or value.binary_value is not None:
        raise _without(name, kind, "StringValue")
    if XML_CANNOT.search(text) or XML_CANNOT.search(kind):
        raise SqsError(
            "InvalidParameterValue", f"Message attribute {name!r} has a character that is not allowed."
        )
    if found[1] == "Number" and not _NUMBER.match(text):
        raise SqsError(
            "InvalidParameterValue", f"Can't cast the value of message attribute {name!r} to a number."
        )


def _without(name: str, kind: str, field: str) -> SqsError:
    return SqsError(
        "InvalidParameterValue",
        f"The message attribute {name!r} of type {kind[:256]!r} must have a"
        f" {field} that is not empty, and no other value.",
    )


def to_headers(attributes: MessageAttributes) -> Headers:
    """The headers that keep attributes."""
    headers: Headers = {}
    types: Headers = {}
    for name, value in attributes.items():
        if value.data_type != _STRING:
            types[name] = value.data_type
        binary = value.binary_value
        headers[name] = value.string_value or "" if binary is None else b64encode(binary).decode()
    if types:
        headers[TYPES] = _encode(types).decode()
    return headers


def of_headers(packed: bytes | None) -> tuple[MessageAttributes, Headers]:
    """The attributes that headers (JSON) keep, and those headers that are no attributes."""
    if not packed or packed == b"{}":
        return {}, {}
    headers = _headers(packed)
    own = {name: headers.pop(name) for name in [*headers] if name.startswith(OWN)}
    types = _types_of(own.pop(TYPES, ""))
    return {name: _value(text, types.get(name, _STRING)) for name, text in headers.items()}, own


def _types_of(text: str) -> Mapping[str, str]:
    try:
        return _types(text) if text else {}
    except msgspec.DecodeError:  # somebody sent such a header over HTTP
        return {}


def _value(text: str, kind: str) -> AttributeValue:
    if kind.startswith("Binary"):
        try:
            return AttributeValue(kind, binary_value=b64decode(text, validate=True))
        except ValueError:
            return AttributeValue(_STRING, text)
    return AttributeValue(kind, text)


def _selection(names: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]] | None:
    """(names, beginnings of names); None: all."""
    if not _ALL.isdisjoint(names):
        return None
    return frozenset(names), tuple(name[:-2] for name in names if name.endswith(".*"))


_known_selection = lru_cache(maxsize=256)(_selection)


def selected(attributes: MessageAttributes, names: Sequence[str]) -> MessageAttributes:
    """Those attributes that a receive asks for: by name, `prefix.*`, `.*` or `All`.

    The dot is no part of the prefix: `col.*` selects `color`. What is no name of an attribute selects none.
    """
    # Who asks for more than a message can have is not remembered: it may be megabytes.
    selection = (_known_selection if len(names) <= _MOST else _selection)(tuple(names))
    if selection is None:
        return attributes
    exact, prefixes = selection
    return {name: value for name, value in attributes.items() if name in exact or name.startswith(prefixes)}


def md5(attributes: MessageAttributes) -> str:
    """The MD5 of attributes, as clients compute it: sorted by name, each part behind its length (32 bits,
    big-endian), and a byte that tells text (1) from bytes (2) before the value."""
    found = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        value = attributes[name]
        binary = value.binary_value
        mark, data = (b"\1", (value.string_value or "").encode()) if binary is None else (b"\2", binary)
        for part in (name.encode(), value.data_type.encode()):
            found.update(len(part).to_bytes(4) + part)
        found.update(mark + len(data).to_bytes(4) + data)
    return found.hexdigest()


def result(attributes: MessageAttributes) -> dict[str, dict[str, str | bytes]]:
    """Attributes as an answer has them."""
    return {
        name: {"StringValue": value.string_value or "", "DataType": value.data_type}
        if value.binary_value is None
        else {"BinaryValue": value.binary_value, "DataType": value.data_type}
        for name, value in attributes.items()
    }
