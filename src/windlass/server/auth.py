"""Who may come in: API keys, and the browser's origin.

A key is `wk_<id>_<secret>`; the store holds the SHA-256 of the whole. 256 random bits need no slow hash,
and a look-up by digest takes no time that depends on the secret. A request costs one hash and two
dictionary look-ups.

Clients of SQS sign their requests instead (sigv4.py), and whoever verifies that has to know the secret. So
each key has a second one, made of the installation's secret and the key's record, and kept nowhere.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from hmac import digest
from typing import Any
from urllib.parse import urlsplit

from windlass.errors import BadRequest, Forbidden, ForeignOrigin, Invalid, Unauthenticated
from windlass.server import signed_chunks, sigv4
from windlass.store import Key

BEARER, KEY = b"bearer ", b"wk_"
"""How a header with a key begins, and the key."""
ACCESS_KEY = "WINDLASS"
"""How an access key id begins; the key's id follows."""
SEND, RECEIVE, ADMIN = "send", "receive", "admin"
_SCOPE = re.compile(r"^(?:all|(?:send|receive|admin):[A-Za-z0-9*][A-Za-z0-9._-]{0,127}\*?)\Z")
_REMEMBERED = 10_000


def new_key(name: str, scopes: Iterable[str], now: int) -> tuple[Key, str]:
    """A fresh key and its text, which is shown once. Raises Invalid for a scope that is none."""
    wanted = tuple(scopes)
    for scope in wanted:
        if not _SCOPE.match(scope):
            raise Invalid(
                f"{scope!r} is no scope. Use all, or send:QUEUE, receive:QUEUE or admin:QUEUE,"
                " where QUEUE may end in *.",
                field="scope",
            )
    if not wanted:
        raise Invalid("A key needs a scope, or it opens nothing: try --scope all.", field="scope")
    key_id = secrets.token_hex(4)
    text = f"wk_{key_id}_{secrets.token_urlsafe(32)}"
    return Key(key_id, name or key_id, sha256(text.encode()).digest(), wanted, now), text


def access_key_of(key_id: str) -> str:
    """The access key id of a key, for clients of SQS."""
    return ACCESS_KEY + key_id.upper()


@lru_cache(maxsize=1000)
def secret_access_key(installation: bytes, key: Key) -> str:
    """The secret that belongs to it: 40 characters, of the installation's secret and the key's record.

    The time of the record is its version: another key of the same id would have another secret.
    """
    made = digest(installation, f"sqs secret access key\0{key.id}\0{key.created_at}".encode(), "sha256")
    return urlsafe_b64encode(made[:30]).decode()


class Principal:
    """Who asks, and what they may do."""

    __slots__ = ("_known", "_scopes", "name")

    def __init__(self, name: str, scopes: Iterable[str]) -> None:
        self.name = name
        self._scopes = tuple(scopes)
        self._known: dict[tuple[str, str], bool] = {}

    def may(self, action: str, queue: str) -> bool:
        """True where a scope covers `action` (SEND, RECEIVE, ADMIN) on `queue`."""
        known = self._known.get((action, queue))
        if known is None:
            known = any(_covers(scope, action, queue) for scope in self._scopes)
            if len(self._known) < _REMEMBERED:
                self._known[action, queue] = known
        return known

    def demand(self, action: str, queue: str) -> None:
        """Raise Forbidden where may() says no."""
        if not self.may(action, queue):
            raise Forbidden(f"This key's scopes do not cover {action}:{queue}.")


def _covers(scope: str, action: str, queue: str) -> bool:
    if scope == "all":
        return True
    granted, _, pattern = scope.partition(":")
    if granted != action:
        return False
    return queue.startswith(pattern[:-1]) if pattern.endswith("*") else queue == pattern


ANYBODY = Principal("", ["all"])
STRANGER = Principal("", [])
"""Without an API key where one is needed: let in only as far as a route that has other means."""


class Door:
    """Looks at a request's headers before anything else does."""

    def __init__(
        self,
        keys: Iterable[Key],
        *,
        secret: bytes = b"",
        insecure: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`secret` is the installation's. `now` is the time in seconds by which signatures are judged.

        That is the wall clock, whatever the engine's clock says: clients sign by theirs, and both may be set.
        """
        self._secret = secret
        self._insecure = insecure
        self._now = now
        self._hosts: set[bytes] = set()
        self.load(keys)

    def load(self, keys: Iterable[Key]) -> None:
        """Take over the keys that there are now."""
        self._by_digest: dict[bytes, Principal] = {}
        self._by_access_key: dict[str, tuple[Key, Principal]] = {}
        for key in keys:
            principal = Principal(key.name, key.scopes)
            self._by_digest[key.digest] = principal
            self._by_access_key[access_key_of(key.id)] = key, principal

    @property
    def open(self) -> bool:
        """True while no key exists: then whoever reaches this address may come in."""
        return not self._by_digest

    def knows(self, key: bytes) -> bool:
        return sha256(key).digest() in self._by_digest

    def knows_access_key(self, access_key: str) -> bool:
        return access_key in self._by_access_key

    def enter(self, headers: Mapping[bytes, bytes], scope: Mapping[str, Any]) -> Principal:
        """Who asks. Raises Unauthenticated, ForeignOrigin."""
        self.check_origin(headers)
        host = headers.get(b"host", b"")
        if self._by_digest:
            authorization = headers.get(b"authorization", b"")
            if authorization[:7].lower() == BEARER:
                principal = self._by_digest.get(sha256(authorization[7:]).digest())
                if principal is not None:
                    return principal
            raise Unauthenticated(
                "Send an API key as `Authorization: Bearer wk_...`."
                " Make one with `windlass key create --scope all`."
            )
        if host not in self._hosts:
            self._check_host(host, scope)
        return ANYBODY

    def enter_signed(
        self,
        method: str,
        path: bytes,
        query: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        scope: Mapping[str, Any],
    ) -> tuple[Principal, bytes]:
        """Who asks, where a client of SQS may be the one: by a signature, or else as `enter` has it. And the
        body, out of its chunks where it came in those of SigV4.

        `path` and `query` are as they came, `headers` all of them, the body whole. While there are no keys,
        a signature is not looked at. Raises Unauthenticated, ForeignOrigin; SqsError for a signature that is
        not good, and of these sigv4.AccessKeyUnknown for a key that another server may know.
        """
        known = dict(headers)
        if self.open or known.get(b"authorization", b"")[:7].lower() == BEARER:
            principal = self.enter(known, scope)
            if known.get(signed_chunks.HASHED, b"").startswith(b"STREAMING-"):
                body = signed_chunks.decode(body, known, None)
            return principal, body
        self.check_origin(known)
        access_key, body = sigv4.verify(method, path, query, headers, body, self._now(), self._secret_of)
        return self._by_access_key[access_key][1], body

    def _secret_of(self, access_key: str) -> str | None:
        found = self._by_access_key.get(access_key)
        return None if found is None else secret_access_key(self._secret, found[0])

    def check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """Keep other origins' web pages out. Raises ForeignOrigin."""
        if b"origin" in headers or b"sec-fetch-site" in headers:
            _check_origin(headers, headers.get(b"host", b""))

    def _check_host(self, host: bytes, scope: Mapping[str, Any]) -> None:
        """Without keys, a name that a web page chose (DNS rebinding) must not lead here."""
        try:
            name = urlsplit(f"//{host.decode('latin-1')}").hostname or ""
        except ValueError:
            raise BadRequest("The Host header is no host.") from None
        here = (scope.get("server") or ("",))[0]
        if not (self._insecure or not host or name == here or is_loopback(name)):
            raise ForeignOrigin(
                f"Without API keys this server answers to localhost only, not to Host {name[:100]!r}."
                " Make a key with `windlass key create`."
            )
        if len(self._hosts) < _REMEMBERED:
            self._hosts.add(host)


def _check_origin(headers: Mapping[bytes, bytes], host: bytes) -> None:
    # "same-site" is another port of this host: a page there that asks for no answer sends no Origin.
    if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
        raise ForeignOrigin
    origin = headers.get(b"origin")
    if origin is not None and (not host or origin.partition(b"://")[2].lower() != host.lower()):
        raise ForeignOrigin


def is_loopback(host: str) -> bool:
    """True for localhost and the loopback addresses."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
