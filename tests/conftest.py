"""What every test stands on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from windlass.store.sqlite import upkeep


@pytest.fixture(autouse=True, scope="session")
def _patient_upkeep() -> Iterator[None]:
    """A step of upkeep ends when its real milliseconds are spent, which a busy machine may do before the
    first bite: a test that moves the clock must find what fell due done. Tests of the limit bring their own
    `Watch`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "BUDGET", float("inf"))
        yield
