"""windlass products against a scripted server: what it asks, prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import Result

from tests.unit.cli.test_commands import Terminal, terminal
from tests.unit.client.script import Script, ok, problem
from windlass.cli import products_rebuild

__all__ = ["terminal"]  # the fixture

ROPE = '{"product_id":"rope-30","name":"Rope, 30 m","price":19.90,"source":"cache"}'
STATS = {
    "expected_items": 1000, "target_false_positive_rate": 0.01, "bits": 9586, "hashes": 7, "items": 2,
    "bits_set": 14, "fill_ratio": 0.001, "estimated_false_positive_rate": 0.0125, "memory_bytes": 2048,
    "layers": 1, "state_key": "bloom:filter",
}  # fmt: skip
METRICS = {
    "requests": 4000, "bloom_filter": 3000, "negative_cache": 5, "cache": 900, "database": 95,
    "database_calls": 95, "database_roundtrips_saved": 3905, "roundtrip_reduction": 0.97625,
}  # fmt: skip


def said(text: str, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=text)


def lines(script: Script, number: int = 0) -> list[str]:
    return script.requests[number].content.decode().split("\n")


def refusal(line: int, written: int) -> httpx.Response:
    document = {
        "status": 422, "code": "invalid", "detail": f"Line {line}: price must be a number.", "field": "price",
        "line": line, "written": written,
    }  # fmt: skip
    return httpx.Response(422, json=document)


def test_get_prints_a_product(terminal: Terminal) -> None:
    result = terminal.run(Script(said(ROPE)), "products", "get", "rope-30")
    assert result.stdout == ("product  rope-30\nname     Rope, 30 m\nprice    19.90\nsource   cache\n")


def test_json_has_prices_as_numbers(terminal: Terminal) -> None:
    """Planted defect: print_json, which makes text of a Decimal."""
    result = terminal.run(Script(said(ROPE)), "products", "get", "rope-30", "--json")
    assert result.stdout.strip() == ROPE


def test_what_is_not_there_is_status_1_with_advice(terminal: Terminal) -> None:
    result = terminal.run(Script(problem(404, "product_not_found", "none")), "products", "get", "x")
    assert (result.exit_code, result.stderr) == (
        1, "windlass: none\nSee what there is: windlass products list\n",
    )  # fmt: skip


def test_put_sends_a_number(terminal: Terminal) -> None:
    script = Script(said(ROPE, 201))
    terminal.run(script, "products", "put", "a/b", "--name", "n", "--price", "19.90")
    assert script.asked == ["PUT /products/a%2Fb"]
    assert script.requests[0].content == b'{"product_id":"a/b","name":"n","price":19.90}'


@pytest.mark.parametrize("price", ["x", "NaN", "1,5", ""])
def test_put_refuses_what_is_no_price(terminal: Terminal, price: str) -> None:
    result = terminal.run(Script(), "products", "put", "p", "--name", "n", "--price", price)
    assert result.exit_code == 2


def test_delete_asks_first(terminal: Terminal) -> None:
    script = Script(ok())
    result = terminal.run(script, "products", "delete", "p", "--yes")
    assert (result.stdout, script.asked) == ("Product p is deleted.\n", ["DELETE /products/p"])


def test_list_says_that_there_are_more(terminal: Terminal) -> None:
    page = '{"products":[' + ROPE + '],"next":"rope-30"}'
    result = terminal.run(Script(said(page)), "products", "list", "--limit", "1")
    assert result.stdout.splitlines()[1].split() == ["rope-30", "19.90", "Rope,", "30", "m"]
    assert "--after rope-30" in result.stderr


def test_stats_are_for_people(terminal: Terminal) -> None:
    result = terminal.run(Script(ok(STATS), ok(METRICS)), "products", "stats")
    assert "1.2500% of absent ids" in result.stdout
    assert "97.6%" in result.stdout
    shown = terminal.run(Script(ok(STATS), ok(METRICS)), "products", "stats", "--json")
    assert json.loads(shown.stdout)["metrics"]["bloom_filter"] == 3000


def test_rebuild_waits_until_it_is_over(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: the answer to POST taken for the end."""
    monkeypatch.setattr(products_rebuild, "PAUSE", 0)
    script = Script(ok(STATS | {"rebuilding": 0.0}), ok(STATS | {"rebuilding": 0.5}), ok(STATS))
    result = terminal.run(script, "products", "rebuild")
    assert script.asked == ["POST /bloom/rebuild", "GET /bloom/stats", "GET /bloom/stats"]
    assert result.stderr == "The filter is made anew: 2 ids; it lets 1.2500% of absent ids pass.\n"


def test_a_rebuild_that_failed_is_told(terminal: Terminal) -> None:
    """Planted defect: an end that is taken for success."""
    result = terminal.run(Script(ok(STATS | {"rebuild_failed": "It is away."})), "products", "rebuild")
    assert (result.exit_code, result.stderr) == (1, "windlass: The filter is as it was: It is away.\n")


# --- import -----------------------------------------------------------------------------------------


def imported(terminal: Terminal, script: Script, file: Path, content: str, *more: str) -> Result:
    file.write_text(content, newline="")
    return terminal.run(script, "products", "import", str(file), *more)


def test_import_sends_lines_as_they_are(terminal: Terminal, tmp_path: Path) -> None:
    """Planted defect: a number that goes through a float: 1e400, 0.10."""
    script = Script(ok({"written": 2, "created": 1}))
    result = imported(terminal, script, tmp_path / "p.ndjson", '{"price": 1e400}\r\n\n {"price":0.10}')
    assert lines(script) == ['{"price": 1e400}', '{"price":0.10}']
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("2 products written in")
    assert "1 of them new" in result.stderr


def test_import_cuts_into_batches(terminal: Terminal, tmp_path: Path) -> None:
    script = Script(*(ok({"written": n, "created": n}) for n in (1000, 1000, 1)))
    result = imported(terminal, script, tmp_path / "p", "{}\n" * 2001, "--json")
    assert [len(lines(script, n)) for n in range(3)] == [1000, 1000, 1]
    assert json.loads(result.stdout) | {"seconds": 0} == {"written": 2001, "created": 2001, "seconds": 0}


def test_import_reads_csv(terminal: Terminal, tmp_path: Path) -> None:
    script = Script(ok({"written": 2, "created": 2}))
    content = '\ufeffprice,name,product_id\r\n1.50,"two\r\nlines, ""quoted""",a\r\n\r\n2,n,b\r\n'
    imported(terminal, script, tmp_path / "p.csv", content)
    assert lines(script) == [
        '{"product_id":"a","name":"two\\r\\nlines, \\"quoted\\"","price":1.50}',
        '{"product_id":"b","name":"n","price":2}',
    ]


@pytest.mark.parametrize("suffix", ["ndjson", "csv"])
def test_a_line_that_the_server_refuses_is_told_by_its_number_in_the_file(
    terminal: Terminal, tmp_path: Path, suffix: str
) -> None:
    """Planted defect: the number in the batch; lines without a product shift it."""
    script = Script(ok({"written": 1000, "created": 0}), refusal(line=2, written=1))
    rows = ["{}"] * 1000 + ["", "{}", "{}"]
    if suffix == "csv":
        rows = ["product_id,name,price", *["p,n,1"] * 1000, "", "p,n,1", "p,n,-1"]
    result = imported(terminal, script, tmp_path / f"p.{suffix}", "\n".join(rows))
    assert result.exit_code == 1
    assert f"line {len(rows)}: price must be a number." in result.stderr
    assert "1,001 products written" in result.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n", "line 1: a header"),
        ("product_id,name,price\np,n,1\n\nq,n\n", "line 4: it has 2 columns"),
        ("product_id,name,price\np,n,1\nq,n,x\n", "line 3: the price 'x'"),
        ("product_id,name,price\np,n,1\nq,n,NaN\n", "line 3: the price 'NaN'"),
        ('product_id,name,price\np,n,1\nq,"n', "line 3: this is no CSV"),
    ],
)
def test_bad_csv_is_told_and_what_is_before_it_is_written(
    terminal: Terminal, tmp_path: Path, content: str, told: str
) -> None:
    script = Script(ok({"written": 1, "created": 1}))
    result = imported(terminal, script, tmp_path / "p.csv", content)
    assert result.exit_code == 1
    assert told in result.stderr
    assert len(script.requests) == (0 if "header" in told else 1)


def test_a_line_that_is_no_utf8_is_told(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"{}\n\xff\n")
    script = Script(ok({"written": 1, "created": 1}))
    result = terminal.run(script, "products", "import", str(tmp_path / "p"), "--json")
    assert "line 2: this is not UTF-8" in result.stderr
    assert json.loads(result.stdout)["bad_line"] == 2


def test_a_file_that_is_not_there_is_told(terminal: Terminal, tmp_path: Path) -> None:
    result = terminal.run(Script(), "products", "import", str(tmp_path / "nothing"))
    assert (result.exit_code, "No such file" in result.stderr) == (1, True)


# --- export -----------------------------------------------------------------------------------------

PAGE = (
    '{"products":[{"product_id":"a","name":"two\\nlines","price":19.90},'
    '{"product_id":"b","name":"n","price":0.000001}],"next":null}'
)


def test_export_writes_what_import_reads(terminal: Terminal, tmp_path: Path) -> None:
    for name, written in (
        (
            "p.ndjson",
            '{"product_id":"a","name":"two\\nlines","price":19.90}\n'
            '{"product_id":"b","name":"n","price":0.000001}\n',
        ),
        ("p.csv", 'product_id,name,price\na,"two\nlines",19.90\nb,n,0.000001\n'),
    ):
        result = terminal.run(Script(ok(STATS), said(PAGE)), "products", "export", str(tmp_path / name))
        assert (result.exit_code, (tmp_path / name).read_text()) == (0, written)
        again = Script(ok({"written": 2, "created": 0}))
        terminal.run(again, "products", "import", str(tmp_path / name))
        assert lines(again) == [
            '{"product_id":"a","name":"two\\nlines","price":19.90}',
            '{"product_id":"b","name":"n","price":0.000001}',
        ]


def test_an_export_that_fails_leaves_the_file_before_it(terminal: Terminal, tmp_path: Path) -> None:
    """Planted defect: it is written where the one before it lies."""
    (tmp_path / "p.ndjson").write_text("before")
    page = PAGE.replace("null", '"b"')
    script = Script(ok(STATS), said(page), problem(500, "internal", "broken"))
    result = terminal.run(script, "products", "export", str(tmp_path / "p.ndjson"))
    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [tmp_path / "p.ndjson"])
    assert (tmp_path / "p.ndjson").read_text() == "before"
