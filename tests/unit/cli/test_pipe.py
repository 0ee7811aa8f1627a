"""Lines from a pipe become batches, and every line can be told by its number."""

from __future__ import annotations

import os

import pytest

from windlass.cli.pipe import Batch, batches, read_lines
from windlass.client.errors import NotSent

MEBIBYTE = 1024 * 1024


def text_of(line: bytes) -> str | None:
    if line == b"bad":
        raise NotSent("it is bad")
    return line.decode() or None


def cut(lines: list[bytes | None], most: int = 1000) -> list[Batch]:
    return list(batches(lines, text_of, most))


def through_a_pipe(data: bytes) -> list[bytes]:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    try:
        return [line for line in read_lines(reader) if line is not None]
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\na\n", [b"", b"", b"a"]),
        ("ä\r\n\u2028x\n".encode(), ["ä\r".encode(), "\u2028x".encode()]),
    ],
)
def test_only_a_line_feed_ends_a_line(data: bytes, lines: list[bytes]) -> None:
    assert through_a_pipe(data) == lines


def test_a_pause_of_the_input_is_told() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"a\nb")
        lines = read_lines(reader)
        assert next(lines) == b"a"
        assert next(lines) is None, "a pause: the writer has not closed and there is nothing to read"
        os.write(writer, b"c\n")
        assert next(lines) == b"bc"
        os.close(writer)
        assert list(lines) == []
    finally:
        os.close(reader)


def test_batches_are_full_or_end_at_a_pause() -> None:
    found = cut([b"1", b"2", b"3", None, None, b"4", b"5"], most=2)
    assert [(batch.first, batch.last, batch.bodies) for batch in found] == [
        (1, 2, ["1", "2"]),
        (3, 3, ["3"]),
        (4, 5, ["4", "5"]),
    ]
    assert sum(batch.input_bytes for batch in found) == 10


def test_lines_without_a_message_still_count() -> None:
    (batch,) = cut([b"1", b"", b"", b"2"])
    assert (batch.first, batch.last, batch.bodies) == (1, 4, ["1", "2"])


def test_a_batch_stays_within_16_mib() -> None:
    line = b"x" * MEBIBYTE
    assert [len(batch.bodies) for batch in cut([line] * 31)] == [15, 15, 1]


def test_what_comes_before_a_bad_line_is_handed_out_first() -> None:
    """Planted defect: raising at once would leave the good lines before it unsent and uncounted."""
    found = batches([b"1", b"2", b"bad", b"4"], text_of, 1000)
    assert next(found).bodies == ["1", "2"]
    with pytest.raises(NotSent, match="line 3: it is bad"):
        next(found)
