"""What `pip install .` gives, and that the locks fit what pyproject.toml asks for."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.harness import clean_environment
from windlass import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built with the locked hatchling and without any network."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    tree = {
        file.relative_to(ROOT / "src").as_posix()
        for file in (ROOT / "src/windlass").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == tree
    assert "windlass/py.typed" in packed
    assert any(name.endswith(".sql") for name in packed)


def test_the_installed_program_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(installed)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    said = subprocess.run(
        [installed / "bin" / "windlass", "--version"],
        cwd=tmp_path,
        env=clean_environment({"PYTHONPATH": str(installed)}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"windlass {__version__}\n"


def locked(name: str) -> dict[str, str]:
    """Package -> version of a lock."""
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("lock", "asked"),
    [
        ("runtime.txt", PROJECT["project"]["dependencies"]),
        ("dev.txt", PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]),
        ("dev.txt", PROJECT["build-system"]["requires"]),
    ],
)
def test_the_locks_fit_what_is_asked_for(lock: str, asked: list[str]) -> None:
    """Where this fails, pyproject.toml was changed without scripts/lock."""
    versions = locked(lock)
    requirements = [Requirement(text) for text in asked]
    assert [
        str(r) for r in requirements if not r.specifier.contains(versions.get(canonicalize_name(r.name), "0"))
    ] == []


def test_the_locks_agree_and_have_a_hash_for_everything() -> None:
    assert locked("runtime.txt").items() <= locked("dev.txt").items()
    for name in ("runtime.txt", "dev.txt"):
        entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements" / name).read_text())
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
