"""The contracts on imports hold, and they notice when somebody breaks them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Where a wrong import is planted, the import, and what must be reported as breaking a contract.
WRONG = [
    ("errors.py", "from windlass import message", "windlass.errors -> windlass.message"),
    ("message.py", "from windlass import client", "windlass.message -> windlass.client"),
    ("client/__init__.py", "from windlass import queues", "windlass.client -> windlass.queues"),
    ("store/__init__.py", "from windlass import queues", "windlass.store -> windlass.queues"),
    ("queues/__init__.py", "from windlass import server", "windlass.queues -> windlass.server"),
    ("queues/__init__.py", "import apsw", "windlass.queues -> apsw"),
    ("server/__init__.py", "from windlass import cli", "windlass.server -> windlass.cli"),
    ("server/__init__.py", "from windlass import client", "windlass.server -> windlass.client"),
    ("server/__init__.py", "from windlass.store import sqlite", "windlass.server -> windlass.store.sqlite"),
    ("guard/__init__.py", "from windlass import ids", "windlass.guard -> windlass.ids"),
    ("guard/__init__.py", "from windlass import catalogue", "windlass.guard -> windlass.catalogue"),
    ("catalogue/__init__.py", "from windlass import judge", "windlass.catalogue -> windlass.judge"),
    ("runner/__init__.py", "from windlass import server", "windlass.runner -> windlass.server"),
    ("torture/__init__.py", "from windlass import store", "windlass.torture -> windlass.store"),
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def copy_of_the_package(folder: Path) -> Path:
    shutil.copytree(ROOT / "src/windlass", folder / "windlass", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder / "windlass"


def test_imports_go_one_way(tmp_path: Path) -> None:
    copy_of_the_package(tmp_path)
    linted = lint_imports(tmp_path)
    assert linted.returncode == 0, linted.stdout


def test_a_wrong_import_is_reported(tmp_path: Path) -> None:
    """Planted: one import against the direction of every contract. It fails when a contract lets one pass."""
    package = copy_of_the_package(tmp_path)
    for name, line, _ in WRONG:
        file = package / name
        file = file if file.exists() else package / name.replace("/__init__.py", ".py")
        file.write_text(f"{file.read_text()}\n{line}\n")
    linted = lint_imports(tmp_path)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert [edge for *_, edge in WRONG if edge not in linted.stdout] == []


def test_a_module_without_a_layer_is_reported(tmp_path: Path) -> None:
    """Planted: a module that no layer names."""
    (copy_of_the_package(tmp_path) / "stray.py").touch()
    linted = lint_imports(tmp_path)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert "windlass.stray" in linted.stdout
