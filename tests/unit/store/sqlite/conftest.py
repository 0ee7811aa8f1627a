"""The SQLite store alone, with a view into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.bench import Bench
from tests.contract.conftest import OnSQLite


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(OnSQLite(tmp_path))
    yield made
    made.close()
