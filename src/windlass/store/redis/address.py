"""The URL of a store on Redis: who is asked, as whom, and under which name an installation's keys lie."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode

import redis
from redis.connection import parse_url

from windlass.errors import StartError

PREFIX = "windlass"
"""The installation's name where the URL gives none."""

FORMS = (
    "redis://[user:password@]host[:port][/db], rediss://… for TLS, unix:///path?db=0, "
    "redis+cluster://host:port,host:port, rediss+cluster://…, or "
    "redis+sentinel://[user:password@]host:port,host:port/service[/db]"
)

Kind = Literal["alone", "cluster", "sentinel"]

_KINDS: dict[str, tuple[Kind, str]] = {
    "redis": ("alone", "redis"),
    "rediss": ("alone", "rediss"),
    "unix": ("alone", "unix"),
    "redis+cluster": ("cluster", "redis"),
    "rediss+cluster": ("cluster", "rediss"),
    "redis+sentinel": ("sentinel", "redis"),
    "rediss+sentinel": ("sentinel", "rediss"),
}
_PORTS = {"alone": 6379, "cluster": 6379, "sentinel": 26379}
_OURS = ("prefix", "sentinel_username", "sentinel_password")
_REFUSED = {
    "retry_on_timeout": "a command that is sent twice may be done twice",
    "retry_on_error": "a command that is sent twice may be done twice",
    "decode_responses": "contents of messages are bytes",
    "encoding": "contents of messages are bytes",
    "encoding_errors": "contents of messages are bytes",
}


@dataclass(frozen=True)
class Address:
    """What a URL says. Neither `str` nor `repr` of it has a password in it."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    """Who is asked first, host and port: the server, some nodes of the Cluster, or the Sentinels."""
    path: str | None
    """The path of a unix socket; then there are no hosts."""
    service: str
    """What the Sentinels call the master and its replicas; empty without Sentinel."""
    prefix: str
    """The installation's name, with which its keys begin."""
    tls: bool
    shown: str
    """The URL as it may be shown."""
    options: dict[str, Any] = field(repr=False, hash=False)
    """What redis-py's connections take besides host, port and path."""
    sentinel_options: dict[str, Any] = field(repr=False, hash=False)
    """Who one is to the Sentinels: username and password, where they want them."""

    def __str__(self) -> str:
        return self.shown


def parse(url: str) -> Address:
    """Read a URL. Raises StartError, which says what to do and shows nothing that may be a password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _KINDS:
        raise StartError(f"The store's URL is none of a Redis (--store). Write {FORMS}.")
    try:
        return _read(scheme, rest)
    except ValueError as error:
        raise StartError(
            f"The store's URL (--store {scheme}://…) is wrong: {str(error).rstrip('.')}. Write {FORMS};"
            " in a password, all but letters, digits and -._~ goes as %XX."
        ) from None


def _read(scheme: str, rest: str) -> Address:
    """Read what follows the scheme. Raises ValueError, without a word of what was given."""
    kind, plain = _KINDS[scheme]
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, at, listed = authority.rpartition("@")
    ours, theirs = _parameters(query)
    prefix = ours.get("prefix", PREFIX)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", prefix):
        raise ValueError("prefix takes letters, digits, dashes and underscores, one at least")
    if ours.keys() - {"prefix"} and kind != "sentinel":
        raise ValueError("sentinel_username and sentinel_password are for redis+sentinel://")
    hosts: tuple[tuple[str, int], ...] = ()
    service = ""
    if plain == "unix":
        if listed or not path:
            raise ValueError("unix:// is followed by the absolute path of a socket: unix:///run/redis.sock")
        options = _options(f"unix://{userinfo}{at}/{path}", theirs)
    else:
        if kind == "sentinel":
            service, _, path = path.partition("/")
            if not re.fullmatch(r"[A-Za-z0-9._-]+", service):
                raise ValueError("after the Sentinels comes /service, the name under which they know it")
        if path and not path.isdecimal():
            raise ValueError("what follows the last / is a database: a number")
        hosts = tuple(_host(each, _PORTS[kind]) for each in listed.split(","))
        if kind == "alone" and len(hosts) > 1:
            raise ValueError("only a Cluster and Sentinels are several: redis+cluster://, redis+sentinel://")
        options = _options(f"{plain}://{userinfo}{at}redis/{path}", theirs)
        del options["host"]
    if kind == "cluster" and options.get("db"):
        raise ValueError("a Cluster has no databases: leave the number out")
    options.pop("connection_class", None)
    socket = options.pop("path", None)
    return Address(
        kind=kind,
        hosts=hosts,
        path=socket,
        service=service,
        prefix=prefix,
        tls=plain == "rediss",
        shown=_shown(scheme, socket or _listed(hosts, service), prefix, options),
        options=options,
        sentinel_options={name.removeprefix("sentinel_"): ours[name] for name in ours if name != "prefix"},
    )


def _listed(hosts: tuple[tuple[str, int], ...], service: str) -> str:
    places = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
    return ",".join(places) + (f"/{service}" if service else "")


def _shown(scheme: str, where: str, prefix: str, options: dict[str, Any]) -> str:
    if user := options.get("username"):
        where = f"{quote(user)}@{where}"
    if options.get("db"):
        where += f"?db={options['db']}" if scheme == "unix" else f"/{options['db']}"
    if prefix != PREFIX:
        where += f"{'&' if '?' in where else '?'}prefix={prefix}"
    return f"{scheme}://{where}"


def _parameters(query: str) -> tuple[dict[str, str], dict[str, str]]:
    """Those that are Windlass's own, and those that are redis-py's. Raises ValueError."""
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError("what follows ? is name=value&name=value") from None
    named = dict(given)
    if len(named) != len(given):
        raise ValueError("a parameter is given twice")
    for name, why in _REFUSED.items():
        if name in named:
            raise ValueError(f"leave out {name}: {why}")
    ours = {name: value for name, value in named.items() if name in _OURS}
    return ours, {name: value for name, value in named.items() if name not in _OURS}


def _options(url: str, parameters: dict[str, str]) -> dict[str, Any]:
    """What redis-py reads in a plain URL, and takes. Raises ValueError."""
    options: dict[str, Any] = parse_url(f"{url}?{urlencode(parameters)}")  # type: ignore[no-untyped-call]
    for name in _TIMEOUTS & options.keys():
        if not 0 < options[name] <= _LONGEST:  # nan is none of these
            raise ValueError(f"{name} is in seconds: more than 0, {_LONGEST:,} at most")
    connection = options.get("connection_class", redis.Connection)
    given = {name: value for name, value in options.items() if name not in ("connection_class", *_POOLS)}
    try:
        connection(**given)  # it connects when it is first used
    except TypeError:
        raise ValueError(_unknown(parameters, connection)) from None
    except redis.RedisError as error:
        raise ValueError(f"redis-py does not take it: {error}") from None
    return options


_POOLS = ("max_connections",)
_TIMEOUTS = {"socket_timeout", "socket_connect_timeout"}
_LONGEST = 3_600


def _unknown(parameters: dict[str, str], connection: type[Any]) -> str:
    """Which parameter it is that redis-py does not know."""
    for name, value in parameters.items():
        if name not in _POOLS:
            try:
                connection(**{name: value})
            except TypeError:
                return f"{name} is no parameter that redis-py knows"
            except (ValueError, redis.RedisError):
                continue
    return "redis-py does not know one of its parameters"


def _host(text: str, port: int) -> tuple[str, int]:
    """`host`, `host:port` or `[v6]:port`. Raises ValueError."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:]+)(?::(\d{1,5}))?", text)
    if found is None or not 0 < int(found[2] or port) < 65_536:
        raise ValueError("a server is host, host:port or [IPv6 address]:port, with commas between several")
    return found[1].strip("[]"), int(found[2] or port)
