"""Links to a job's source: good for one runner, for an hour, without a header."""

from __future__ import annotations

from secrets import compare_digest

from windlass.clock import Clock
from windlass.dispatch.runners import Runner, Runners
from windlass.errors import CodeLinkInvalid
from windlass.ids import Ids

LASTS = 3600 * 1000
"""How long a link is good for, ms."""


class Links:
    """Makes and checks them."""

    def __init__(self, runners: Runners, ids: Ids, clock: Clock) -> None:
        self._runners = runners
        self._ids = ids
        self._clock = clock

    def to(self, runner: Runner, job_id: str) -> str:
        """The path of a job's source, for this runner."""
        expires = self._clock.now() + LASTS
        signature = self._sign(runner.id, job_id, expires)
        return f"/jobs/{job_id}/code?runner={runner.id}&expires={expires}&signature={signature}"

    async def read(self, job_id: str, runner_id: str, expires: str, signature: str) -> Runner:
        """The runner that a link was made for. Raises CodeLinkInvalid for what was not, or is too old."""
        moment = int(expires) if expires.isascii() and expires.isdigit() and len(expires) < 20 else 0
        good = compare_digest(signature.encode(), self._sign(runner_id, job_id, moment).encode())
        runner = await self._runners.by_id(runner_id) if good and moment > self._clock.now() else None
        if runner is None:
            raise CodeLinkInvalid
        return runner

    def _sign(self, runner_id: str, job_id: str, expires: int) -> str:
        return self._ids.sign(f"{runner_id} {job_id} {expires}")
