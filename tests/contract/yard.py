"""Dispatch driven from plain test code, on any store: runners that do what a test tells them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from tests.contract.bench import Bench, Gone
from windlass.dispatch import Control, Delivery, Dispatch, Job, Task
from windlass.dispatch.runners import Runner
from windlass.dispatch.service import Timing
from windlass.dispatch.view import JobView
from windlass.queues import Queues

R = TypeVar("R")

SECRET = "let me in"
CASE = {"stdout": "", "stderr": "", "exitCode": 0, "execTime": 1, "memoryUsage": 1, "status": "AC"}


def result(*counts: int, **case: Any) -> bytes:
    """A result with so many cases in each task."""
    return msgspec.json.encode({"tasks": [[{**CASE, **case}] * count for count in counts]})


class Yard:
    """A Dispatch on a bench's store, and what it told of ends."""

    def __init__(self, bench: Bench, failed_kept: float = 30 * 24 * 3600, **timing: Any) -> None:
        self.bench = bench
        self.clock = bench.clock
        self.timing = Timing(**timing)
        self.failed_kept = failed_kept
        self.told: list[tuple[str, str, int, dict[str, Any]]] = []
        self.deaf = False
        """True: whoever is told does not confirm."""
        self._open()

    def _open(self) -> None:
        self.queues = Queues(self.bench.store, self.clock)
        self.dispatch = Dispatch(
            self.queues,
            self.clock,
            registration_token=SECRET,
            timing=self.timing,
            failed_kept=self.failed_kept,
        )
        self.dispatch.outcomes.listen(self._listen)
        self.dispatch.outcomes.at_once = True

    async def _listen(self, job_id: str, owner: str, generation: int, outcome: dict[str, Any]) -> None:
        if self.deaf:
            raise OSError("not now")
        self.told.append((job_id, owner, generation, outcome))

    def run(self, call: Callable[[Dispatch], Awaitable[R]]) -> R:
        async def run() -> R:
            return await call(self.dispatch)

        return self.bench.loop.run_until_complete(run())

    def crash(self) -> None:
        """Go on with what a kill at this moment leaves on the disk."""
        self.stop()
        self.bench.crash()
        self._open()

    def stop(self) -> None:
        self.run(lambda d: d.stop())
        self.bench.loop.run_until_complete(self.queues.stop())

    def settle(self) -> None:
        """Let time bring what it brings, and ends be told."""
        self.bench.settle()

        async def all_told() -> None:
            self.dispatch.outcomes.wake()
            while not self.deaf and await self.bench.store.untold():
                await self.dispatch.outcomes.idle()

        self.bench.loop.run_until_complete(all_told())

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()

    # --- in --------------------------------------------------------------------------------------

    def submit(
        self, owner: str = "s", *, generation: int = 1, cases: Sequence[int] = (2, 1), **how: Any
    ) -> str:
        tasks = tuple(Task(n, count, 65_536, 1_000) for n, count in enumerate(cases, 1))
        seconds = how.pop("max_seconds", 3_600)
        job = Job(
            owner=owner, generation=generation, problem_id=7, language=2, tasks=tasks, max_seconds=seconds
        )
        return self.run(lambda d: d.submit(job, **how))

    # --- runners ---------------------------------------------------------------------------------

    def register(self, name: str = "r", labels: Sequence[str] = (), features: Sequence[str] = ()) -> Runner:
        return self.run(lambda d: d.runners.register(SECRET, name, labels, features))[0]

    def again(self, runner: Runner) -> Runner:
        """The same runner, as a server knows it that was started since."""
        found = self.run(lambda d: d.runners.by_id(runner.id))
        assert found is not None
        return found

    def claim(self, runner: Runner, claim: str | None = None) -> Delivery | None:
        return next(iter(self.run(lambda d: d.claim(runner, claim))), None)

    def take(self, runner: Runner) -> str:
        """A job, claimed and confirmed; its id."""
        delivery = self.claim(runner)
        assert delivery is not None
        self.beat(runner, delivery.job_id)
        return delivery.job_id

    def beat(self, runner: Runner, *job_ids: str) -> Control:
        return self.run(lambda d: d.leases.heartbeat(runner, job_ids))

    def complete(self, runner: Runner, job_id: str, body: bytes | None = None) -> None:
        self.run(lambda d: d.results.complete(runner, job_id, result(2, 1) if body is None else body))

    def abort(self, runner: Runner, job_id: str, reason: str = "it broke") -> None:
        self.run(lambda d: d.results.abort(runner, job_id, reason))

    def view(self, job_id: str) -> JobView:
        return self.run(lambda d: d.views.job(job_id))


__all__ = ["SECRET", "Gone", "Yard", "result"]
