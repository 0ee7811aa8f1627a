"""What is refused here though another server knows better: looked up once, and then tried again.

Routes look into memory for queues, keys and runners. On a store that servers share, what is in memory may be
behind by what another server did a moment ago. So a refusal for want of one of these is not yet the answer.
"""

from __future__ import annotations

from windlass.dispatch.runners import Runners
from windlass.errors import QueueNotFound, RunnerUnknown, Unauthenticated
from windlass.queues import Queues
from windlass.server.auth import ACCESS_KEY, BEARER, KEY, Door
from windlass.server.sigv4 import AccessKeyUnknown

_RUNNER = b"rk_"


class Behind:
    """Catches up with other servers. On a store that is not shared there is nothing to catch up with."""

    def __init__(self, queues: Queues, door: Door, runners: Runners) -> None:
        self._store = queues.store
        self._registry = queues.registry
        self._door = door
        self._runners = runners
        self._registry.listen(lambda: door.load(self._store.keys()))

    def concerns(self, error: Exception) -> bool:
        """True where a request that failed so may fare better after `make_up`."""
        return self._store.shared and isinstance(error, (QueueNotFound, Unauthenticated, AccessKeyUnknown))

    async def make_up(self, error: Exception, queue: str, authorization: bytes) -> bool:
        """Look for what a request was refused for; True: it is there, try again. Raises StoreUnavailable.

        `queue`: the one that its path names, "" for none.
        """
        if not self.concerns(error):
            return False
        if isinstance(error, QueueNotFound):
            return bool(queue) and await self._find_queue(queue)
        if isinstance(error, AccessKeyUnknown):
            return await self._find_access_key(error.access_key)
        return await self.find_caller(authorization)

    async def _find_queue(self, name: str) -> bool:
        try:
            self._store.queue_number(name)
        except QueueNotFound:
            return await self._store.learn(name)
        await self._registry.catch_up()  # the one that was known here is gone: it may be another's name now
        return True

    async def find_caller(self, authorization: bytes) -> bool:
        """Look for the key or the runner of a header that is unknown here; True where it is known now."""
        if not self._store.shared or authorization[:7].lower() != BEARER:
            return False
        token = authorization[7:].strip()
        if token.startswith(KEY):
            if not self._door.knows(token):
                await self._registry.catch_up()
            return self._door.knows(token)
        if token.startswith(_RUNNER):
            text = token.decode("latin-1")
            if not self._knows(text):
                await self._runners.catch_up(text)
            return self._knows(text)
        return False

    async def _find_access_key(self, access_key: str) -> bool:
        if not self._door.knows_access_key(access_key) and access_key.startswith(ACCESS_KEY):
            await self._registry.catch_up()
        return self._door.knows_access_key(access_key)

    def _knows(self, token: str) -> bool:
        try:
            self._runners.known(token)
        except RunnerUnknown:
            return False
        return True
