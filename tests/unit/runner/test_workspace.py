"""The runner's directory: one runner's own, a directory a delivery, nothing left, nothing followed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from windlass.errors import RunnerDirLocked, StartError
from windlass.runner import workspace as spaces
from windlass.runner.workspace import Workspace, remove_tree


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    opened = Workspace(tmp_path / "runner")
    opened.open()
    return opened


def test_it_is_one_runners_own_until_it_is_closed(workspace: Workspace) -> None:
    other = Workspace(workspace.directory)
    with pytest.raises(RunnerDirLocked, match="--dir"):
        other.open()
    workspace.close()
    other.open()
    other.close()


def test_a_directory_that_cannot_be_is_a_plain_word(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be used"):
        Workspace(tmp_path / "file").open()


def test_each_delivery_has_a_directory_of_its_own(workspace: Workspace) -> None:
    """Planted defect: a directory that the attempt before has left something in."""
    first, second = workspace.directory_of("jb_1"), workspace.directory_of("jb_1")
    assert [first.path.name, second.path.name] == ["jb_1.1", "jb_1.2"]

    async def gone() -> None:
        workspace.remove(first)
        await workspace.settle()

    asyncio.run(gone())
    assert workspace.directory_of("jb_1").path.name == "jb_1.1"
    assert list(first.path.iterdir()) == []


def test_a_directory_is_made_for_who_asks_for_it_alone(workspace: Workspace) -> None:
    """Planted defect: a directory for each job, also for those that are over before it is made."""
    directory = workspace.directory_of("jb_1")
    workspace.remove(directory)
    assert list((workspace.directory / "jobs").iterdir()) == []
    assert directory.path.is_dir()
    assert directory.path == directory.made


@pytest.mark.parametrize("job_id", ["../../x", "a/b", "x" * 300, ".", "jb 1", "ж", "-" * 65])
def test_an_id_never_becomes_a_path(workspace: Workspace, job_id: str) -> None:
    made = workspace.directory_of(job_id).path
    assert made.parent == workspace.directory / "jobs"
    assert made.is_dir()


def test_what_an_earlier_runner_left_is_swept(workspace: Workspace) -> None:
    left = workspace.directory_of("jb_1").path
    (left / "file").touch()
    workspace.identity.touch()
    (workspace.cache / "kept").touch()
    workspace.close()
    again = Workspace(workspace.directory)
    again.open()
    assert not left.exists()
    assert workspace.identity.exists()
    assert (workspace.cache / "kept").exists()
    again.close()


def test_nothing_is_followed(tmp_path: Path) -> None:
    """Planted defect: a link to a directory whose content is removed, or whose mode is changed."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (outside / "precious").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "a" / "link").symlink_to(outside)
    (tree / "loop").symlink_to(tree)
    os.mkfifo(tree / "a" / "pipe")
    remove_tree(tree)
    assert not tree.exists()
    assert outside.stat().st_mode & 0o777 == 0o500
    assert (outside / "precious").exists()
    link = tmp_path / "link"
    link.symlink_to(outside)
    remove_tree(link)
    assert outside.is_dir()
    remove_tree(tmp_path / "nothing")


def test_directories_that_their_owner_locked_go_too() -> None:
    """Planted defect: a job that takes its own directory's write permission away stays for ever.

    Seen by a user whom permissions bind: root is turned into another one.
    """
    program = """if True:
        import os, sys, pathlib
        from windlass.runner.workspace import remove_tree
        if os.geteuid() == 0:
            os.chown(sys.argv[1], 65534, 65534)
            os.setuid(65534)
        tree = pathlib.Path(sys.argv[1]) / "tree"
        (tree / "a" / "b" / "c").mkdir(parents=True)
        (tree / "a" / "b" / "file").touch()
        for name in ("a/b/c", "a/b", "a", ""):
            (tree / name).chmod(0o500 if name == "a" else 0o000)
        remove_tree(tree)
        assert not tree.exists()
    """
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is where only its own user gets to
        done = subprocess.run(
            [sys.executable, "-c", program, folder],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_evidence_is_kept_and_has_an_end(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 4. Planted defect: evidence that fills the disk."""
    monkeypatch.setattr(spaces, "KEPT", 3)
    evidence = workspace.directory / "evidence"
    for number in range(5):
        directory = workspace.directory_of(f"jb_{number}")
        (directory.path / "result").write_text(str(number))
        kept = asyncio.run(workspace.keep(directory, directory.path / "result", "HTTP 400"))
        assert kept == evidence / f"jb_{number}.1"
        os.utime(kept, ns=(number, number))
    assert sorted(path.name for path in evidence.iterdir()) == ["jb_2.1", "jb_3.1", "jb_4.1"]
    assert (evidence / "jb_4.1" / "result.json").read_text() == "4"
    monkeypatch.setattr(spaces, "KEPT_BYTES", 1)
    directory = workspace.directory_of("jb_5")
    asyncio.run(workspace.keep(directory, b"55", "HTTP 400"))
    assert [path.name for path in evidence.iterdir()] == ["jb_5.1"]
    assert (evidence / "jb_5.1" / "result.json").read_bytes() == b"55"


def test_evidence_that_cannot_be_kept_ends_nothing(workspace: Workspace) -> None:
    """Invariant 6. Planted defect: the disk's error is let through."""
    directory = workspace.directory_of("jb_1")
    assert asyncio.run(workspace.keep(directory, directory.path / "nothing", "HTTP 400")) is None


def test_room_on_the_disk(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workspace.spacious()
    monkeypatch.setattr(spaces, "LEAST_FREE", 1 << 62)
    assert not workspace.spacious()
    remove_tree(workspace.directory)
    assert workspace.spacious()
