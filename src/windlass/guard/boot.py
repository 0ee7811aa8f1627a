"""A clock that nobody sets, and that counts while the machine sleeps, where the system has one."""

from __future__ import annotations

import time

_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_time() -> float:
    """Seconds since some moment in the past."""
    return time.clock_gettime(_CLOCK)
