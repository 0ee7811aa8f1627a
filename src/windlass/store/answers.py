"""From a store's own thread back to the event loops: answers for who asked, changes for who listens."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from windlass.store.base import Changes
from windlass.store.operation import Operation

log = structlog.get_logger("windlass.store")


class Answers:
    """Gives answers, in one call to the loop for all that were served together."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Changes], None]] = []

    def listen(self, listener: Callable[[Changes], None]) -> None:
        self._listeners.append(listener)

    def give(self, operations: Sequence[Operation[Any]], changes: Changes | None) -> None:
        """Settle each operation on its loop, with its `error` or else its `result`; then tell of changes."""
        loop = operations[0].future.get_loop()
        if all(operation.future.get_loop() is loop for operation in operations):
            self._give_on(loop, operations, changes)
        else:  # without a lifespan a test client brings a loop for each request
            for operation in operations:
                self._give_on(operation.future.get_loop(), [operation], changes)
                changes = None

    def tell(self, loop: AbstractEventLoop, changes: Changes) -> None:
        """Tell of changes that nobody here asked for."""
        self._give_on(loop, [], changes)

    def _give_on(
        self, loop: AbstractEventLoop, operations: Sequence[Operation[Any]], changes: Changes | None
    ) -> None:
        try:
            loop.call_soon_threadsafe(self._settle, operations, changes)
        except RuntimeError:  # that loop is closed: nobody waits there any more
            log.debug("loop_closed", operations=len(operations))

    def _settle(self, operations: Sequence[Operation[Any]], changes: Changes | None) -> None:
        for operation in operations:
            future = operation.future
            if not future.done():
                if operation.error is not None:
                    future.set_exception(operation.error)
                else:
                    future.set_result(operation.result)
        if changes is not None:
            for listener in self._listeners:
                listener(changes)
