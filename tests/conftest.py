"""What every test stands on."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import routing
from hypothesis import HealthCheck, settings

from tests.postgresql import PostgreSQL
from windlass.store.sqlite import upkeep

# A busy machine is slow, which is no defect. With CI=true the examples are the same each time: what fails
# there fails again here.
settings.register_profile(
    "windlass",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("windlass")


@pytest.fixture(autouse=True, scope="session")
def _patient_upkeep() -> Iterator[None]:
    """A step of upkeep ends when its real milliseconds are spent, which a busy machine may do before the
    first bite: a test that moves the clock must find what fell due done. Tests of the limit bring their own
    `Watch`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "BUDGET", float("inf"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _patient_httpx() -> Iterator[None]:
    """httpx gives an answer 5 s where nothing else is said; a disk under load takes longer now and then."""
    usual: httpx.Timeout = inspect.signature(httpx.Client).parameters["timeout"].default
    with pytest.MonkeyPatch.context() as patch:
        for phase in ("connect", "read", "write", "pool"):
            patch.setattr(usual, phase, 60.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _known_models() -> Iterator[None]:
    """FastAPI builds the models of all routes' answers for every application anew, in more than half of the
    time that one takes. There are a thousand in the tests, of the same routes."""
    make = vars(routing)["create_model_field"]
    known = functools.cache(make)

    def made(**how: Any) -> Any:
        return known(**how) if "field_info" not in how else make(**how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "create_model_field", made)
        yield


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One for all tests of a session that want one; `database()` of it is empty."""
    server = PostgreSQL()
    yield server
    server.close()
