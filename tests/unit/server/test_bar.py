"""The bar of a start that takes long."""

from __future__ import annotations

import pytest

from windlass.server.bar import Bar


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take anything for one


def test_what_takes_long_draws_a_bar_and_takes_it_away(capsys: pytest.CaptureFixture[str]) -> None:
    """Planted defect: a bar that stays, so that its thread draws over the log."""
    bar = Bar("Reading ids")
    bar(50, 100)
    bar(100, 100)
    drawn = capsys.readouterr().err
    assert "Reading ids" in drawn
    assert "\x1b[?25h" in drawn  # the cursor is back


def test_what_is_done_at_once_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Planted defect: a bar for every start."""
    Bar("Reading ids")(0, 0)
    Bar("Reading ids")(7, 7)
    assert capsys.readouterr().err == ""
