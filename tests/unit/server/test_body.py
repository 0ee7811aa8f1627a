"""Bodies: what JSON must be here, and how one is read."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import BadRequest, BrokenJson, Invalid, RequestTimeout, TooLarge
from windlass.server.body import MAX_BODY, Reading, check_depth, check_json, check_text

values = st.recursive(
    st.none() | st.booleans() | st.text(alphabet='[]{}"\\ax\u00e9\U0001f600') | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\'), inner, max_size=3),
    max_leaves=20,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(values, st.integers(0, 110), st.booleans())
def test_depth_is_what_a_parser_would_find(value: Any, more: int, ascii_only: bool) -> None:
    """Planted defect: counting the brackets inside strings, or behind an escaped quote."""
    for _ in range(more):
        value = [value]
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    if depth(value) > 100:
        with pytest.raises(Invalid):
            check_depth(text, "content")
    else:
        check_depth(text, "content")


def test_looking_for_depth_takes_no_time_to_speak_of() -> None:
    """Planted defect: a loop over every byte, or a pattern that goes back and forth: a body of 16 MiB would
    stop everybody for seconds."""
    text = b"[" + b",".join([b'"lorem [ipsum] \\" dolor"'] * 700_000) + b"]"
    begun = time.process_time()
    check_depth(text, "content")
    assert time.process_time() - begun < 2


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_a_surrogate_pair_is(text: str) -> None:
    """Escaped text is refused exactly where it has a surrogate without its partner."""
    escaped = json.dumps(text).encode()
    whole = json.loads(escaped)
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in whole):
        with pytest.raises(Invalid):
            check_text(escaped)
    else:
        check_text(escaped)


@pytest.mark.parametrize(
    "text", [b'"\\\\ud800"', b'"\\uD83D\\uDE00"', b'"\\\\\\uD83D\\uDE00"', b"\xef\xbf\xbf"]
)
def test_what_is_no_lone_surrogate(text: bytes) -> None:
    check_text(text)


@pytest.mark.parametrize(
    "text", [b'"\\ud800\\\\udc00"', b'"\\udc00\\ud800"', b'"\\\\\\ud800"', b'"\xed\xb0\x80"']
)
def test_what_is_a_lone_surrogate(text: bytes) -> None:
    with pytest.raises(Invalid):
        check_text(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_plain_refusal(text: bytes) -> None:
    with contextlib.suppress(BrokenJson, Invalid):
        check_json(text)
        json.loads(text)  # whoever lets it pass must find JSON


# --- reading --------------------------------------------------------------------------------------


def read(*events: Any, timeout: float = 30) -> bytes:
    """What a body of these ASGI events comes to; after the last the client says nothing."""

    async def scenario() -> bytes:
        left = list(events)

        async def receive() -> Any:
            if not left:
                await asyncio.Event().wait()
            return left.pop(0)

        return await asyncio.wait_for(Reading(timeout).read(receive), 60)

    return asyncio.run(scenario())


def part(text: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": text, "more_body": more}


GONE = {"type": "http.disconnect"}


def test_a_body_in_one_piece_and_in_many() -> None:
    assert read(part(b"abc", more=False)) == b"abc"
    assert read(part(b"a"), part(b""), part(b"bc", more=False)) == b"abc"
    assert read({"type": "http.request"}) == b""


@pytest.mark.parametrize("events", [[GONE], [part(b"a"), GONE], [part(b"a"), part(b"b"), GONE]])
def test_a_body_cut_off(events: list[Any]) -> None:
    with pytest.raises(BadRequest):
        read(*events)


def test_a_body_too_large_in_one_piece_and_in_many() -> None:
    """Planted defect: measuring only what comes in many pieces."""
    with pytest.raises(TooLarge):
        read(part(b"x" * (MAX_BODY + 1), more=False))
    with pytest.raises(TooLarge):
        read(*[part(b"x" * (MAX_BODY // 2 + 1))] * 2)
    assert len(read(part(b"x" * MAX_BODY, more=False))) == MAX_BODY


def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = itertools.count(0, 20)
    monkeypatch.setattr("windlass.server.body.time.monotonic", lambda: next(moments))
    with pytest.raises(RequestTimeout):
        read(part(b"a"), timeout=30)


def test_being_cancelled_is_no_timeout_and_leaves_nothing() -> None:
    async def scenario() -> None:
        reading = Reading(30)

        async def receive() -> Any:
            await asyncio.Event().wait()

        task = asyncio.create_task(reading.read(receive))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not reading._tasks

    asyncio.run(scenario())
