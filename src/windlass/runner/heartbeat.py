"""Heartbeats: a sign of life that keeps the leases of all held jobs, until the last is handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from windlass.client.errors import WindlassError
from windlass.runner import wire
from windlass.runner.link import REQUEST_TIMEOUT, Link, path
from windlass.runner.registration import Registration
from windlass.runner.wire import Control, Malformed, Registered

log = structlog.get_logger("windlass.runner")

AFTER_A_FAILURE = 1.0
"""Seconds after which a failed heartbeat is tried again, ..."""
SHORT_TIMEOUT = 5.0
"""... and the seconds that it may take then: slow failures would eat up the lease, two intervals long."""
SHORTEST_INTERVAL = 0.1


class Heartbeat:
    """Beats until it is cancelled.

    `held`: the ids of the jobs to keep. `stop(job_id, why, asked_at)`: is told which to let go of, if they
    were held at that moment of the loop's time.
    """

    def __init__(
        self,
        link: Link,
        registration: Registration,
        held: Callable[[], Sequence[str]],
        stop: Callable[[str, str, float], None],
    ) -> None:
        self._link = link
        self._registration = registration
        self._held = held
        self._stop = stop
        self._early = asyncio.Event()
        self._failing = False

    def soon(self) -> None:
        """Beat now rather than when it is time: the server seems not to know that a job has arrived."""
        self._early.set()

    async def run(self) -> None:
        """Raises RegistrationRefused, and nothing else."""
        while True:
            identity = await self._registration.identity()
            began = asyncio.get_running_loop().time()
            self._early.clear()
            failed = await self._beat(identity, began)
            self._tell(failed)
            took = asyncio.get_running_loop().time() - began
            interval = max(SHORTEST_INTERVAL, identity.config.heartbeat_interval_sec)
            await self._pause(AFTER_A_FAILURE if failed else interval - took)

    async def _beat(self, identity: Registered, began: float) -> str | None:
        """One heartbeat; returns why it failed, or None."""
        controlled = wire.CONTROL in identity.config.features
        try:
            answer = await self._link.call(
                "POST",
                path("runners", identity.runner_id, "heartbeat"),
                wire.heartbeat(self._held()),
                token=identity.token,
                within=SHORT_TIMEOUT if self._failing else REQUEST_TIMEOUT,
            )
            if not self._registration.heard(identity, answer.status):
                return str(answer)
            if answer.status == 200 and controlled:
                self._obey(wire.control(answer.body), began)
            elif answer.status != 204:
                return str(answer)
        except (WindlassError, Malformed) as error:
            return str(error)
        except Exception as error:  # whatever it is, the next heartbeat must come
            log.exception("heartbeat_fault")
            return repr(error)
        return None

    def _obey(self, control: Control, began: float) -> None:
        for ids, why in (
            (control.lost, "its lease is lost"),
            (control.cancelled, "it was cancelled"),
            (control.superseded, "a newer judgement takes its place"),
        ):
            for job_id in ids:
                self._stop(job_id, why, began)

    def _tell(self, failed: str | None) -> None:
        if failed and not self._failing:
            log.warning(
                "heartbeat_failed", message=f"A heartbeat failed: {failed}. It is tried every second."
            )
        elif self._failing and not failed:
            log.info("heartbeat_again", message="The server answers heartbeats again.")
        self._failing = failed is not None

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._early.wait()
            except TimeoutError:
                pass
