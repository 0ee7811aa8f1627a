from __future__ import annotations

from pathlib import Path

import pytest

from windlass.runner.sandbox.arguments import Copy, Layout, box_arguments, host_arguments, joined
from windlass.runner.sandbox.bubblewrap import users_of


def pairs(words: list[str], option: str) -> list[tuple[str, ...]]:
    return [tuple(words[at + 1 : at + 3]) for at, word in enumerate(words) if word == option]


def test_all_namespaces_and_no_shared_memory() -> None:
    words = host_arguments(Layout())
    for needed in ("user", "pid", "net", "ipc", "uts"):
        assert f"--unshare-{needed}" in words
    assert {"--disable-userns", "--as-pid-1"} <= set(words)
    assert "--dev" not in words  # which has a /dev/shm of half the memory


def test_the_top_is_as_on_the_host(tmp_path: Path) -> None:
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib").mkdir()
    words = host_arguments(Layout(expose=(Path("/srv/java"),)), tmp_path)
    assert pairs(words, "--symlink")[0] == ("usr/bin", "/bin")
    assert ("/lib", "/lib") in pairs(words, "--ro-bind")
    assert ("/srv/java", "/srv/java") in pairs(words, "--ro-bind-try")
    assert "/sbin" not in words


def test_a_tmpfs_always_has_a_size() -> None:
    """0 would be no limit. Placed files are held besides what may be written, in whole pages."""
    assert pairs(box_arguments([], 0, None), "--size") == [("4096", "--tmpfs")]
    words = box_arguments([Copy("a/b", 7, 1), Copy("c", 8, 4097)], 10_000, 9)
    assert pairs(words, "--size") == [(str(4096 + 8192 + 10_000), "--tmpfs")]
    assert pairs(words, "--file") == [("7", "/box/a/b"), ("8", "/box/c")]
    assert words[-2:] == ["--seccomp", "9"]
    assert words.index("--remount-ro") > words.index("--file")


def test_words_are_ended_by_nul() -> None:
    assert joined(["a", "", b"b\xff", "\udcff"]) == b"a\0\0b\xff\0\xff\0"


@pytest.mark.parametrize(
    ("uid_map", "first"),
    [
        ("         0          0 4294967295\n", 1_900_000_000),
        ("0 100000 65536\n", 20_000),
        ("0 1000 1\n1 100000 65536\n", 20_000),
        ("0 1000 1\n", 0),
        ("", 0),
    ],
)
def test_users_are_taken_from_what_is_mapped(uid_map: str, first: int) -> None:
    found, span, why = users_of(uid_map)
    assert found == first
    assert bool(span) is bool(first) is not bool(why)
