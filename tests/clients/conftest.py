"""Fixtures of the tests with clients of SQS: real servers, with keys and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.site import Site, key_of, new_queue
from tests.harness import ServerProcess


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_others() -> Iterator[None]:
    """boto3 reads the environment and files of whoever runs the tests, which are none of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants keys."""
    with ServerProcess(tmp_path_factory.mktemp("guarded") / "data") as server:
        key_of(server, "all")  # while there is none, everybody may come in
        yield server


@pytest.fixture(scope="session")
def site(guarded: ServerProcess) -> Site:
    """The guarded server for somebody who may do everything."""
    return key_of(guarded, "all")


@pytest.fixture(scope="session")
def sqs(site: Site) -> Any:
    """boto3's client of it."""
    return site.client()


@pytest.fixture
def queue(sqs: Any) -> str:
    """The URL of a new standard queue."""
    return new_queue(sqs)


@pytest.fixture
def fifo(sqs: Any) -> str:
    """The URL of a new FIFO queue, which wants dedup ids."""
    return new_queue(sqs, FifoQueue="true")
