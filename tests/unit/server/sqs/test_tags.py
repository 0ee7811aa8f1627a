"""A queue's tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.message import QueueSettings
from windlass.server.sqs import tags
from windlass.server.sqs.errors import SqsError


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(SqsError) as error:
        call()
    return error.value.name


def test_tags_have_the_bounds_of_sqs() -> None:
    """Fails when a bound is shut at its end, or open beyond it."""
    longest = {"k" * 128: "v" * 256, "empty": ""}
    assert tags.add("q", {}, longest) == longest
    fifty = {f"k{n}": "" for n in range(50)}
    assert tags.add("q", fifty, {"k1": "another"})["k1"] == "another"
    for wrong in (
        {"": "v"},
        {"k" * 129: "v"},
        {"k": "v" * 257},
        {"aws:k": "v"},
        {"AWS:k": "v"},
        {"k\n": "v"},
        {"k": "\x00"},
        {"k": "<"},
    ):
        assert refused(lambda wrong=wrong: tags.add("q", {}, wrong)) == "InvalidParameterValue"  # type: ignore[misc]
    assert refused(lambda: tags.add("q", fifty, {"more": ""})) == "InvalidParameterValue"
    assert refused(lambda: tags.add_some("q", fifty, {})) == "MissingParameter"


def test_tags_go_by_their_keys() -> None:
    """Fails when an unknown key is an error, or a key takes others with it."""
    assert tags.remove({"a": "1", "b": "2"}, ["a", "c"]) == {"b": "2"}
    for keys in ([], [""], ["a", "k" * 129]):
        assert refused(lambda keys=keys: tags.remove({"a": "1"}, keys)) == "InvalidParameterValue"  # type: ignore[misc]


@given(st.dictionaries(st.text(), st.text()))
def test_any_tags_are_an_error_of_sqs_or_kept_beside_the_attributes(new: dict[str, str]) -> None:
    """Fails when tags touch what is kept besides, or when the last one leaves a trace."""
    old = {"DelaySeconds": "3"}
    try:
        added = tags.add("q", {}, new)
    except SqsError as error:
        assert error.status == 400  # noqa: PT017 - most are refused
        return
    settings = msgspec.structs.replace(QueueSettings(), sqs=tags.kept(old, added))
    assert tags.of(settings) == new
    assert settings.sqs["DelaySeconds"] == "3"
    assert tags.kept(settings.sqs, {}) == old
