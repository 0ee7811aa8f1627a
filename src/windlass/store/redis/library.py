"""The verbs as Redis runs them: functions in Lua, in files of their own, loaded as one library.

The library's name carries a digest of its text. Two versions of Windlass on one Redis have a library each, so
a rolling restart mixes nothing up; what no server uses any more is taken away by `windlass store tidy`'s
reader, who finds it with FUNCTION LIST.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import redis

_PARTS = (
    "common", "send", "send_with", "receive", "settle", "move", "expire", "look", "queue", "registry",
)  # fmt: skip
_REGISTER = """
-- What empties a queue goes on when memory is full; what fills it does not.
local FILLS = { send = true, send_with = true, arrive = true, configure = true, register = true, found = true }
for name, run in pairs(writers) do
  redis.register_function{ function_name = 'PREFIX' .. name, callback = run,
                           flags = FILLS[name] and {} or { 'allow-oom' } }
end
for name, run in pairs(verbs) do
  redis.register_function{ function_name = 'PREFIX' .. name, callback = run, flags = { 'no-writes' } }
end
"""


@cache
def prefix() -> str:
    """What the functions' names begin with."""
    return f"windlass_{hashlib.sha256(_body().encode()).hexdigest()[:12]}_"


@cache
def _body() -> str:
    folder = files("windlass.store.redis") / "functions"
    return "\n".join((folder / f"{part}.lua").read_text() for part in _PARTS) + _REGISTER


def load(client: redis.Redis) -> None:
    """Have a server know the functions, or know them still. Raises RedisError."""
    name = prefix()
    client.function_load(f"#!lua name={name[:-1]}\n{_body().replace('PREFIX', name)}", replace=True)
