"""Outputs that are the expected one, and outputs that are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import Invalid
from windlass.judge.checkers import checker_of

texts = st.lists(st.sampled_from([b"1", b"2.5", b"x", b" ", b"\t", b"\n", b"\r\n", b"\x00", b"\xff"])).map(
    b"".join
)


@pytest.mark.parametrize(
    ("name", "output", "expected", "accepted"),
    [
        ("exact", b"1\n", b"1\n", True),
        ("exact", b"1", b"1\n", False),
        ("exact", b"1\r\n", b"1\n", False),
        ("", b"1 2  \n3\n\n\n", b"1 2\n3", True),
        ("", b"1\r\n2\r\n", b"1\n2\n", True),
        ("lines", b"1  2\n", b"1 2\n", False),
        ("lines", b" 1\n", b"1\n", False),
        ("lines", b"1\n\n2\n", b"1\n2\n", False),
        ("lines", b"", b"\n\n", True),
        ("lines", b"1\n2\n", b"1\n", False),
        ("lines", b"1\n", b"1\n2\n", False),
        ("tokens", b"1  2\n\n3", b"1 2 3\n", True),
        ("tokens", b"12 3", b"1 23", False),
        ("tokens", b"1 2", b"1 2 3", False),
        ("tokens", b"1 2 3", b"1 2", False),
        ("tokens", b"1.0", b"1", False),
        ("floats", b"1.0000001 x", b"1 x", True),
        ("floats", b"1.00001", b"1", False),
        ("floats:1e-3", b"1000.9", b"1000", True),
        ("floats:1e-3", b"1001.1", b"1000", False),
        ("floats:0.01", b"0.005", b"0", True),
        ("floats:0", b"1.0", b"1", True),
        ("floats", b"nan", b"1", False),
        ("floats", b"nan", b"nan", True),
        ("floats", b"inf", b"1e400", False),
        ("floats", b"1e400", b"1e401", False),
        ("floats", b"1_0", b"10", False),
        ("floats", b"0x10", b"16", False),
        ("floats", b"+.5", b"0.5", True),
        ("floats", b"5" + b"0" * 500, b"5" + b"0" * 499 + b"1", False),
        ("floats", b"yes", b"YES", False),
    ],
)
def test_what_counts_as_the_expected_output(
    name: str, output: bytes, expected: bytes, accepted: bool
) -> None:
    """Planted defects: a prefix that is enough; NaN that is near everything; infinities that are equal."""
    found = checker_of(name)(output, expected)
    assert found.accepted is accepted
    assert bool(found.reason) is not accepted


@pytest.mark.parametrize("name", ["exact", "lines", "tokens", "floats"])
@given(output=texts, expected=texts)
def test_each_checker_is_laxer_than_the_one_before(name: str, output: bytes, expected: bytes) -> None:
    order = ["exact", "lines", "tokens", "floats"]
    if checker_of(name)(output, expected).accepted:
        assert all(checker_of(lax)(output, expected).accepted for lax in order[order.index(name) :])
    assert checker_of(name)(output, output).accepted


def test_a_reason_shows_the_place_and_not_the_whole() -> None:
    """Planted defect: a wrong answer that is told all of what was expected."""
    secret = b"s" * 100_000
    reasons = [checker_of(name)(b"1", secret).reason for name in ("lines", "tokens", "floats")]
    assert all("1 is '1', not 'sss" in reason for reason in reasons)
    assert max(map(len, reasons)) < 120
    assert checker_of("exact")(b"12", b"13").reason == "differs at byte 1"
    assert checker_of("exact")(b"12", b"123").reason == "differs at byte 2"


@pytest.mark.parametrize(
    "name", ["Lines", "floats:", "floats:x", "floats:nan", "floats:-1", "floats:2", "../x"]
)
def test_what_is_no_checker_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as error:
        checker_of(name)
    assert error.value.field == "checker"
