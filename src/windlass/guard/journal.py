"""What the servers of one source tell each other, in two keys of one Redis.

`{KEY}:views` is a hash: who there is and how far they have read, so that what takes part of it takes all.

    epoch      a random name, made anew whenever anything was lost; numbers mean nothing across two of them
    run        which process of Redis this epoch belongs to: one that starts again may have lost the newest
    count      entries ever written in this epoch
    base       how many of them were cut from the front of the log
    settled    the epoch, once it is so old that no write of an earlier one can be under way
    secret     the filter's, the same for all
    s:NAME     of each server: the epoch, how many entries it has read, and how often it has said so

`{KEY}:log` is a stream of the entries; they are added in one transaction with `count`. `{KEY}:wake` is a
channel for those who need not wait for their next look. Nothing here expires; no clock of Redis is asked.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import redis
from redis.client import PubSub

Pack = dict[bytes, bytes]

BEGIN: bytes = b"0-0"
"""Before the first entry."""
_SERVER = b"s:"


class Broken(Exception):  # noqa: N818 - it is no error of the program
    """What is in Redis is not what the servers wrote."""


class Entry(NamedTuple):
    """That a write begins or has ended: `who`'s write `number` of these keys, as `by` tells it."""

    kind: Literal["begin", "end"]
    who: str
    number: int
    by: str
    keys: tuple[str, ...] = ()
    sure: bool = True


class Page(NamedTuple):
    """What the journal holds at one moment. `written` is `count`; numbers that are missing are -1."""

    epoch: str
    written: int
    base: int
    settled: bool
    servers: Mapping[str, str]
    """Each one's own words, `Standing` in text; they are new whenever it has spoken."""
    entries: Sequence[tuple[bytes, Entry]]
    """(id, entry) of those that were asked for, in order."""


class Standing(NamedTuple):
    """How far a server has read, in which epoch, and how often it has said so."""

    epoch: str
    position: int
    renewals: int

    def __str__(self) -> str:
        return f"{self.epoch} {self.position} {self.renewals}"

    @classmethod
    def read(cls, text: str) -> Standing:
        try:
            epoch, position, renewals = text.split()
            return cls(epoch, int(position), int(renewals))
        except ValueError:
            return cls("", -1, 0)


class Journal:
    """The two keys. One thread at a time; every method blocks, and raises RedisError or OSError."""

    def __init__(self, client: redis.Redis, state_key: str) -> None:
        """`client` gives bytes and fails after a second or two; it may try again what broke."""
        tag = state_key if "{" in state_key else f"{{{state_key}}}"  # one slot of a Cluster
        self._views, self._log, self.channel = f"{tag}:views", f"{tag}:log", f"{tag}:wake"
        self._client: Any = client  # whose types say "or a coroutine" everywhere
        self._name, self._run = "", ""

    def look(self) -> Page | None:
        """What there is, without entries; None where it is no epoch of this process of Redis."""
        page = self._page(self._execute(lambda pipe: pipe.hgetall(self._views))[0], [])
        return page if page.epoch and 0 <= page.base <= page.written else None

    def begin_epoch(self, instead_of: str | None, secret: bytes | None) -> None:
        """Make a new one, unless there is one by now that is not `instead_of`.

        `secret` is used where Redis has lost it.
        """
        with self._client.pipeline() as pipe:
            pipe.watch(self._views)
            page = self.look()
            if page is not None and page.epoch != instead_of:
                return
            kept = pipe.hget(self._views, "secret") or secret
            values: dict[str, str | int | bytes] = {
                "epoch": secrets.token_hex(8),
                "run": self._run,
                "count": 0,
            }
            values |= {"base": 0} | ({} if kept is None else {"secret": kept})
            pipe.multi()
            pipe.delete(self._views, self._log).hset(self._views, mapping=values).publish(
                self.channel, "epoch"
            )
            with contextlib.suppress(redis.WatchError):  # somebody else was faster; the next look tells
                pipe.execute()

    def exchange(
        self, me: str, standing: Standing, entries: Collection[Entry], after: bytes, *,
        settled: bool = False, wake: str = "",
    ) -> Page:  # fmt: skip
        """Add entries, say how far one has read, and read what follows `after`: all in one step.

        `settled`: say that the epoch is; `wake`: tell that to those who wait. Where the reply gets lost it
        may have been done all the same, and where the connection broke, twice. Raises Broken.
        """

        def step(pipe: Any) -> None:
            for entry in entries:
                pipe.xadd(self._log, {"e": json.dumps(entry)})
            if entries:
                pipe.hincrby(self._views, "count", len(entries))
            pipe.hset(self._views, f"s:{me}", str(standing))
            if settled:
                pipe.hset(self._views, "settled", standing.epoch)
            if wake:
                pipe.publish(self.channel, wake)
            pipe.hgetall(self._views).xrange(self._log, b"(" + after, "+")

        *_, views, found = self._execute(step)
        return self._page(views, [(at, _read(fields)) for at, fields in found])

    def cut(self, last: bytes, position: int) -> None:
        """Cut the front of the log, up to but without the entry with this id and position."""
        with self._client.pipeline() as pipe:
            pipe.watch(self._views)
            if position - 1 <= int(pipe.hget(self._views, "base") or 0):
                return
            pipe.multi()
            pipe.xtrim(self._log, minid=last, approximate=False).hset(self._views, "base", position - 1)
            with contextlib.suppress(redis.WatchError):  # the next time
                pipe.execute()

    def strike(self, server: str, words: str) -> None:
        """Take out a server that has said nothing since these words."""
        with self._client.pipeline() as pipe:
            pipe.watch(self._views)
            if _text(pipe.hget(self._views, f"s:{server}")) != words:
                return
            pipe.multi()
            pipe.hdel(self._views, f"s:{server}")
            with contextlib.suppress(redis.WatchError):  # the next time
                pipe.execute()

    def leave(self, me: str) -> None:
        """Take oneself out; nobody waits for whoever is not there."""
        self._client.pipeline().hdel(self._views, f"s:{me}").publish(self.channel, "left").execute()

    def secret(self, own: bytes) -> bytes:
        """The secret of all; `own` if nobody has given one yet."""
        pipe = self._client.pipeline()
        pipe.hsetnx(self._views, "secret", own).hget(self._views, "secret")
        return bytes(pipe.execute()[1])

    def listen(self) -> PubSub:
        """A connection of its own on which it is told that there is something new; close it."""
        listening: PubSub = self._client.pubsub(ignore_subscribe_messages=True)
        listening.subscribe(self.channel)
        return listening

    # --- which process answers ----------------------------------------------------------------------

    def _execute(self, step: Callable[[Any], object]) -> list[Any]:
        """Run what `step` asks for in one transaction, on a connection that is known to lead to `_run`.

        A connection lives as long as the process at its other end. We give it a name, and a transaction whose
        connection has none has gone to one that may have been started since.
        """
        for known in (True, False):
            if not (known and self._name):
                self._introduce()
            pipe = self._client.pipeline()
            step(pipe)
            replies: list[Any] = pipe.client_getname().execute()
            name = replies.pop()
            if _text(name) == self._name:
                return replies
        self._name = ""
        raise redis.ConnectionError("connections to Redis do not last: is there a proxy that shares them?")

    def _introduce(self) -> None:
        """Name the connection, then ask where it leads: the other way round it might be another by then."""
        name = f"windlass-{secrets.token_hex(8)}"
        self._client.client_setname(name)
        try:
            self._run = str(self._client.info("server")["run_id"])
        except redis.exceptions.NoPermissionError:
            raise
        except redis.ResponseError:
            self._run = "-"  # fakeredis has no INFO, and ends with this process
        self._name = name

    def _page(self, views: Pack, entries: Sequence[tuple[bytes, Entry]]) -> Page:
        epoch = _text(views.get(b"epoch")) if _text(views.get(b"run")) == self._run else ""
        servers = {
            _text(name[len(_SERVER) :]): _text(words)
            for name, words in views.items()
            if name.startswith(_SERVER)
        }
        settled = bool(epoch) and _text(views.get(b"settled")) == epoch
        return Page(epoch, _count(views, b"count"), _count(views, b"base"), settled, servers, entries)


def _read(fields: Pack) -> Entry:
    try:
        kind, who, number, by, keys, sure = json.loads(fields[b"e"])
        return Entry(kind, str(who), int(number), str(by), tuple(map(str, keys)), bool(sure))
    except (KeyError, ValueError, TypeError):
        raise Broken("there is something in the log that no server wrote") from None


def _count(views: Pack, name: bytes) -> int:
    text = views.get(name, b"")
    return int(text) if text.isdigit() else -1


def _text(value: bytes | str | None) -> str:
    return value if isinstance(value, str) else (value or b"").decode(errors="replace")
