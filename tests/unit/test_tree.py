"""What is in the repository stands on its own: it names no registry and nothing outside the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The only hosts that any file may name: this machine, names and networks set aside for private use and for
# examples, names without a dot, and identifiers that look like addresses but are never opened.
HOSTS = re.compile(
    r"[a-z0-9-]+|(?:127|10)\.\d+\.\d+\.\d+|0\.0\.0\.0|192\.0\.2\.\d+"
    r"|(?:[a-z0-9-]+\.)*example(?:\.(?:com|org|net))?|(?:[a-z0-9-]+\.)+(?:test|internal|invalid)"
    r"|www\.w3\.org|www\.rfc-editor\.org|json-schema\.org|keepachangelog\.com|semver\.org|(?:queue|example)\.amazonaws\.com"
)
URL = re.compile(r"\b(?:https?|wss?|git|ssh|ftp)://(?:[^\s/@\"'`]+@)?([A-Za-z0-9.-]*[A-Za-z0-9])")
BARE_HOST = re.compile(r"(?<![\w.@-])((?:[a-z0-9-]+\.)+(?:org|com|net))\b(?!\()")
OUTSIDE = re.compile(r"(?<![\w.$}-])/(?:opt|root|work|home)/[\w.-]+")
INDEX_OPTION = re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host")


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [file for name in listed.decode().split("\0") if name and (file := ROOT / name).is_file()]


def tracked_lines() -> list[tuple[str, str]]:
    """(where, line) of every text file in the repository."""
    lines = []
    for file in tracked_files():
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        name = file.relative_to(ROOT)
        lines += [(f"{name}:{number}", line) for number, line in enumerate(text.splitlines(), 1)]
    return lines


LINES = tracked_lines()


def foreign_hosts(line: str) -> list[str]:
    return [host for host in URL.findall(line) + BARE_HOST.findall(line) if not HOSTS.fullmatch(host)]


def test_only_known_hosts_are_named() -> None:
    assert [(where, foreign) for where, line in LINES if (foreign := foreign_hosts(line))] == []


def test_nothing_outside_the_repository_is_named() -> None:
    images = "deploy/Dockerfile:"  # what it names is inside of what it makes
    assert [each for each in LINES if OUTSIDE.search(each[1]) and not each[0].startswith(images)] == []


def test_the_locks_name_no_index() -> None:
    locks = [(where, line) for where, line in LINES if where.startswith("requirements/")]
    assert locks
    assert [(where, line) for where, line in locks if INDEX_OPTION.search(line) or "://" in line] == []


@pytest.mark.parametrize(
    "line", ["see https://" + "registry.foreign.io/simple", "from packages.foreign." + "org"]
)
def test_a_foreign_host_is_noticed(line: str) -> None:
    """Planted: a registry by its address and by its bare name."""
    assert foreign_hosts(line)


def test_a_path_outside_is_noticed() -> None:
    """Planted: a path that exists on one machine only."""
    assert OUTSIDE.search("run /" + "opt/venv/bin/python")
