"""The URLs of a store on Redis."""

from __future__ import annotations

import pytest

from windlass.errors import StartError
from windlass.store.redis.address import parse


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "options", "shown"),
    [
        ("redis://h", "alone", (("h", 6379),), {}, "redis://h:6379"),
        ("redis://h:1/", "alone", (("h", 1),), {}, "redis://h:1"),
        (
            "redis://u:p%40%2Fw@h:1/2",
            "alone",
            (("h", 1),),
            {"username": "u", "password": "p@/w", "db": 2},
            "redis://u@h:1/2",
        ),
        ("redis://:pw@[::1]:7", "alone", (("::1", 7),), {"password": "pw"}, "redis://[::1]:7"),
        ("redis://h?password=pw", "alone", (("h", 6379),), {"password": "pw"}, "redis://h:6379"),
        ("redis://h?max_connections=9", "alone", (("h", 6379),), {"max_connections": 9}, "redis://h:6379"),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&socket_timeout=3",
            "alone",
            (("h", 6379),),
            {"ssl_ca_certs": "/ca.pem", "socket_timeout": 3.0},
            "rediss://h:6379",
        ),
        ("unix:///run/r.sock?db=3", "alone", (), {"db": 3}, "unix:///run/r.sock?db=3"),
        (
            "unix://u:pw@/r?db=3",
            "alone",
            (),
            {"username": "u", "password": "pw", "db": 3},
            "unix://u@/r?db=3",
        ),
        ("redis+cluster://a:1,b", "cluster", (("a", 1), ("b", 6379)), {}, "redis+cluster://a:1,b:6379"),
        ("rediss+cluster://:pw@a", "cluster", (("a", 6379),), {"password": "pw"}, "rediss+cluster://a:6379"),
        (
            "redis+sentinel://u:pw@a,b:5/shop/4",
            "sentinel",
            (("a", 26379), ("b", 5)),
            {"username": "u", "password": "pw", "db": 4},
            "redis+sentinel://u@a:26379,b:5/shop/4",
        ),
    ],
)
def test_a_url_is_read(
    url: str,
    kind: str,
    hosts: tuple[tuple[str, int], ...],
    options: dict[str, object],
    shown: str,
) -> None:
    """Planted: a port of servers for Sentinels; a password that is not decoded; one that is shown."""
    address = parse(url)
    assert (address.kind, address.hosts, address.options, str(address)) == (kind, hosts, options, shown)
    assert address.tls == url.startswith("rediss")
    assert parse(address.shown).hosts == hosts  # what is shown may be written again


def test_an_installation_has_a_name() -> None:
    """Planted: `prefix` left in what redis-py gets; a default that is shown."""
    address = parse("redis://h/3?prefix=shop-1_b&socket_timeout=2")
    assert (address.prefix, address.options) == ("shop-1_b", {"db": 3, "socket_timeout": 2.0})
    assert str(address) == "redis://h:6379/3?prefix=shop-1_b"
    assert str(parse("unix:///s?db=1&prefix=a")) == "unix:///s?db=1&prefix=a"
    assert parse("redis://h").prefix == "windlass"


def test_a_socket_and_a_service() -> None:
    assert parse("unix:///run/my%20redis.sock").path == "/run/my redis.sock"
    address = parse("redis+sentinel://a/shop?sentinel_username=s&sentinel_password=sp")
    assert (address.service, address.path) == ("shop", None)
    assert address.sentinel_options == {"username": "s", "password": "sp"}
    assert address.options == {}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "none of a Redis"),
        ("localhost:6379", "none of a Redis"),
        ("http://sesame", "none of a Redis"),
        ("redis://", "a server is host"),
        ("redis://h:port", "a server is host"),
        ("redis://h:0", "a server is host"),
        ("redis://h:65536", "a server is host"),
        ("redis://a,b", "only a Cluster and Sentinels are several"),
        ("redis://:sesame/x@h", "a server is host|a database: a number"),
        ("redis://h/zero", "a database: a number"),
        ("redis://h/1/2", "a database: a number"),
        ("redis://h?db=sesame", "db"),
        ("redis://h?colour=red", "colour is no parameter"),
        ("redis://h?sesame", "name=value"),
        ("redis://h?db=1&db=2", "twice"),
        ("redis://h?prefix=", "prefix takes"),
        ("redis://h?prefix=a:b", "prefix takes"),
        ("redis://h?retry_on_timeout=yes", "done twice"),
        ("redis://h?decode_responses=yes", "bytes"),
        ("redis://h?protocol=9", "protocol"),
        ("redis://h?socket_timeout=0", "more than 0"),
        ("redis://h?socket_connect_timeout=-1", "more than 0"),
        ("redis+sentinel://h/shop?socket_timeout=nan", "more than 0"),
        ("redis+cluster://h?socket_timeout=1e300", "at most"),
        ("redis://h?sentinel_password=sesame", "for redis.sentinel"),
        ("unix://", "absolute path"),
        ("unix://run/r.sock", "absolute path"),
        ("redis+cluster://h/1", "no databases"),
        ("redis+cluster://h?db=1", "no databases"),
        ("redis+cluster://", "a server is host"),
        ("redis+sentinel://h", "service"),
        ("redis+sentinel://h/shop/x", "a database: a number"),
    ],
)
def test_what_is_no_such_url_is_refused(url: str, why: str) -> None:
    """Planted: the rest of the URL in the sentence, and with it what may be a password (here: sesame)."""
    with pytest.raises(StartError, match=why) as refused:
        parse(url)
    assert "sesame" not in str(refused.value)
    assert "redis+cluster://" in str(refused.value)


def test_nothing_shows_the_password() -> None:
    """Planted: options in the repr."""
    address = parse("rediss+sentinel://u:sesame@a/shop?sentinel_password=simsim&ssl_password=simsim")
    assert "sesame" not in f"{address} {address!r}"
    assert "simsim" not in f"{address} {address!r}"
