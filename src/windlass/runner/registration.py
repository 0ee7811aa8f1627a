"""Who this runner is to its server: kept on disk, made anew when the server no longer knows it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from windlass.client.errors import WindlassError
from windlass.errors import RegistrationRefused
from windlass.runner import wire
from windlass.runner.link import Answer, Link
from windlass.runner.wire import Malformed, Registered

log = structlog.get_logger("windlass.runner")

SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between two tries to register; they double."""
IN_A_ROW = 2
"""So many 401 with nothing between them mean that the identity has ended; one alone may be a mistake."""


class Registration:
    """The runner's identity. Everybody who sends its token tells how that was answered."""

    def __init__(
        self,
        link: Link,
        file: Path | None,
        *,
        name: str,
        token: str | None,
        labels: tuple[str, ...] = (),
        features: tuple[str, ...] = wire.FEATURES,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`file`: where the identity is kept, if anywhere. `token`: None where what is kept has to do."""
        self._link = link
        self._file = file
        self._kept_for = _KeptFor(link.url, name, labels, features)
        self._token = token
        self._chance = chance
        self._identity: Registered | None = None
        self._refusals = 0
        self._final: RegistrationRefused | None = None
        self._lock = asyncio.Lock()

    async def identity(self) -> Registered:
        """The present identity: the one in use, else the kept one, else a new one, however long that takes.

        Raises RegistrationRefused.
        """
        async with self._lock:
            if self._final is not None:
                raise self._final
            if self._identity is None:
                self._identity = self._kept()
                if self._identity is not None:
                    who = self._identity.runner_id
                    log.info("identity_kept", message=f"This is {who} again, as kept in {self._file}.")
            if self._identity is None:
                try:
                    self._identity = await self._register()
                except RegistrationRefused as refused:
                    self._final = refused
                    raise
            return self._identity

    def heard(self, identity: Registered, status: int) -> bool:
        """The server answered a request of `identity`; False where it did not know it (401).

        After two of those in a row identity() makes a new one.
        """
        refused = status == 401
        if identity is not self._identity:
            return not refused
        self._refusals = self._refusals + 1 if refused else 0
        if self._refusals >= IN_A_ROW:
            log.warning("identity_ended", message=f"The server no longer knows {identity.runner_id}.")
            self._identity = None
            self._refusals = 0
            self._forget()
        return not refused

    async def _register(self) -> Registered:
        if not self._token:
            raise RegistrationRefused(
                "There is no registration token: give the server's with --token, --token-file or"
                " WINDLASS_REGISTRATION_TOKEN."
            )
        pause = SHORTEST_PAUSE
        plain = False
        while True:
            try:
                new, plain = await self._try(self._token, plain)
            except (WindlassError, Malformed) as error:
                why = str(error)
            except RegistrationRefused:
                raise
            except Exception as error:  # whatever it is, the next try must come
                log.exception("registration_fault")
                why = repr(error)
            else:
                if new is not None:
                    log.info("registered", message=f"Registered at {self._link.url} as {new.runner_id}.")
                    self._keep(new)
                    return new
                why = "it wants the plain form" if plain else "it took neither form"
            wait = max(SHORTEST_PAUSE, pause * (1 - self._chance() / 2))
            log.warning("not_registered", message=f"Not registered yet: {why}. Next try in {wait:.0f} s.")
            await asyncio.sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _try(self, token: str, plain: bool) -> tuple[Registered | None, bool]:
        """(identity, False), or (None, the form to try next) where the server did not like this one."""
        kept_for = self._kept_for
        body = wire.registration(
            token, kept_for.name, () if plain else kept_for.labels, () if plain else kept_for.features
        )
        answer = await self._link.call("POST", "/runners/register", body)
        match answer.status:
            case 201:
                return wire.registered(answer.body), plain
            case 401:
                raise self._refusal(answer)
            case 400 | 422:  # a server that knows the oldest form only may be strict about it
                return None, not plain
            case _:
                raise Malformed(str(answer))

    def _refusal(self, answer: Answer) -> RegistrationRefused:
        return RegistrationRefused(
            f"{self._link.url} refuses the registration token, or has registration off: {answer}."
            " Compare the token with the server's WINDLASS_REGISTRATION_TOKEN."
        )

    def _kept(self) -> Registered | None:
        """What an earlier process kept, if it was for the same server, name, labels and features."""
        if self._file is None:
            return None
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("identity_unreadable", message=f"{self._file} cannot be used: {error}")
            return None
        names = self._kept_for.__struct_fields__
        other = [name for name in names if getattr(kept.kept_for, name) != getattr(self._kept_for, name)]
        if other:
            log.warning(
                "identity_of_another",
                message=f"The identity in {self._file} was made with other {' and '.join(other)}. This runner"
                " needs one of its own.",
            )
        return None if other else kept.registered

    def _keep(self, identity: Registered) -> None:
        """Write it where only this user can read it, whole or not at all; a full disk is no reason to end."""
        if self._file is None:
            return
        part = self._file.with_name(self._file.name + ".part")
        try:
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.encode(_Kept(self._kept_for, identity)))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._file)
        except OSError as error:
            log.warning("identity_not_kept", message=f"The identity is not kept in {self._file}: {error}")

    def _forget(self) -> None:
        if self._file is not None:
            try:
                self._file.unlink(missing_ok=True)
            except OSError as error:
                log.warning("identity_not_removed", message=f"{self._file} cannot be removed: {error}")


class _KeptFor(msgspec.Struct, frozen=True):
    """What an identity was made with; with anything else it is not the same runner."""

    server: str
    name: str
    labels: tuple[str, ...]
    features: tuple[str, ...]


class _Kept(msgspec.Struct, frozen=True):
    kept_for: _KeptFor
    registered: Registered
