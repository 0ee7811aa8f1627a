"""Where the settings of the products' guard are read from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from windlass import settings
from windlass.errors import StartError

NAMES = ("WINDLASS_REDIS", "REDIS_URL", "WINDLASS_BLOOM_STATE_NAMESPACE", "BLOOM_STATE_NAMESPACE")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*NAMES, "WINDLASS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("environment", "option", "wanted"),
    [
        ({}, None, None),
        ({"REDIS_URL": "redis://a"}, None, "redis://a"),
        ({"REDIS_URL": "redis://a", "WINDLASS_REDIS": "redis://b"}, None, "redis://b"),
        ({"REDIS_URL": "redis://a", "WINDLASS_REDIS": "redis://b"}, "redis://c", "redis://c"),
        ({"REDIS": "not ours"}, None, None),
    ],
)
def test_redis_has_the_name_that_everybody_gives_it(
    monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], option: str | None, wanted: str | None
) -> None:
    """Planted defect: an alias without the option's own name: `--redis` is passed over in silence."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings.read(redis=option).redis == wanted


def test_a_file_names_settings_as_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "windlass.toml").write_text('redis = "redis://a"\nbloom_state_namespace = "shop"\n')
    read = settings.read()
    assert (read.redis, read.bloom_state_key) == ("redis://a", "bloom:state:shop")


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({}, "bloom:filter"),
        ({"BLOOM_STATE_NAMESPACE": ""}, "bloom:filter"),
        ({"BLOOM_STATE_NAMESPACE": "shop"}, "bloom:state:shop"),
        ({"BLOOM_STATE_NAMESPACE": "shop", "WINDLASS_BLOOM_STATE_NAMESPACE": "other"}, "bloom:state:other"),
    ],
)
def test_the_filters_key(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], key: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings.read().bloom_state_key == key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bloom_expected_items", "0"),
        ("bloom_false_positive_rate", "0"),
        ("bloom_false_positive_rate", "0.6"),
        ("bloom_false_positive_rate", "nan"),
        ("products_writes", "anywhere"),
        ("max_lag_seconds", "0"),
        ("cache_bytes", "-1"),
    ],
)
def test_what_makes_no_sense_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"WINDLASS_{name.upper()}", value)
    with pytest.raises(StartError, match=name):
        settings.read()
