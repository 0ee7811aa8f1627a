"""Ids and receipts: what was never issued does not verify."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.ids import ID_LENGTH, PLACE_BITS, RECEIPT_LENGTH, Ids

IDS = Ids(b"k" * 32)
queues = st.integers(0, (1 << 32) - 1)
numbers = st.integers(0, (1 << 56) - 1)
deliveries = st.integers(0, (1 << 32) - 1)


@given(queues, numbers, deliveries)
def test_what_was_issued_comes_back(queue: int, number: int, delivery: int) -> None:
    """Fails when a high bit of a number is lost, or a text has letters that a URL changes."""
    message = IDS.message(queue, number)
    receipt = IDS.receipt(queue, number, delivery)
    assert re.fullmatch(rb"[A-Za-z0-9_-]{%d}" % ID_LENGTH, message)
    assert re.fullmatch(rb"[A-Za-z0-9_-]{%d}" % RECEIPT_LENGTH, receipt)
    assert IDS.parse_message(message) == IDS.parse_message(message.decode()) == (queue, number)
    assert IDS.parse_receipt(receipt) == IDS.parse_receipt(receipt.decode()) == (queue, number, delivery)


@given(queues, numbers, st.booleans())
def test_a_uuid_comes_back_as_what_its_id_is(queue: int, number: int, spread: bool) -> None:
    """Fails when a bit of the number is lost, or when what is no UUID's text is read as one."""
    ids = Ids(b"k" * 32, spread=spread)
    if spread:
        number = queue << PLACE_BITS | number >> 8
    text = ids.uuid(queue, number)
    assert str(uuid.UUID(text)) == text
    assert ids.parse_message(text) == ids.parse_message(text.encode()) == (queue, number)
    assert ids.parse_message(text) == ids.parse_message(ids.message(queue, number))
    for other in (
        text.upper(),
        text.replace("-", "+"),
        text[:-1] + "\u00e9",
        text[:-1] + chr(ord(text[-1]) ^ 1),
    ):
        assert other == text or ids.parse_message(other) is None


@given(queues, st.lists(numbers, max_size=50))
def test_many_ids_are_the_ids_one_by_one(queue: int, several: list[int]) -> None:
    """Fails when neighbours in a block of four get each other's MAC."""
    assert IDS.messages(queue, several) == [IDS.message(queue, number) for number in several]
    assert IDS.uuids(queue, several) == [IDS.uuid(queue, number) for number in several]


@given(queues, numbers | st.sampled_from([0, 1 << 24, 1 << 32]), st.integers(1, 200), st.booleans())
def test_a_run_of_ids_is_the_ids_one_by_one(queue: int, last: int, amount: int, spread: bool) -> None:
    """Fails when a run begins with another MAC, or goes on past what all of it is taken to begin with."""
    ids = Ids(b"k" * 32, spread=spread)
    first = min(max(0, last - amount // 2), (1 << 56) - amount)
    if spread:
        first = queue << PLACE_BITS | min(first >> 8, (1 << PLACE_BITS) - 1 - amount)
    run = range(first, first + amount)
    assert ids.messages(queue, run) == [ids.message(queue, number) for number in run]
    assert ids.uuids(queue, run) == [ids.uuid(queue, number) for number in run]


@given(queues, numbers, st.data())
def test_a_changed_letter_is_found(queue: int, number: int, data: st.DataObject) -> None:
    """Fails when some bits of the text are not covered by the MAC, so that one message has two ids."""
    for text, parse in (
        (IDS.message(queue, number), IDS.parse_message),
        (IDS.receipt(queue, number, 1), IDS.parse_receipt),
    ):
        at = data.draw(st.integers(0, len(text) - 1))
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= \n\u00e9"
        letter = data.draw(st.sampled_from(letters).filter(chr(text[at]).__ne__))
        assert parse(text[:at].decode() + letter + text[at + 1 :].decode()) is None


@pytest.mark.parametrize(
    "text", ["", "x", "A" * 31, "A" * 33, "A" * 36, "\u00e9" * 32, b"\xff" * 32, "=" * 32]
)
def test_other_texts_are_nothing(text: str | bytes) -> None:
    """Fails when a text of any shape raises."""
    assert IDS.parse_message(text) is None
    assert IDS.parse_receipt(text) is None


def test_secrets_and_kinds_do_not_mix() -> None:
    """Fails when another installation's ids pass, or a receipt reads as an id."""
    assert Ids(b"j" * 32).parse_message(IDS.message(1, 2)) is None
    assert Ids(b"j" * 32).parse_receipt(IDS.receipt(1, 2, 3)) is None
    assert len({IDS.message(q, n) for q in range(20) for n in range(20)}) == 400
    assert IDS.parse_message(IDS.receipt(1, 2, 3)[:ID_LENGTH]) is None


kinds = st.sampled_from(["sb", "jb", "rn"])


@given(kinds, numbers)
def test_a_numbered_id_comes_back_as_its_own_kind_alone(kind: str, number: int) -> None:
    """Fails when the kind is not under the MAC, so that a submission's number opens a job."""
    text = IDS.numbered(kind, number)
    assert re.fullmatch(r"[a-z]{2}_[A-Za-z0-9_-]{24}", text)
    assert IDS.parse_numbered(kind, text) == number
    assert Ids(b"j" * 32).parse_numbered(kind, text) is None
    for other in {"sb", "jb", "rn"} - {kind}:
        assert IDS.parse_numbered(other, text) is None
        assert IDS.parse_numbered(other, other + text[2:]) is None


@given(numbers, st.data())
def test_a_changed_letter_of_a_numbered_id_is_found(number: int, data: st.DataObject) -> None:
    text = IDS.numbered("sb", number)
    at = data.draw(st.integers(0, len(text) - 1))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= \n\u00e9"
    letter = data.draw(st.sampled_from(letters).filter(text[at].__ne__))
    assert IDS.parse_numbered("sb", text[:at] + letter + text[at + 1 :]) is None


@pytest.mark.parametrize("text", ["", "sb_", "sb", "sb_" + "A" * 24, "sb_" + "\u00e9" * 24, "\0" * 27])
def test_other_texts_are_no_numbered_ids(text: str) -> None:
    assert IDS.parse_numbered("sb", text) is None
