"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
import typer

from windlass.cli.sizes import parse_kib, size


@pytest.mark.parametrize(
    ("text", "kib"), [("512K", 512), ("64M", 65_536), ("1.5g", 1_572_864), ("2 GiB", 2_097_152), ("0K", 1)]
)
def test_a_size_is_kib(text: str, kib: int) -> None:
    assert parse_kib(text) == kib


@pytest.mark.parametrize("text", ["", "64", "64 T", "-1M", "1e9K", "M", "\u0663M"])
def test_what_could_mean_anything_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_kib(text)


@pytest.mark.parametrize(
    ("kib", "text"),
    [(0, "0 KiB"), (1023, "1,023 KiB"), (1536, "1.5 MiB"), (65_536, "64 MiB"), (3_145_728, "3 GiB")],
)
def test_a_size_for_people(kib: float, text: str) -> None:
    assert size(kib) == text
