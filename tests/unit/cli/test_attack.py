"""windlass products attack against a small server: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.harness import free_port
from tests.unit.attack.shop import Shop, served
from windlass import cli

REAL = [f"product-{number}" for number in range(50)]
SHORT = ("--seconds", "0.5", "--rate", "200")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["products", "attack", *arguments])


def test_it_attacks_and_shows_what_came_of_it(tmp_path: Path) -> None:
    shop = Shop(REAL)
    with served(shop) as url:
        result = run("--server", url, *SHORT, "--plot", str(tmp_path / "attack.svg"))
    assert result.exit_code == 0, result.output
    assert "round trips that were made (measured by /metrics)" in result.stdout
    assert (tmp_path / "attack.svg").read_text().startswith("<?xml")
    assert shop.guard.counts().requests > 0


def test_json_is_all_that_is_on_stdout() -> None:
    """Planted defect: round trips saved and round trips made are taken for each other."""
    shop = Shop(REAL)
    with served(shop) as url:
        result = run("--server", url, *SHORT, "--json", "--mix", "1:1:0")
    document = json.loads(result.stdout)
    assert document["database_roundtrips"] == shop.calls
    assert document["kinds"]["crafted"]["requests"] == 0


def test_ids_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("\nproduct-1\nproduct-2\n")
    shop = Shop(REAL)
    with served(shop) as url:
        result = run("--server", url, *SHORT, "--json", "--mix", "1:0:0", "--ids", str(tmp_path / "ids"))
    assert json.loads(result.stdout)["database_roundtrips"] == shop.calls == 2


def test_a_real_product_that_is_denied_is_a_failure() -> None:
    """Planted defect: the exit status is 0 all the same."""
    shop = Shop(REAL)
    shop.hidden = set(REAL)
    with served(shop) as url:
        result = run("--server", url, *SHORT, "--mix", "1:0:0")
    assert result.exit_code == 1
    assert "got a 404: product-" in result.stderr
    assert "report it" in result.stderr


def test_failures_and_what_others_do_is_remarked() -> None:
    shop = Shop(REAL)
    shop.failing = set(REAL)
    with served(shop) as url:
        result = run("--server", url, *SHORT, "--mix", "1:0:0")
    assert result.exit_code == 0
    assert "real ids failed: 503: The database is gone." in result.stderr
    assert "look-ups less than were sent" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mix", "1:2"], "three whole numbers"),
        (["--mix", "0:0:0"], "three whole numbers"),
        (["--mix", "-1:1:1"], "three whole numbers"),
        (["--mix", "1:1:many"], "three whole numbers"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--rate", "0"], "--rate"),
        (["--connections", "257"], "--connections"),
        (["--ids", "/nowhere/ids"], "cannot be read"),
        (["--ids", "/dev/null"], "there are no ids"),
        (["--plot", "attack.pdf"], ".png or .svg"),
        (["--plot", "/nowhere/attack.svg"], "no directory"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_asked(arguments: list[str], said: str) -> None:
    result = run("--server", "http://127.0.0.1:1", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n│", "").replace("  ", "")


def test_a_picture_takes_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = run("--plot", str(tmp_path / "attack.png"))
    assert result.exit_code == 1
    assert "pip install 'windlass[plots]'" in result.stderr


def test_no_server_and_no_products_are_told() -> None:
    port = free_port()
    result = run("--server", f"http://127.0.0.1:{port}", *SHORT)
    assert result.exit_code == 1
    assert f"windlass serve --port {port}" in result.stderr
    with served(Shop([])) as url:
        result = run("--server", url, *SHORT)
    assert result.exit_code == 1
    assert "windlass products import" in result.stderr


def test_a_server_that_goes_away_is_told() -> None:
    """Planted defect: a connection that was closed while idle ends the attack."""
    shop = Shop(REAL)
    with served(shop) as url:
        shop.hang_ups = 1
        assert run("--server", url, *SHORT, "--mix", "1:1:0").exit_code == 0
        shop.hang_ups = 1_000_000
        result = run("--server", url, *SHORT, "--mix", "1:1:0")
    assert result.exit_code == 1
    assert "windlass serve --port" in result.stderr


def test_a_key_is_used_and_its_absence_told() -> None:
    shop = Shop(REAL)
    shop.key = "secret"
    with served(shop) as url:
        assert run("--server", url, *SHORT, "--key", "secret", "--mix", "1:1:0").exit_code == 0
        result = run("--server", url, *SHORT)
    assert result.exit_code == 1
    assert "--key" in result.stderr
