"""The table of languages holds together, and adding to it is one row."""

from __future__ import annotations

import pytest

from windlass.errors import Invalid
from windlass.judge.languages import LANGUAGES, Language, language_of, language_of_file


def test_the_numbers_of_the_wire_never_change() -> None:
    """Planted defect: two languages change places, and every old submission is in another one."""
    assert [(number, row.name, row.source) for number, row in LANGUAGES.items()][:3] == [
        (0, "c11", "main.c"),
        (1, "c++17", "main.cpp"),
        (2, "python3", "main.py"),
    ]


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=lambda language: language.name)
def test_a_row_holds_together(language: Language) -> None:
    assert language_of(language.number) is language
    assert language_of_file(f"a-plus-b{language.source[4:]}") is language
    assert language.compiling is not None or language.program == language.source
    assert language.argv[-1].endswith(language.program)
    assert "/" not in language.source + language.program
    assert language.missing() == []


@pytest.mark.parametrize("number", [-1, 3, 10**20])
def test_an_unknown_number_is_refused_with_those_that_there_are(number: int) -> None:
    with pytest.raises(Invalid, match=r"0 \(c11\), 1 \(c\+\+17\), 2 \(python3\)") as error:
        language_of(number)
    assert error.value.field == "language"


@pytest.mark.parametrize("name", ["main", "main.", "main.rb", "", "c", ".", "main.c.txt"])
def test_a_file_of_no_language(name: str) -> None:
    assert language_of_file(name) is None


def test_what_is_not_installed_is_told() -> None:
    absent = Language(
        number=9, name="b", source="main.b", compiling=None, program="main.b", argv=("no-such-b", "main.b")
    )
    assert absent.missing() == ["no-such-b"]
