"""Rows of those who may call: API keys and runners."""

from __future__ import annotations

import apsw
import msgspec

from windlass.store.base import Key, Runner

_encode = msgspec.json.Encoder().encode
_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode


def read_keys(db: apsw.Connection) -> list[Key]:
    return [
        Key(key_id, name, digest, _decode_names(scopes), created_at)
        for key_id, name, digest, scopes, created_at in db.execute(
            "SELECT id, name, digest, scopes, created_at FROM keys"
        )
    ]


def write_key(db: apsw.Connection, key: Key) -> None:
    db.execute(
        "INSERT INTO keys (id, name, digest, scopes, created_at) VALUES (?, ?, ?, ?, ?)",
        (key.id, key.name, key.digest, _encode(key.scopes).decode(), key.created_at),
    )


def read_runners(db: apsw.Connection) -> list[Runner]:
    return [
        Runner(number, name, digest, _decode_names(labels), _decode_names(features), created_at, seen_at)
        for number, name, digest, labels, features, created_at, seen_at in db.execute(
            "SELECT id, name, digest, labels, features, created_at, seen_at FROM runners"
        )
    ]


def write_runner(db: apsw.Connection, runner: Runner) -> None:
    db.execute(
        "INSERT INTO runners (id, name, digest, labels, features, created_at, seen_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            runner.number,
            runner.name,
            runner.digest,
            _encode(runner.labels).decode(),
            _encode(runner.features).decode(),
            runner.created_at,
            runner.seen_at,
        ),
    )
