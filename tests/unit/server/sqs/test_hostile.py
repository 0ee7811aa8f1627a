"""What one client may cost all others: time of the event loop, and memory."""

from __future__ import annotations

import time

import pytest

from windlass.clock import ManualClock
from windlass.message import Message
from windlass.server.sqs import message_attributes, receiving
from windlass.server.sqs.attempts import Attempts
from windlass.server.sqs.errors import SqsError
from windlass.server.sqs.requests import AttributeValue


@pytest.mark.parametrize("text", ["1" * 100_000 + "x", "1" * 50_000 + "." + "1" * 50_000 + "x"])
def test_a_long_number_that_is_none(text: str) -> None:
    """Planted defect: a pattern that tries each digit as the last before the point: 300 s for these."""
    begun = time.process_time()
    with pytest.raises(SqsError, match="number"):
        message_attributes.check({"n": AttributeValue("Number", text)})
    assert time.process_time() - begun < 30


@pytest.mark.parametrize("text", ["1", "+1.", "-.5", "1.5e10", "1E-3", "0" * 1000 + ".0"])
def test_numbers(text: str) -> None:
    assert message_attributes.check({"n": AttributeValue("Number", text)}) == len(text) + 7


@pytest.mark.parametrize("text", [".", "+", "", "e1", "1e", "1.2.3", "1 ", "1\n", "\u0661", "0x1", "--1"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(SqsError):
        message_attributes.check({"n": AttributeValue("Number", text)})


def test_a_selection_of_megabytes_is_not_kept() -> None:
    """Planted defect: each list of names remembered, however long."""
    names = [f"n{number}" for number in range(11)]
    attributes = {name: AttributeValue("String", "x") for name in ("n1", "other")}
    before = message_attributes._known_selection.cache_info().misses
    assert [*message_attributes.selected(attributes, names)] == ["n1"]
    assert message_attributes._known_selection.cache_info().misses == before
    assert [*message_attributes.selected(attributes, names[:10])] == ["n1"]
    assert message_attributes._known_selection.cache_info().misses == before + 1


def test_system_attributes_named_again_and_again_are_kept_once() -> None:
    """Planted defect: a list of a million names, all good, is what is remembered."""
    once = receiving._system(frozenset(["SenderId"]))
    assert receiving._system(frozenset(["SenderId"] * 1000)) is once


def message(size: int) -> Message:
    return Message(1, 1, b"x" * size, 0, 1, 0, None, None)


def test_attempts_are_remembered_up_to_so_many_bytes() -> None:
    """Planted defect: ten thousand of them, of ten messages of a megabyte each."""
    attempts = Attempts(ManualClock())
    given = [message(1024 * 1024)] * 10
    for n in range(20):
        attempts.put(1, str(n), given)
    kept = [n for n in range(20) if attempts.get(1, str(n))]
    assert kept == [14, 15, 16, 17, 18, 19]
    attempts.put(1, "all", given * 7)
    assert not attempts.get(1, "all")
    assert attempts.get(1, "19")
