"""What every executor offers to the runner, and what it gets from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from windlass.runner.workspace import JobDirectory


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One job of which everything is on this machine."""

    payload: Mapping[str, Any]
    """The job as it came over the wire: a JSON object. No executor believes what it says."""
    source: Path | None = None
    """The archive that `code_url` named, as it came; only jobs of the judge have one."""
    testdata: Path | None = None
    """A directory with the problem's unpacked test data (testdata.unpack), which others read, too."""


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job."""

    result: bytes | Path
    """The body of the answer, JSON; a large one as a file in the job's directory, which is streamed."""


Event = dict[str, object]
"""Progress for people, as JSON: `{"event": "case", ...}`. Each executor says which ones it tells. An
event may be lost; the result never depends on one."""

Progress = Callable[[Event], None]
"""Called on the event loop; returns at once and raises nothing."""


class CannotJudge(Exception):  # noqa: N818 - what happened, said as it is
    """This job cannot be done, here or on this runner; str() is the reason that the server is told."""


class Executor(ABC):
    """Does one kind of job. One instance serves all of a runner's jobs, several at the same time."""

    labels: tuple[str, ...] = ()
    """What it is worth, as labels that the runner offers besides its own."""

    @abstractmethod
    async def execute(self, assignment: Assignment, directory: JobDirectory, progress: Progress) -> Executed:
        """Do a job to its end, in `directory`, which is its own; the caller removes it.

        When it is cancelled it ends what it has started before it lets go. Raises CannotJudge where the job
        has to be handed back with a reason; whatever else it raises is a fault of the executor.
        """

    async def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of what outlives a job; no job is under way."""
