"""The verbs as Redis runs them: functions in Lua, in files of their own, loaded as one library.

The library's name carries a digest of its text. Two versions of Windlass on one Redis have a library each, so
a rolling restart mixes nothing up.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

import redis

_PARTS = (
    "common", "lapse", "send", "send_with", "receive", "acknowledge", "extend", "release", "cancel", "told",
    "resume", "move", "redrive", "expire", "stats", "find", "peek", "oldest", "held", "untold", "page",
    "configure", "attend", "purge", "registry",
)  # fmt: skip
_FILLS = frozenset({"send", "send_with", "arrive", "configure", "register", "found"})
"""What fills a queue, and so stops when Redis has no memory left. All else goes on."""
_PASSING = frozenset({"beat", "claim_sweep", "claim_due", "set_due", "note_due", "turn", "tell", "attend"})
"""What writes and promises nobody anything: if a failover loses it, it is done again."""
_VERB = re.compile(r"^(verbs|writers)\.(\w+) = function", re.MULTILINE)


MAX_ANSWERS = 1_000_000
"""Idempotency-Keys of one queue remembered at most."""


def prefix() -> str:
    """What the functions' names begin with."""
    return _prefix(MAX_ANSWERS)


@cache
def _prefix(max_answers: int) -> str:
    return f"windlass_{hashlib.sha256(_body(max_answers).encode()).hexdigest()[:12]}_"


@cache
def _body(max_answers: int) -> str:
    folder = files("windlass.store.redis") / "functions"
    parts = [f"local MAX_ANSWERS = {max_answers}"]
    return "\n".join([*parts, *((folder / f"{part}.lua").read_text() for part in _PARTS)])


def _registered(kind: str, verb: str, name: str) -> str:
    """While a library is loaded there is nothing to loop with."""
    flags = "'no-writes'" if kind == "verbs" else "" if verb in _FILLS else "'allow-oom'"
    return (
        f"redis.register_function{{ function_name = '{name}{verb}', callback = {kind}.{verb},"
        f" flags = {{ {flags} }} }}"
    )


def is_confirmed(verb: str) -> bool:
    """Whether its answer says that something was changed, so that replicas may have to be waited for."""
    return verb not in _PASSING and verb not in _looks()


@cache
def _looks() -> frozenset[str]:
    return frozenset(verb for kind, verb in _VERB.findall(_body(MAX_ANSWERS)) if kind == "verbs")


def load(client: redis.Redis) -> None:
    """Have a server know the functions, or know them still. Raises RedisError."""
    name = prefix()
    body = _body(MAX_ANSWERS)
    registered = [_registered(kind, verb, name) for kind, verb in _VERB.findall(body)]
    client.function_load("\n".join([f"#!lua name={name[:-1]}", body, *registered]), replace=True)
