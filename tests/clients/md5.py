"""The MD5 that SQS gives of a message's attributes, computed as its developer guide says."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import md5
from typing import Any


def of_body(body: str) -> str:
    return md5(body.encode()).hexdigest()


def of_attributes(attributes: Mapping[str, Mapping[str, Any]]) -> str:
    digest = md5()
    for name, value in sorted(attributes.items()):
        binary = value["DataType"].startswith("Binary")
        content = value["BinaryValue"] if binary else value["StringValue"].encode()
        digest.update(_sized(name.encode()) + _sized(value["DataType"].encode()))
        digest.update((b"\2" if binary else b"\1") + _sized(content))
    return digest.hexdigest()


def _sized(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content
