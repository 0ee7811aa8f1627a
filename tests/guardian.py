"""Ends what a test process has started once that process is gone, however it went."""

from __future__ import annotations

import functools
import subprocess
import sys

_PROGRAM = """
import contextlib, os, shutil, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
guarded = {}
for line in sys.stdin:
    group, _, folder = line.rstrip("\\n").partition(" ")
    if folder:
        guarded[int(group)] = folder
    else:
        guarded.pop(int(group), None)
for group, folder in guarded.items():
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    if folder != "-":
        shutil.rmtree(folder, ignore_errors=True)
"""


class Guardian:
    """A process of its own that is told what to end. It hears of the end of this one by the end of a pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def guard(self, group: int, folder: object | None = None) -> None:
        """End this process group, and take its folder away, when this process is gone."""
        self._tell(f"{group} {folder or '-'}")

    def release(self, group: int) -> None:
        """It has ended: the number may be somebody else's from now on."""
        self._tell(str(group))

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@functools.cache
def guardian() -> Guardian:
    """The one of this process."""
    return Guardian()
