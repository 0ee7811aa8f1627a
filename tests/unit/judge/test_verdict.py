"""Which verdict a run gets, what a task's cases come to, and what they score."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.judge.verdict import Limits, Run, Status, again, of_run, score, worst

LIMITS = Limits(time_ms=1_000, memory_kib=65_536, wall_ms=3_000)
statuses = st.lists(st.sampled_from(Status), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("run", "status"),
    [
        (Run(exit_code=0), None),
        (Run(exit_code=0, time_ms=1_000, memory_kib=65_536, wall_ms=3_000), None),
        (Run(exit_code=1), Status.RUNTIME_ERROR),
        (Run(exit_code=139), Status.RUNTIME_ERROR),
        (Run(signal=11), Status.RUNTIME_ERROR),
        (Run(signal=13, output_exceeded=True), Status.OUTPUT_LIMIT),
        (Run(signal=9, out_of_memory=True, output_exceeded=True), Status.MEMORY_LIMIT),
        (Run(exit_code=0, memory_kib=65_537), Status.MEMORY_LIMIT),
        (Run(signal=9, time_ms=1_001, out_of_memory=True), Status.TIME_LIMIT),
        (Run(signal=9, time_ms=3, wall_ms=3_001), Status.TIME_LIMIT),
        (Run(signal=9, time_ms=9_999, fault="no cgroup"), Status.JUDGE_ERROR),
        (Run(), Status.RUNTIME_ERROR),
    ],
)
def test_the_first_reason_in_the_order_of_verdicts_counts(run: Run, status: Status | None) -> None:
    """Planted defects: a crash that hides the want of memory; a limit that counts when it is just reached."""
    assert of_run(run, LIMITS) is status


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        (Run(time_ms=1_000), False),
        (Run(time_ms=1_001), True),
        (Run(time_ms=1_100), True),
        (Run(time_ms=1_101), False),
        (Run(time_ms=1_001, wall_ms=3_001), False),
    ],
)
def test_a_near_miss_is_measured_again(run: Run, wanted: bool) -> None:
    assert again(run, LIMITS) is wanted


def test_nothing_judged_is_no_verdict() -> None:
    """Planted defect: a job without cases that is accepted."""
    with pytest.raises(ValueError, match="empty"):
        worst([])
    assert score(10, [], partial=True) == score(10, [], partial=False) == 0


@given(statuses)
def test_the_worst_is_one_of_them_and_accepted_only_if_all_are(found: list[Status]) -> None:
    assert worst(found) in found
    assert (worst(found) is Status.ACCEPTED) == all(status is Status.ACCEPTED for status in found)


def test_all_cases_give_all_points() -> None:
    """Planted defect: a share of n / n that rounds to less."""
    for count in range(1, 100):
        for tenths in range(1, 1000):
            points = tenths / 10
            assert score(points, [Status.ACCEPTED] * count, partial=True) == points


@given(statuses, st.floats(0, 1000))
def test_scores_lie_between_nothing_and_all(found: list[Status], points: float) -> None:
    whole, partial = score(points, found, partial=False), score(points, found, partial=True)
    assert 0 <= whole <= partial <= points
    if worst(found) is Status.ACCEPTED:
        assert whole == partial == points
    else:
        assert whole == 0
