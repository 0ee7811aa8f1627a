"""Rows of messages as the writer and the readers handle them, and how they come out of the database."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import apsw
import msgspec

from windlass.clock import rfc3339
from windlass.message import Message, State
from windlass.store.sqlite.memory import QueueState


class Row(msgspec.Struct, array_like=True, gc=False):
    """A living message as the writer handles it: ids and small columns; the content beside it."""

    id: int
    seq: int
    at: int
    rank: int
    headers: str | None
    home: int | None
    token: int | None
    """None: it has no row in `deliveries`."""
    count: int | None
    size: int
    generation: int
    run: int
    """The seq at which its run begins, where `ready` was read."""
    amount: int
    """... and how many messages that run has."""
    grp: str | None = None  # from here on absent where few_columns were read
    expires: int | None = None
    origin: int | None = None
    base: int | None = None
    state: int | None = None
    due: int | None = None
    since: int | None = None
    holder: str | None = None
    lapsed: int | None = None
    life: str | None = None
    claim: str | None = None
    tentative: int | None = None
    forgiven: int | None = None
    unseen: int | None = None
    content: bytes = b""

    def message(
        self, queue: QueueState, *, handed_out: bool = False, delivery: int = 0, lease_until: int = 0
    ) -> Message:
        return Message(
            self.home or queue.number,
            self.id,
            self.content,
            self.at,
            (self.count or 0) + handed_out,
            9 - self.rank,
            self.grp,
            self.headers.encode() if self.headers is not None else None,
            delivery,
            lease_until,
        )


_decode_rows = msgspec.json.Decoder(list[Row]).decode

NO_RUN = "0 AS run, 0 AS amount"
OF_RUN = "r.seq AS run, r.amount AS amount"


def columns(source: str, *, content: bool = False, run: str = NO_RUN) -> str:
    """A query for `fetch` over messages `m` and their deliveries `d`.

    One row of JSON for all messages, and their contents end to end: the interpreter's lock is let go and
    taken once a statement, not once a message, while the event loop wants it too.
    """
    return f"""
    SELECT json_group_array(json_array(id, seq, at, rank, headers, home, token, count, length(content),
               generation, run, amount, grp, expires, origin, base, state, due, since, holder, lapsed, life,
               claim, tentative, forgiven, unseen)),
           CAST(group_concat(CAST(content AS TEXT), '') AS BLOB)
      FROM (SELECT m.id AS id, m.generation AS generation, m.seq AS seq, m.at AS at, m.rank AS rank,
                   m.grp AS grp, CAST(m.headers AS TEXT) AS headers, m.expires AS expires, m.home AS home,
                   m.origin AS origin, d.token AS token, d.count AS count, d.base AS base,
                   d.state AS state, d.due AS due, d.since AS since, d.holder AS holder,
                   d.lapsed AS lapsed, d.life AS life, d.claim AS claim, d.tentative AS tentative,
                   d.forgiven AS forgiven, d.unseen AS unseen, {run},
                   {"m.content" if content else "x''"} AS content
              FROM {source})
    """


def few_columns(source: str) -> str:
    """The same of runs `r`, without what only groups, ttls and records need: half the cost, on the hottest
    path."""
    return f"""
    SELECT json_group_array(json_array(id, seq, at, rank, headers, home, token, count, length(content),
               generation, run, amount)),
           CAST(group_concat(CAST(content AS TEXT), '') AS BLOB)
      FROM (SELECT m.id AS id, m.generation AS generation, m.seq AS seq, m.at AS at, m.rank AS rank,
                   CAST(m.headers AS TEXT) AS headers, m.home AS home, d.token AS token, d.count AS count,
                   {OF_RUN}, m.content AS content
              FROM {source})
    """


IDS = "carray(?1) c CROSS JOIN messages m ON m.id = c.value LEFT JOIN deliveries d ON d.id = m.id"
BY_ID = columns(IDS)

# What acknowledging takes: less than half of that.
SETTLING_BY_ID = f"""
    SELECT json_group_array(json_array(m.id, m.seq, 0, 0, null, null, d.token, 0, 0, m.generation, 0, 0,
               m.grp, m.expires, null, null, d.state, d.due, d.since, d.holder)), null
      FROM {IDS}
"""


def fetch(db: apsw.Connection, sql: str, bindings: Sequence[Any] | dict[str, Any]) -> list[Row]:
    """Run a query made by columns or few_columns."""
    text, contents = next(db.execute(sql, bindings))
    rows = _decode_rows(text)
    if contents:
        start = 0
        for row in rows:
            end = start + row.size
            row.content = contents[start:end]
            start = end
    return rows


def numbers(ids: Iterable[int]) -> Any:
    """Many numbers as one binding: `x IN carray(?)`."""
    return apsw.carray(array("q", ids))


@lru_cache(maxsize=256)
def values(prefix: str, row: str, count: int, suffix: str = "") -> str:
    """An INSERT of `count` rows in one statement."""
    return f"{prefix} VALUES {','.join([row] * count)} {suffix}"


def events_of(row: Row) -> list[dict[str, Any]]:
    """A living message's past: sent, and what `life` kept, and the lease that runs."""
    events: list[dict[str, Any]] = [{"event": "sent", "at": rfc3339(row.at).decode()}]
    if row.life:
        for event in msgspec.json.decode(f"[{row.life}]"):
            for name in ("at", "until"):
                if isinstance(event.get(name), int):
                    event[name] = rfc3339(event[name]).decode()
            events.append(event)
    if row.state == State.LEASED and row.since is not None and row.due is not None:
        events.append(
            {
                "event": "leased",
                "at": rfc3339(row.since).decode(),
                "until": rfc3339(row.due).decode(),
                "by": row.holder,
            }
        )
    elif row.state == State.DELAYED and row.due is not None:
        events.append({"event": "delayed", "until": rfc3339(row.due).decode()})
    return events
