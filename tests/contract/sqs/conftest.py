from __future__ import annotations

import pytest

from tests.contract.bench import Bench
from tests.contract.sqs.face import Face


@pytest.fixture
def sqs(bench: Bench) -> Face:
    """The actions, on every backend."""
    return Face(bench)
