"""Durations and counts as people write them."""

from __future__ import annotations

import pytest
import typer

from windlass.cli.durations import parse_count_or_none, parse_seconds, parse_seconds_or_none


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("1.5", 1.5),
        ("30s", 30),
        ("250ms", 0.25),
        ("5m", 300),
        ("5 min", 300),
        ("2h", 7200),
        ("7d", 604_800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "five", "3x", "1h30m", "nan", "inf", "--", "1e999"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="not a duration"):
        parse_seconds(text)


def test_none_takes_a_limit_away() -> None:
    assert parse_seconds_or_none("none", "--retention-seconds") is None
    assert parse_seconds_or_none("2m", "--retention-seconds") == 120
    assert parse_count_or_none("none", "--max-length") is None
    assert parse_count_or_none("12", "--max-length") == 12
    with pytest.raises(typer.BadParameter, match="neither a whole number nor none"):
        parse_count_or_none("1.5", "--max-length")
