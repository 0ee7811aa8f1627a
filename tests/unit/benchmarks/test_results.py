"""Medians, spread and ratios come from the runs of one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.results import Options, Ratio, Result, Spread


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(
        rounds=3,
        seconds=1.0,
        connections=(32,),
        threads=1,
        size=1000,
        waiters=100,
        runners=100,
        only=(),
        windlass=Path("windlass"),
        scratch=tmp_path,
        out=tmp_path,
    )


@pytest.fixture
def result(options: Options) -> Result:
    result = Result("http", options)
    for round_, ours, theirs in ((1, 50.0, 100.0), (2, 60.0, 80.0), (3, 90.0, 90.0)):
        result.add("send", "windlass", round_, ours, p50_ms=1.0)
        result.add("send", "bare", round_, theirs)
    return result


def test_spread_is_median_and_extremes(result: Result) -> None:
    assert result.spread("send", "windlass") == Spread(60.0, 50.0, 90.0, 3)


def test_ratio_is_of_medians_with_the_extremes_of_the_rounds(result: Result) -> None:
    result.ratio("share", ("send", "windlass"), ("send", "bare"), aim=0.6)
    assert result.ratios == [Ratio("share", 60 / 90, 0.5, 1.0, 0.6)]
    assert result.ratios[0].met is True


def test_ratio_with_something_unmeasured_is_left_out(result: Result) -> None:
    result.ratio("share", ("send", "windlass"), ("send", "another"))
    assert result.ratios == []


def test_limit_is_met_from_below(result: Result) -> None:
    result.limit("time", ("send", "windlass"), at_most=59)
    result.limit("time", ("send", "windlass"), at_most=60)
    assert [limit.met for limit in result.ratios] == [False, True]


def test_writes_every_run(result: Result) -> None:
    result.ratio("share", ("send", "windlass"), ("send", "bare"))
    written = json.loads(result.write().read_text())
    assert len(written["runs"]) == 6
    assert written["runs"][0] == {
        "metric": "send",
        "variant": "windlass",
        "round": 1,
        "value": 50.0,
        "details": {"p50_ms": 1.0},
    }
    assert written["ratios"][0]["met"] is None
    assert [row["median"] for row in written["summary"]] == [60.0, 90.0]


def test_only_chooses_parts(options: Options) -> None:
    assert options.wants("send")
