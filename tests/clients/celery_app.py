"""The tasks that test_celery.py has a worker do. The environment says where the broker is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery

SETTINGS: dict[str, Any] = json.loads(os.environ.get("CELERY_SETTINGS", "{}"))
DONE = Path(os.environ.get("CELERY_DONE", os.devnull))
GATE = Path(os.environ.get("CELERY_GATE", os.devnull))

app = Celery("tests.clients.celery_app")
app.conf.update(broker_connection_retry_on_startup=True, worker_send_task_events=False, **SETTINGS)


def say(line: str) -> None:
    """One line into the file that the test reads, whole even where two processes write."""
    with DONE.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def add(left: int, right: int) -> None:
    say(f"add {left + right}")


def flaky(self: Any, name: str) -> None:
    """Fails the first time, and asks to be tried again a second later."""
    say(f"flaky {name} {self.request.retries}")
    if not self.request.retries:
        raise self.retry(countdown=1)


def stuck(name: str) -> None:
    """Goes on when the gate, a named pipe, is opened by somebody else."""
    say(f"began {name}")
    GATE.read_bytes()
    say(f"ended {name}")


add_task = app.task(name="add")(add)
flaky_task = app.task(name="flaky", bind=True)(flaky)
stuck_task = app.task(name="stuck", acks_late=True, reject_on_worker_lost=True)(stuck)
