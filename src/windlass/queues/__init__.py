"""The rules above the store: who waits for what, what a name may be, and when to look at the clock."""

from windlass.queues.service import Queues

__all__ = ["Queues"]
