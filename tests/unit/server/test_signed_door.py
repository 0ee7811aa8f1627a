"""The door for clients of SQS: with keys a signature or a key, without any everybody; pairs and their end."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.unit.server.signing import TARGET, URL, Arrived, signed
from windlass.errors import ForeignOrigin, Unauthenticated
from windlass.server.auth import ANYBODY, Door, Principal, access_key_of, new_key, secret_access_key
from windlass.server.sigv4 import AccessKeyUnknown
from windlass.server.sqs.errors import SqsError
from windlass.store import Key

INSTALLATION = bytes(range(32))
KEY, TEXT = new_key("shop", ["send:orders"], 1_700_000_000_000)
OTHER, _ = new_key("other", ["all"], 1_700_000_000_000)


def pair_of(key: Key, installation: bytes = INSTALLATION) -> tuple[str, str]:
    return access_key_of(key.id), secret_access_key(installation, key)


def door_of(*keys: Key) -> Door:
    return Door(keys, secret=INSTALLATION)


def enter(door: Door, request: Arrived) -> Principal:
    where = {"server": ("127.0.0.1", 8000)}
    return door.enter_signed(
        request.method, request.path, request.query, request.headers, request.body, where
    )[0]


def request_of(key: Key, installation: bytes = INSTALLATION) -> Arrived:
    return signed(body=b"{}", headers=TARGET, pair=pair_of(key, installation))


def bearer(text: str) -> Arrived:
    return Arrived("POST", b"/", b"", ((b"host", b"h"), (b"authorization", f"Bearer {text}".encode())), b"")


def test_a_pair_is_made_of_the_installation_and_the_record() -> None:
    """Planted defects: a secret that is the same for each key, in each installation, or for a later key of
    the same id."""
    access_key, secret = pair_of(KEY)
    assert access_key == "WINDLASS" + KEY.id.upper()
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", secret)
    assert pair_of(KEY) == (access_key, secret)
    later = Key(KEY.id, KEY.name, KEY.digest, KEY.scopes, KEY.created_at + 1)
    others = {pair_of(OTHER)[1], pair_of(KEY, bytes(32))[1], pair_of(later)[1]}
    assert len(others | {secret}) == 4
    assert secret not in TEXT


def test_a_signature_or_a_key_lets_in() -> None:
    """Planted defect: whoever signs may do everything."""
    door = door_of(KEY, OTHER)
    for request in (request_of(KEY), bearer(TEXT), signed("GET", expires=60, pair=pair_of(KEY))):
        principal = enter(door, request)
        assert principal.name == "shop"
        assert principal.may("send", "orders")
        assert not principal.may("receive", "orders")
    assert enter(door, request_of(OTHER)).may("admin", "orders")


def test_what_does_not_let_in() -> None:
    """Planted defects: secrets that are the same in each installation; a body that is not signed."""
    door = door_of(KEY)
    with pytest.raises(SqsError) as caught:
        enter(door, request_of(KEY, bytes(32)))
    assert caught.value.name == "SignatureDoesNotMatch"
    with pytest.raises(SqsError) as caught:
        enter(door, replace(request_of(KEY), body=b"{ }"))
    assert caught.value.name == "SignatureDoesNotMatch"
    with pytest.raises(SqsError) as caught:
        enter(door, Arrived("POST", b"/", b"", ((b"host", b"h"),), b""))
    assert caught.value.name == "MissingAuthenticationToken"
    for wrong in ("wk_0_0", "", TEXT + "x"):
        with pytest.raises(Unauthenticated):
            enter(door, bearer(wrong))
    with pytest.raises(AccessKeyUnknown):
        enter(door, request_of(OTHER))


def test_a_revoked_key_signs_no_more() -> None:
    """Planted defect: a secret that was remembered outlives the key's record."""
    door = door_of(KEY, OTHER)
    request = request_of(KEY)
    assert enter(door, request).name == "shop"
    assert door.knows_access_key(access_key_of(KEY.id))
    door.load([OTHER])
    assert not door.knows_access_key(access_key_of(KEY.id))
    with pytest.raises(AccessKeyUnknown):
        enter(door, request)


def test_without_keys_signatures_are_not_looked_at() -> None:
    door = door_of()
    for request in (
        request_of(KEY),
        signed(pair=("test", "test")),
        bearer("x").with_header("host", "localhost"),
    ):
        assert enter(door, request) is ANYBODY
    assert enter(door, signed().with_header("authorization", "nonsense")) is ANYBODY
    with pytest.raises(ForeignOrigin):
        enter(door, request_of(KEY).with_header("host", "evil.example"))


def test_web_pages_of_others_stay_outside() -> None:
    """Planted defect: a page from anywhere may use a pair, or do without while there are no keys."""
    for door in (door_of(), door_of(KEY)):
        for name, value in (("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")):
            with pytest.raises(ForeignOrigin):
                enter(door, request_of(KEY).with_header(name, value))
        assert enter(door, request_of(KEY).with_header("origin", URL)).may("send", "orders")


def test_time_is_the_wall_clocks() -> None:
    request = request_of(KEY)
    door = Door([KEY], secret=INSTALLATION, now=lambda: request.made + 1000)
    with pytest.raises(SqsError) as caught:
        enter(door, request)
    assert caught.value.name == "RequestExpired"
