"""Every terminal session in the documents happens as it is printed, and their Python runs."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests import sessions
from tests.harness import ServerProcess

ROOT = Path(__file__).parents[2]

DOCUMENTS = [
    str(file.relative_to(ROOT))
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if sessions.BLOCK.search(file.read_text())
]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_session_happens_as_printed(name: str, tmp_path: Path) -> None:
    assert sessions.check(ROOT / name, tmp_path) == []


def test_the_readme_has_a_session() -> None:
    """Planted: a README whose blocks are no longer found, so that nothing would be run."""
    blocks = sessions.BLOCK.finditer((ROOT / "README.md").read_text())
    assert sum(len(sessions.steps(block["text"])) for block in blocks) >= 8


def test_the_reference_has_every_route(server: ServerProcess) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    table = re.findall(
        r"^\| `([A-Z]+) (\S+)` \|", (ROOT / "docs/reference/http.md").read_text(), re.MULTILINE
    )
    assert set(table) == served
