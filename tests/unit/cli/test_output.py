"""One line a message, whatever the message holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from windlass.cli.output import content_line, message_json, number, raw_line, seconds
from windlass.client import Message
from windlass.client.values import WireMessage

MOMENT = datetime(2026, 11, 21, 12, 0, 0, 250_000, UTC)


def holding(raw: str) -> Message:
    return Message("orders", WireMessage(id="m1", content=msgspec.Raw(raw.encode()), enqueued_at=MOMENT))


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ('"two ropes"', "two ropes"),
        ('"gr\\u00fcn"', "grün"),
        ('""', ""),
        ('"two\\nlines"', '"two\\nlines"'),
        ('"\\u001b[2J"', '"\\u001b[2J"'),
        ('"\u009b2J"', '"\\u009b2J"'),
        ('{"a": 1e400}', '{"a": 1e400}'),
        ('{\n "a": 1\r\n}', '{  "a": 1  }'),
        ("null", "null"),
    ],
)
def test_content_is_readable_and_stays_on_its_line(raw: str, line: str) -> None:
    """Planted defect: an escape sequence in a message would otherwise reach the terminal."""
    assert content_line(holding(raw)) == line


@pytest.mark.parametrize("raw", ['"two\\nlines"', "1180591620717411303424", '{"b":1, "a":"\\u0000"}'])
def test_raw_is_the_text_that_was_sent(raw: str) -> None:
    assert raw_line(holding(raw)) == raw


def test_a_line_break_between_tokens_becomes_a_space() -> None:
    assert raw_line(holding("[1,\n 2]")) == "[1,  2]"


def test_the_whole_message_is_one_json_object_with_its_content_untouched() -> None:
    text = message_json(holding('{"n": 1e400}'))
    assert '"content":{"n": 1e400}' in text
    assert json.loads(text) | {"content": None} == {
        "id": "m1", "content": None, "enqueued_at": "2026-11-21T12:00:00.250Z", "deliveries": 0,
        "priority": 0, "group": None, "headers": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (1.5, "1.5 s"),
        (59.96, "60 s"),
        (60, "1 min"),
        (3661, "1 h 1 min"),
        (172_800, "2 d"),
    ],
)
def test_durations_for_people(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_counts_for_people() -> None:
    assert (number(None), number(0), number(1_234_567)) == ("-", "0", "1,234,567")
