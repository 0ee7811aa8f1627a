"""What is drawn and printed of a report."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from windlass.attack import Report, display
from windlass.attack.plot import draw
from windlass.attack.report import Rates, Sample


@pytest.fixture
def report() -> Report:
    report = Report()
    report.samples += [Sample(0, 100, 50, 0), Sample(1, 1100, 250, 100), Sample(3, 5100, 290, 500)]
    tally = report.kinds["crafted"]
    tally.seconds.extend([0.001] * 99 + [0.5])
    tally.sources.update(bloom_filter=98, database=2)
    tally.failures["503: gone"] += 3
    return report


def test_rates_are_those_between_two_looks(report: Report) -> None:
    first, second = report.rates()
    assert first == Rates(0.5, 200, 300, 1000)
    assert second == Rates(2, 20, 220, 2000)


def test_the_sum_is_from_the_first_look_to_the_last(report: Report) -> None:
    """Planted defect: what the server counted before the attack is the attack's."""
    assert (report.requests, report.roundtrips, report.without_key) == (5000, 240, 740)
    assert report.reduction == 0.952
    document = report.as_json()
    assert document["database_roundtrips_saved"] == 4760
    assert document["computed"] == {"without_key": 740, "unguarded": 5000}


def test_the_table_and_the_chart(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    display.show(report)
    shown = capsys.readouterr().out
    assert "database round trips a second" in shown
    assert "\x1b" not in shown
    for text in ("2,000", "95.2%", "measured by /metrics", "computed: one for each look-up", "500.0 ms"):
        assert text in shown
    assert "2  crafted ids of 100 passed the filter" in shown


def test_the_chart_has_colours_on_a_terminal(report: Report) -> None:
    assert "\x1b[" in display.chart(report, width=80, colour=True)


def test_without_plotexts_binary_there_is_a_table_all_the_same(
    report: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotext", None)
    display.show(report)
    shown = capsys.readouterr().out
    assert "There is no chart" in shown
    assert "95.2%" in shown


def test_a_picture_says_what_is_measured_and_what_is_computed(report: Report, tmp_path: Path) -> None:
    draw(report, tmp_path / "attack.svg")
    texts = ["".join(text.itertext()) for text in ElementTree.parse(tmp_path / "attack.svg").iter()]
    for label in display.LABELS.values():
        assert label in texts
    draw(report, tmp_path / "again.svg")
    assert (tmp_path / "attack.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    draw(report, tmp_path / "attack.png")
    assert (tmp_path / "attack.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_was_answered(tmp_path: Path) -> None:
    """A server that was asked for nothing: no figure divides by it."""
    report = Report()
    report.samples += [Sample(0, 5, 5, 0), Sample(1, 5, 5, 0)]
    assert report.reduction == 0
    assert report.kinds["real"].milliseconds(0.5) is None
    display.show(report)
    draw(report, tmp_path / "attack.svg")
