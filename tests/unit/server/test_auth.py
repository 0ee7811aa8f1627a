"""Keys, scopes, hosts and origins, one function at a time."""

from __future__ import annotations

from hashlib import sha256

import pytest

from windlass.errors import ForeignOrigin, Invalid, Unauthenticated
from windlass.server.auth import ANYBODY, Door, Principal, is_loopback, new_key
from windlass.store import Key


@pytest.mark.parametrize(
    ("scope", "action", "queue", "covered"),
    [
        ("all", "admin", "anything", True),
        ("send:orders", "send", "orders", True),
        ("send:orders", "send", "orders2", False),
        ("send:orders", "receive", "orders", False),
        ("send:orders*", "send", "orders2", True),
        ("send:orders.*", "send", "orders", False),
        ("admin:*", "admin", "", True),
        ("receive:*", "send", "q", False),
    ],
)
def test_what_a_scope_covers(scope: str, action: str, queue: str, covered: bool) -> None:
    principal = Principal("p", [scope])
    assert principal.may(action, queue) is covered
    assert principal.may(action, queue) is covered, "the second answer comes from memory"


def test_the_memory_of_a_principal_is_bounded() -> None:
    principal = Principal("p", ["send:q*"])
    for n in range(20_000):
        assert principal.may("send", f"q{n}")
    assert len(principal._known) <= 10_000


@pytest.mark.parametrize(
    "scope", ["", "send", "send:", "read:q", "all:q", "send:a*b", "send:a b", "send:q\n", "ALL"]
)
def test_what_is_no_scope(scope: str) -> None:
    with pytest.raises(Invalid):
        new_key("", [scope], 0)


def test_a_key_needs_a_scope() -> None:
    with pytest.raises(Invalid):
        new_key("", [], 0)


def test_a_new_key_keeps_only_a_digest() -> None:
    key, text = new_key("shop", ["all"], 7)
    assert text.startswith(f"wk_{key.id}_")
    assert key == Key(key.id, "shop", sha256(text.encode()).digest(), ("all",), 7)
    assert new_key("", ["all"], 7)[1] != text


def test_a_door_with_keys_asks_for_one() -> None:
    key, text = new_key("shop", ["all"], 0)
    door = Door([key])
    assert not door.open
    assert door.enter({b"authorization": f"Bearer {text}".encode()}, {}).name == "shop"
    for wrong in (b"", b"Bearer ", text.encode(), b"Basic " + text.encode(), f"Bearer {text} ".encode()):
        with pytest.raises(Unauthenticated):
            door.enter({b"authorization": wrong}, {})
    door.load([])
    assert door.enter({}, {}) is ANYBODY


def test_a_host_that_was_seen_is_known_and_the_memory_is_bounded() -> None:
    door = Door([])
    for n in range(20_000):
        door.enter({b"host": b"h%d.localhost" % n}, {})
    assert len(door._hosts) <= 10_000
    with pytest.raises(ForeignOrigin):
        door.enter({b"host": b"evil.example"}, {})


def test_the_servers_own_address_is_a_host() -> None:
    scope = {"server": ("192.168.1.7", 8000)}
    assert Door([]).enter({b"host": b"192.168.1.7:8000"}, scope) is ANYBODY


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "a.localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "localhost.evil", "127.0.0.1.nip.io", "192.168.1.1"])
def test_no_loopback(host: str) -> None:
    assert not is_loopback(host)
