"""What a queue may be named, and which settings contradict each other."""

from __future__ import annotations

import pytest

from windlass.errors import Forbidden, Invalid
from windlass.queues.rules import check_name, check_settings


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-d", "a" * 128, "windlass", "Windlass.x"])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", " ", ".a", "-a", "_a", "a b", "a/b", "a\n", "é", "a" * 129, "\x00"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_name(name)
    assert caught.value.field == "name"


def test_a_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(Invalid) as caught:
        check_name("x" * 10_240)
    assert len(caught.value.detail) < 300


def test_the_products_own_names_are_forbidden() -> None:
    with pytest.raises(Forbidden):
        check_name("windlass.jobs")


def test_a_dead_letter_that_would_never_be_used() -> None:
    with pytest.raises(Invalid):
        check_settings({"dead_letter": "d", "max_deliveries": None})
    check_settings({"dead_letter": "d", "max_deliveries": 3})
    check_settings({"dead_letter": "d"})
    check_settings({"dead_letter": None, "max_deliveries": None})
