"""A pipe of lines turned into batches of messages."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from windlass.client.calls import MAX_BATCH_BYTES
from windlass.client.errors import NotSent

_LULL = 0.05
"""Seconds without input after which what has been read is sent: `tail -f log | windlass send` flows."""

_BLOCK = 1 << 18


@dataclass
class Batch:
    """Messages to send at once, and the input they came from; lines are counted from 1."""

    first: int
    last: int = 0
    bodies: list[str] = field(default_factory=list)
    input_bytes: int = 0


def read_lines(descriptor: int) -> Iterator[bytes | None]:
    """Lines without their line breaks, and None whenever the input pauses."""
    tail = b""
    while True:
        if not select.select([descriptor], [], [], _LULL)[0]:
            yield None
            select.select([descriptor], [], [])
        block = os.read(descriptor, _BLOCK)
        if not block:
            break
        *whole, tail = (tail + block).split(b"\n")
        yield from whole
        if len(tail) > MAX_BATCH_BYTES:
            # No message can be this long. Hand it over now, to be refused, instead of filling the memory.
            break
    if tail:
        yield tail


def batches(
    lines: Iterable[bytes | None], body_of: Callable[[bytes], str | None], most: int
) -> Iterator[Batch]:
    """Batches of at most `most` messages and 16 MiB; a pause of the input ends one early.

    `body_of` gives a message's JSON, or None for a line that holds none, and raises NotSent for a bad one;
    that is raised again, with the line's number, after the batch before it has been handed out.
    """
    batch, size, number = Batch(first=1), 0, 0
    for line in lines:
        if line is None:
            if batch.bodies:
                yield batch
                batch, size = Batch(first=number + 1), 0
            continue
        number += 1
        try:
            body = body_of(line)
        except NotSent as error:
            if batch.bodies:
                yield batch
            raise NotSent(f"line {number}: {error}") from error
        length = len(body.encode()) + 1 if body is not None else 0
        if batch.bodies and (len(batch.bodies) == most or size + length > MAX_BATCH_BYTES - 32):
            yield batch
            batch, size = Batch(first=number), 0
        if body is not None:
            batch.bodies.append(body)
        batch.last = number
        batch.input_bytes += len(line) + 1
        size += length
    if batch.bodies:
        yield batch
