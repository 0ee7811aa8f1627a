"""`windlass serve` that ends as a kill would end it, between two steps of its own that a test names.

    python -m tests.crashing FOLDER serve --port 8000 ...

It goes on until it comes to a point in POINTS of whose name there is a file in FOLDER; then it takes the file
away and kills itself. So one process can be told, while it runs, where it is to end.

Its clock is ahead by as many seconds as there are bytes in the file FOLDER.ahead.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

from windlass import store
from windlass.cli import main
from windlass.clock import SystemClock
from windlass.dispatch import Dispatch
from windlass.dispatch.leases import Leases
from windlass.dispatch.results import Results
from windlass.judge.dispatching import Jobs
from windlass.judge.service import Judge
from windlass.server.protocol import Protocol
from windlass.store.sqlite import upkeep
from windlass.store.sqlite.settling import end_delivery
from windlass.store.sqlite.store import SQLiteStore

Verb = Callable[..., Awaitable[Any]]

POINTS: dict[str, tuple[type, Verb]] = {
    # In, and a rejudge's steps. Around each of these calls the judge writes in its own database.
    "submit": (Jobs, Jobs.submit),
    "supersede": (Jobs, Jobs.supersede),
    "cancel": (Dispatch, Dispatch.cancel),
    # Out to a runner, and back.
    "claim": (Dispatch, Dispatch.claim),
    "confirm": (Leases, Leases.confirm),
    "heartbeat": (Leases, Leases.heartbeat),
    "complete": (Results, Results.complete),
    "exchange": (Results, Results.exchange),
    "abort": (Results, Results.abort),
    # The outcome to the submission.
    "project": (Judge, Judge.project),
    "told": (SQLiteStore, SQLiteStore.told),
    # A queue of its own for jobs that ask for labels.
    "create_queue": (SQLiteStore, SQLiteStore.create_queue),
}
"""Name -> class and method: there is a point before each, "before-NAME", and one behind it, "after-NAME".

Behind a claim: only where it brought a job. And there are two around the end of a lease that nobody keeps:
"before-expire", in the transaction that ends it, and "after-expire", when it is on disk and nobody knows."""

ANSWERED = "answered"
"""When a runner has been told that its result was taken, and before the submission knows of it."""


class Fuse:
    """Ends the process where it is told to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answered = asyncio.Event()
        self._expired = False
        """A lease was ended by a transaction that may not be on disk yet."""

    def armed(self, point: str) -> bool:
        return (self._folder / point).exists()

    def pass_by(self, point: str) -> None:
        file = self._folder / point
        if file.exists():
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, verb: Verb) -> Verb:
        @wraps(verb)
        async def watched(*arguments: Any, **more: Any) -> Any:
            if name == "project" and self.armed(ANSWERED):
                await self._answered.wait()
                self.pass_by(ANSWERED)
            self.pass_by(f"before-{name}")
            result = await verb(*arguments, **more)
            if name != "claim" or result:
                self.pass_by(f"after-{name}")
            return result

        return watched

    def tell_answers(self, answered: Callable[[Protocol], None]) -> Callable[[Protocol], None]:
        """Have `project` wait, where it is to, until the answer to a result is on its way."""

        @wraps(answered)
        def watched(protocol: Protocol) -> None:
            answered(protocol)
            if self.armed(ANSWERED) and protocol.url.partition(b"?")[0].endswith(_RESULTS):
                # The loop writes at the end of a turn at the latest.
                loop = asyncio.get_running_loop()
                loop.call_soon(partial(loop.call_soon, self._answered.set))

        return watched

    def around_ends_of_leases(self, end_delivery: Callable[..., None]) -> Callable[..., None]:
        @wraps(end_delivery)
        def watched(*arguments: Any, **more: Any) -> None:
            self.pass_by("before-expire")
            end_delivery(*arguments, **more)
            self._expired = True

        return watched

    def before_news(self, changed: Callable[..., None]) -> Callable[..., None]:
        @wraps(changed)
        def watched(*arguments: Any) -> None:
            if self._expired:
                self._expired = False
                self.pass_by("after-expire")
            changed(*arguments)

        return watched


_RESULTS = (b"/complete", b"/results")


def ahead_of(folder: Path) -> Path:
    """The file that says how far the clock is ahead."""
    return folder.with_name(f"{folder.name}.ahead")


class Ahead(SystemClock):
    """A clock that a test moves forward while the process runs."""

    file: Path

    def now(self) -> int:
        return super().now() + 1000 * self.file.stat().st_size


def install(folder: Path) -> None:
    fuse = Fuse(folder)
    Ahead.file = ahead_of(folder)
    Ahead.file.touch()
    assert vars(store)["SystemClock"] is SystemClock, "the clock is made elsewhere"
    vars(store)["SystemClock"] = Ahead
    for name, (kind, verb) in POINTS.items():
        setattr(kind, verb.__name__, fuse.around(name, verb))
    for holder, name, wrapped in (
        (Protocol, "on_response_complete", fuse.tell_answers(Protocol.on_response_complete)),
        (upkeep, "end_delivery", fuse.around_ends_of_leases(end_delivery)),
        (Dispatch, "_changed", fuse.before_news(Dispatch._changed)),
    ):
        setattr(holder, name, wrapped)


if __name__ == "__main__":
    install(Path(sys.argv.pop(1)))
    main()
