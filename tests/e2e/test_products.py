"""Products on a real server: what a restart keeps, who reaches the database, and a million initial ids."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.harness import ServerProcess, run_cli

SPEED = {"WINDLASS_SYNCHRONOUS": "off"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("products") / "data", environment=SPEED) as running:
        yield running


def raw(server: ServerProcess, request: bytes) -> bytes:
    """What the server says to these bytes until it hangs up."""
    url = urlsplit(server.url)
    with socket.create_connection((url.hostname, url.port or 0), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    return answer


def test_products_outlive_a_kill(tmp_path: Path) -> None:
    """Planted defect: a filter that is not filled at the start denies what the database has."""
    with ServerProcess(tmp_path / "data") as server:
        for number in range(20):
            body = {"product_id": f"p/{number}", "name": "n", "price": number / 4}
            assert httpx.post(f"{server.url}/products", json=body).status_code == 201
        assert httpx.delete(f"{server.url}/products/p%2F7").status_code == 204
        server.kill()
        server.start()
        for number in range(20):
            answer = httpx.get(f"{server.url}/products/p%2F{number}")
            assert answer.status_code == (404 if number == 7 else 200)
        # 20 where it was saved before the kill: what is deleted stays in a filter until it is made anew.
        assert httpx.get(f"{server.url}/bloom/stats").json()["items"] in (19, 20)


def test_what_is_not_there_is_told_without_a_database(tmp_path: Path) -> None:
    """The products are taken away from below the server, by somebody else in its database.

    Planted defect: a look-up that the filter denies asks the database all the same.
    """
    with ServerProcess(tmp_path / "data", environment=SPEED) as server, httpx.Client() as client:
        product = {"product_id": "kept", "name": "n", "price": 1}
        assert client.post(f"{server.url}/products", json=product).status_code == 201
        assert client.get(f"{server.url}/products/kept").json()["source"] == "database"
        with closing(sqlite3.connect(tmp_path / "data" / "catalogue.db", timeout=60)) as database:
            database.execute("DROP TABLE products")
            database.commit()
        for number in range(300):
            answer = client.get(f"{server.url}/products/absent-{number}")
            assert (answer.status_code, answer.json()["source"]) == (404, "bloom_filter")
        assert client.get(f"{server.url}/products/kept").json()["source"] == "cache"
        health = client.get(f"{server.url}/health")
        assert (health.status_code, health.json()["store"]) == (503, "ok")
        assert health.json()["database"] != "ok"


def test_initial_ids_of_a_file_that_is_named(tmp_path: Path) -> None:
    """A hundred thousand: enough to see that they come in batches, and not that this machine is fast."""
    ids = tmp_path / "ids"
    ids.write_text("".join(f"id-{number}\n" for number in range(100_000)))
    arguments = ("--products-file", str(ids), "--bloom-expected-items", "100000")
    with ServerProcess(tmp_path / "data", *arguments, environment=SPEED, ready_within=120.0) as server:
        assert httpx.get(f"{server.url}/products/id-99999").json()["price"] == 0
        stats = httpx.get(f"{server.url}/bloom/stats").json()
        assert 0.97 * 100_000 < stats["items"] <= 100_000  # false positives of its own are not counted
        assert server.log.count("products_loaded") == 1
        server.restart()
        assert httpx.get(f"{server.url}/products/id-0").status_code == 200
        assert server.log.count("products_loaded") == 1


def test_a_database_by_its_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    with ServerProcess(tmp_path / "data", "--database", url) as server:
        assert httpx.put(f"{server.url}/products/p", json={"name": "n", "price": 1}).status_code == 201
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "data" / "catalogue.db").exists()


def test_a_database_that_is_none_ends_the_start(tmp_path: Path) -> None:
    """Planted defect: its password in the message."""
    url = "postgresql://shop:secret@127.0.0.1:1/shop"
    ran = run_cli("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--database", url)
    assert ran.returncode == 1
    assert "database 127.0.0.1:1/shop cannot be opened" in ran.stderr
    assert "secret" not in ran.stderr


def test_the_commands_and_the_server_understand_each_other(shared: ServerProcess, tmp_path: Path) -> None:
    odd = ["a/b", "é", "\U0001f600", '"', "a,b", " x ", "%2F"]
    lines = [json.dumps({"product_id": each, "name": f"<{each}>\n", "price": 0.1}) for each in odd]
    ran = run_cli("products", "import", "-", "--json", server=shared.url, text="\n".join(lines))
    assert json.loads(ran.stdout)["created"] == len(odd), ran.stderr
    for each in ("a/b", "%2F"):
        got = run_cli("products", "get", each, "--json", server=shared.url)
        assert json.loads(got.stdout)["name"] == f"<{each}>\n", got.stderr
    for form in ("out.ndjson", "out.csv"):
        ran = run_cli("products", "export", str(tmp_path / form), server=shared.url)
        assert ran.returncode == 0, ran.stderr
        ran = run_cli("products", "import", str(tmp_path / form), "--json", server=shared.url)
        done = json.loads(ran.stdout)
        assert (done["written"], done["created"]) == (len(odd), 0)
    for each in odd:
        httpx.delete(f"{shared.url}/products/{quote(each, safe='')}").raise_for_status()


def test_requests_in_a_pipeline_are_answered_in_their_order(shared: ServerProcess) -> None:
    """Planted defect: an answer from memory overtakes one that waits for the database."""
    httpx.put(f"{shared.url}/products/cold", json={"name": "n", "price": 1}).raise_for_status()
    paths = ["cold", "absent", "cold", "a%2Fb", "absent-2"]
    heads = [f"GET /products/{path} HTTP/1.1\r\nHost: localhost\r\n" for path in paths]
    heads[-1] += "Connection: close\r\n"
    answers = raw(shared, "".join(head + "\r\n" for head in heads).encode()).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"404", b"200", b"404", b"404"]


def test_bytes_that_are_no_url_are_400(shared: ServerProcess) -> None:
    answer = raw(shared, b"GET /products/\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] == b"400", answer
