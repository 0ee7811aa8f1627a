from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.bench import Bench
from tests.contract.http.conftest import ROADS
from tests.contract.http.served import Served
from tests.contract.sqs.face import Face
from tests.contract.sqs.wire import Wire


@pytest.fixture
def sqs(bench: Bench) -> Face:
    """The actions, on every backend."""
    return Face(bench)


@pytest.fixture(params=ROADS)
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "data", road=request.param) as served:
        yield served


@pytest.fixture
def wire(api: Served) -> Wire:
    """Both protocols, over all roads."""
    return Wire(api)


@pytest.fixture
def url(wire: Wire) -> str:
    return wire.create("q")


@pytest.fixture
def fifo(wire: Wire) -> str:
    return wire.create("q.fifo", FifoQueue="true")
