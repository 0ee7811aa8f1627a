from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.http.served import Served

ROADS = ("protocol", *(pytest.param(road, marks=pytest.mark.storm) for road in ("asgi", "redis")))


@pytest.fixture(params=ROADS, scope="module")
def road(request: pytest.FixtureRequest) -> str:
    """How requests reach the server, and where its store is: all roads keep the same promises.

    On each commit they take the road that people's requests take, the others in the storm's step.
    """
    return str(request.param)


@pytest.fixture
def api(tmp_path: Path, road: str) -> Iterator[Served]:
    """A server with nothing in it."""
    with Served(tmp_path / "data", road=road, registration_token="let me in") as served:
        yield served


@pytest.fixture
def q(api: Served) -> Served:
    """A server with one queue, `q`."""
    api.queue("q")
    return api


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory, road: str) -> Iterator[Served]:
    """One server with an empty queue `q`, for the many tests that leave it as it was."""
    with Served(tmp_path_factory.mktemp("same") / "data", road=road) as served:
        served.queue("q")
        yield served
