"""Runners: who they are, by their tokens, and until when.

Only the SHA-256 of a token is stored. An identity ends seven days after its runner was last seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets

import structlog

from windlass.clock import Clock
from windlass.dispatch import labels
from windlass.dispatch.labels import Labels
from windlass.errors import Invalid, RegistrationDenied, RunnerUnknown
from windlass.ids import Ids
from windlass.queues.registry import Registry
from windlass.store import Runner as Record
from windlass.store import Store

log = structlog.get_logger("windlass.dispatch")

RUNNER = "rn"
"""The kind of a runner's id."""
IDENTITY = 7 * 24 * 3600 * 1000
"""How long an identity lasts after its last sign of life, ms."""
_NOTED_EVERY = 3600 * 1000
"""How often a sign of life is written down, ms."""
_SHOWN_EVERY = 60 * 1000
"""The same where other servers have to see it, ms."""
_AT_ONCE = 100
"""Runners that are looked at together."""
_AT_A_REGISTRATION = 8
"""Runners of long ago that each new one has forgotten: more than come, so that they do not pile up."""
MAX_NAME = 200
FEATURES = frozenset({"batch", "control", "events", "wait"})
"""What a runner may ask for beyond the oldest protocol."""


class Runner:
    """A registered runner, as this process knows it."""

    __slots__ = ("created_at", "digest", "features", "id", "labels", "name", "noted", "number", "seen_at")

    def __init__(self, record: Record, ids: Ids) -> None:
        self.number = record.number
        self.id = ids.numbered(RUNNER, record.number)
        self.name = record.name
        self.digest = record.digest
        self.labels: Labels = frozenset(record.labels)
        self.features = frozenset(record.features)
        self.created_at = record.created_at
        self.seen_at = self.noted = record.seen_at


class Runners:
    """All runners of the installation."""

    def __init__(
        self, store: Store, ids: Ids, clock: Clock, registry: Registry, registration_token: str | None
    ) -> None:
        self._store = store
        self._registry = registry
        self._ids = ids
        self._clock = clock
        self._secret = _digest(registration_token) if registration_token else None
        self._by_digest: dict[bytes, Runner] = {}
        self._by_id: dict[str, Runner] = {}
        self._doubted: set[int] = set()
        """Numbers of those that somebody here looks for: whether others saw them."""
        self._load()
        registry.listen(self._load)

    def _load(self) -> None:
        """Know those that are on record, and no others."""
        records = self._store.runners()
        for record in records:
            if record.digest not in self._by_digest:
                self._put(Runner(record, self._ids))
        if len(records) < len(self._by_digest):
            numbers = {record.number for record in records}
            for runner in [each for each in self._by_digest.values() if each.number not in numbers]:
                self._drop(runner)

    def _drop(self, runner: Runner) -> None:
        self._by_digest.pop(runner.digest, None)
        self._by_id.pop(runner.id, None)

    def _put(self, runner: Runner) -> None:
        self._by_digest[runner.digest] = self._by_id[runner.id] = runner

    def __len__(self) -> int:
        return len(self._by_digest)

    def all(self) -> list[Runner]:
        """Those whose identity has not ended, in order of their registration."""
        now = self._clock.now()
        living = [runner for runner in self._by_digest.values() if not self._over(runner, now)]
        return sorted(living, key=lambda runner: runner.number)

    async def register(
        self, token: object, name: object, offered: object, features: object
    ) -> tuple[Runner, str]:
        """A new runner and its token, which is shown this once.

        Raises RegistrationDenied for any token but the installation's, Invalid for the rest.
        """
        if self._secret is None:
            raise RegistrationDenied(
                "Registration is off: start the server with a registration token to let runners in."
            )
        if not isinstance(token, str) or not secrets.compare_digest(_digest(token), self._secret):
            raise RegistrationDenied
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise Invalid(f"A runner has a name of 1 to {MAX_NAME} printable characters.", field="name")
        if not isinstance(offered, (list, tuple)) or not isinstance(features, (list, tuple)):
            raise Invalid("labels and features are lists of strings.", field="labels")
        found = labels.check(offered, most=labels.MAX_OFFERED)
        wanted = sorted(FEATURES.intersection(one for one in features if isinstance(one, str)))
        secret = "rk_" + secrets.token_urlsafe(32)
        await self.forget_old(_AT_A_REGISTRATION)
        now = self._clock.now()
        record = Record(0, name, _digest(secret), tuple(sorted(found)), tuple(wanted), now, now)
        runner = Runner(await self._store.add_runner(record), self._ids)
        self._put(runner)
        log.info("runner_registered", runner=runner.id, name=name, labels=sorted(found))
        return runner, secret

    def known(self, token: str) -> Runner:
        """The runner with this token. Raises RunnerUnknown, also for one that was silent for too long."""
        digest = _digest(token)
        runner = self._by_digest.get(digest)
        if (
            runner is None
            or not secrets.compare_digest(runner.digest, digest)
            or self._over(runner, self._clock.now())
        ):
            raise RunnerUnknown
        return runner

    async def catch_up(self, token: str) -> None:
        """Look what other servers know of a token that is not known here. Raises StoreUnavailable."""
        runner = self._by_digest.get(_digest(token))
        if runner is None:
            await self._registry.catch_up()
        else:
            await self._look(runner)

    async def by_id(self, runner_id: str) -> Runner | None:
        """The runner with this id, which was issued."""
        if runner_id not in self._by_id:
            await self._registry.catch_up()
        return self._by_id.get(runner_id)

    def _over(self, runner: Runner, now: int) -> bool:
        """True where an identity has ended, as far as is known here."""
        # Who was heard of by others has been seen since the note that they made of it.
        late = _SHOWN_EVERY if self._store.shared else 0
        return runner.seen_at + IDENTITY + late <= now

    async def _look(self, runner: Runner) -> None:
        """Learn when other servers saw a runner last, or that they have forgotten it."""
        record = await self._store.runner(runner.number)
        if record is None:
            self._drop(runner)
        else:
            runner.seen_at = max(runner.seen_at, record.seen_at)

    async def look_at_all(self) -> None:
        """Learn when other servers saw those that were not seen here for longer than these take to say so.

        Raises StoreUnavailable.
        """
        if self._store.shared:
            limit = self._clock.now() - _SHOWN_EVERY
            quiet = [each for each in self._by_digest.values() if each.seen_at <= limit]
            for at in range(0, len(quiet), _AT_ONCE):
                await asyncio.gather(*map(self._look, quiet[at : at + _AT_ONCE]))

    async def seen(self, runner: Runner) -> None:
        """Note a sign of life: at once in memory, and now and then on disk."""
        runner.seen_at = now = self._clock.now()
        if now - runner.noted >= (_SHOWN_EVERY if self._store.shared else _NOTED_EVERY):
            runner.noted = now
            await self._store.seen_runner(runner.number, now)

    async def forget_old(self, most: int | None = None) -> None:
        """Remove those, `most` of them, that were silent for so long that a note on disk cannot be why."""
        limit = self._clock.now() - IDENTITY - _NOTED_EVERY
        silent = [
            each
            for each in self._by_digest.values()
            if each.seen_at <= limit and each.number not in self._doubted
        ][:most]
        if self._store.shared:
            self._doubted.update(each.number for each in silent)
            try:
                for runner in silent:
                    await self._look(runner)
            finally:
                self._doubted.difference_update(each.number for each in silent)
            silent = [each for each in silent if each.seen_at <= limit and each.id in self._by_id]
        for runner in silent:  # at once: nobody else may begin with them too
            self._drop(runner)
        for runner in silent:
            await self._store.remove_runner(runner.number)
            log.info("runner_forgotten", runner=runner.id, name=runner.name)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
