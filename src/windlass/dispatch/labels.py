"""Labels: a job that asks for some lies in a queue of its own, which only runners that offer them look into.

So a job that nobody can take is never in the way of others, and finding the next one stays a look at the
front of a queue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from windlass.errors import Invalid
from windlass.message import RESERVED

JOBS = f"{RESERVED}jobs"
"""The queue of the jobs without labels."""
MAX_OFFERED = 64
MAX_ASKED = 8

_LABEL = re.compile(r"[a-z0-9_][a-z0-9_-]{0,31}\Z", re.ASCII)
_LONGEST = 128 - len(JOBS) - 1

Labels = frozenset[str]


def check(labels: Iterable[object], *, most: int) -> Labels:
    """Raise Invalid for what are no labels, or more than `most` of them."""
    found = list(labels)
    for label in found:
        if not isinstance(label, str) or not _LABEL.match(label):
            raise Invalid(
                f"{str(label)[:40]!r} is no label: 1 to 32 of a-z, 0-9, - and _, no dash at first.",
                field="labels",
            )
    if len(found) > most:
        raise Invalid(f"{len(found)} labels are too many: at most {most}.", field="labels")
    return frozenset(map(str, found))


def queue_of(labels: Labels) -> str:
    """The queue for jobs that ask for these labels. Raises Invalid where its name would be too long."""
    if not labels:
        return JOBS
    name = ".".join(sorted(labels))
    if len(name) > _LONGEST:
        raise Invalid(f"The labels are longer than {_LONGEST} characters together.", field="labels")
    return f"{JOBS}.{name}"


def labels_of(queue: str) -> Labels | None:
    """The labels that a queue's jobs ask for, None for a queue of anything else."""
    if queue == JOBS:
        return frozenset()
    if not queue.startswith(f"{JOBS}."):
        return None
    return frozenset(queue.removeprefix(f"{JOBS}.").split("."))
