"""Time that never jumps, and how it is written."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.clock import ManualClock, SystemClock, rfc3339


def test_the_wall_clock_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a wall clock that is set an hour either way moves a lease."""
    clock = SystemClock()
    before = clock.now()
    assert abs(before - time.time_ns() // 1_000_000) < 1_000
    wall = time.time_ns()
    for jump in (-3_600, 3_600):
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: wall + jump * 10**9)
        assert 0 <= clock.now() - before < 60_000
        assert clock.drift() == pytest.approx(jump, abs=60)


def test_a_clock_begins_no_earlier_than_it_is_told() -> None:
    """Fails when time runs backwards over a restart, or when a moment that is past moves the clock."""
    for clock in (SystemClock(), ManualClock()):
        now = clock.now()
        clock.not_before(now - 5_000)
        assert clock.now() - now < 60_000
        clock.not_before(now + 5_000_000)
        assert 0 <= clock.now() - (now + 5_000_000) < 60_000


def test_a_manual_clock_stands_until_it_is_moved() -> None:
    """Fails when fractions of a second are cut off."""
    clock = ManualClock(10)
    clock.advance(0.0015)
    assert clock.now() == 12
    clock.advance(3_600)
    assert clock.now() == 3_600_012


@given(st.integers(0, 4_102_444_800_000))
def test_times_are_rfc_3339_with_milliseconds(moment: int) -> None:
    """Fails when milliseconds lose their leading zeros, or the second kept is another's."""
    text = rfc3339(moment).decode()
    assert len(text) == 24
    assert text.endswith("Z")
    read = datetime.fromisoformat(text)
    assert read == datetime.fromtimestamp(moment // 1000, UTC).replace(microsecond=moment % 1000 * 1000)
