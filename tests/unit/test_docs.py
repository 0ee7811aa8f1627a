"""The documents keep up with the code, and their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from windlass import errors
from windlass.settings import Settings

ROOT = Path(__file__).parents[2]

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    return [file for name in listed.decode().split("\0") if name and (file := ROOT / name).is_file()]


def prose(file: Path) -> str:
    """The text of a document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(file: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(file), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(file: Path) -> list[list[str]]:
    """The cells of every table row whose first cell is a piece of code."""
    lines = [line for line in file.read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in lines]


def test_every_link_leads_somewhere() -> None:
    broken = []
    for file in documents():
        for link in ("".join(found) for found in LINK.findall(prose(file))):
            path, _, anchor = link.partition("#")
            if "://" in path:
                continue
            target = (file.parent / path).resolve() if path else file
            inside = target.is_relative_to(ROOT) and target.exists()
            if not inside or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                broken.append((str(file.relative_to(ROOT)), link))
    assert broken == []


def test_every_document_is_reached_from_the_index() -> None:
    """Planted: a document that no other names."""
    reached, found = set(), [ROOT / "README.md"]
    while found:
        file = found.pop()
        if file in reached or not file.is_file():
            continue
        reached.add(file)
        if file.suffix == ".md":
            links = ("".join(found).partition("#")[0] for found in LINK.findall(prose(file)))
            found += [(file.parent / path).resolve() for path in links if path and "://" not in path]
    assert [
        str(file) for file in documents() if file.is_relative_to(ROOT / "docs") and file not in reached
    ] == []


def test_the_table_of_errors_is_the_tree_of_errors() -> None:
    documented = {
        (code, int(status), title) for code, status, title, *_ in rows(ROOT / "docs/reference/errors.md")
    }
    assert documented == {(error.code, error.status, error.title()) for error in errors.tree()}


def test_the_table_of_settings_is_the_settings() -> None:
    documented = [tuple(row) for row in rows(ROOT / "docs/reference/settings.md")]
    settings = [
        (name, f"WINDLASS_{name.upper()}", str(field.default).replace("False", "false"), field.description)
        for name, field in Settings.model_fields.items()
    ]
    assert documented == settings
