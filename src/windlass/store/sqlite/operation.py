"""What is no hot verb, on its way through the writer."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from typing import Any

from windlass.store.operation import Operation
from windlass.store.sqlite.transaction import Transaction


class Step(Operation[Any]):
    """Any other verb: a function of the transaction, alone in a savepoint."""

    __slots__ = ("run", "structural", "tick")

    def __init__(
        self, future: Future[Any], run: Callable[[Transaction], Any], structural: bool, tick: bool
    ) -> None:
        super().__init__(future)
        self.run = run
        self.tick = tick
        """True where it only gives upkeep its turn."""
        self.structural = structural
        """True where it changes a queue itself, not its messages."""
