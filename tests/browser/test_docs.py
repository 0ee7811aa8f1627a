"""/docs in a real browser, without internet; and what a page from elsewhere may not do."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.browser.driver import Browser
from tests.harness import ServerProcess, until


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The URL of a web page on another port of this machine: another origin."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><link rel=icon href=data:,>")

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}/"
        listener.shutdown()
        thread.join()


def test_the_docs_show_every_operation_and_ask_nobody_else(
    browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    """Planted defects: a script or font from a CDN; a policy that the page's own scripts break."""
    browser.go(server.url + "/docs")
    paths = httpx.get(server.url + "/openapi.json").json()["paths"]
    wanted = sum(len(operations) for operations in paths.values())
    count = "return document.querySelectorAll('.opblock').length"
    until(lambda: browser.run(count) == wanted, 60, f"{wanted} operations in the page")
    kept = os.environ.get("WINDLASS_SCREENSHOTS")
    browser.screenshot(Path(kept or tmp_path) / "docs.png")
    assert browser.console() == []
    requests = browser.requests()
    assert any(url.endswith("/openapi.json") for url in requests)
    asked = [urlsplit(url) for url in requests if not url.startswith(("data:", "chrome"))]
    assert {(url.scheme, url.hostname) for url in asked} == {("http", "127.0.0.1")}


def test_the_docs_can_send_a_message(browser: Browser, server: ServerProcess) -> None:
    """The page's own requests are no foreign page's, by the browser's own headers."""
    browser.go(server.url + "/docs")
    made = browser.run(
        "return fetch('/queues', {method: 'POST', body: JSON.stringify({name: 'tried'})}).then(r => r.status)"
    )
    assert made == 201
    assert browser.run("return fetch('/queues/tried/messages').then(r => r.status)") == 204


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize(
    "attack",
    [
        "fetch(target + '/messages')",
        "fetch(target + '/messages', {mode: 'no-cors'})",
        "fetch(target + '/messages?lease=60', {mode: 'no-cors', credentials: 'include'})",
        "fetch(target + '/receive', {method: 'POST', mode: 'no-cors', body: '{}'})",
        "fetch(target + '/purge', {method: 'POST', mode: 'no-cors'})",
        "fetch(target + '/messages', {method: 'POST', mode: 'no-cors', body: '{\"content\": \"evil\"}'})",
        "new Promise(done => { const image = new Image(); image.onerror = image.onload = done;"
        " image.src = target + '/messages' })",
        "new Promise(done => { const frame = document.createElement('iframe'); frame.onload = done;"
        " frame.src = target + '/messages'; document.body.append(frame) })",
    ],
    ids=["cors", "no-cors", "lease", "receive", "purge", "send", "image", "frame"],
)
def test_a_page_from_elsewhere_takes_nothing(
    browser: Browser, server: ServerProcess, elsewhere: str, attack: str, host: str
) -> None:
    """Planted defect: trusting Origin alone. A no-cors GET from another port sends none."""
    client = httpx.Client(base_url=server.url)
    client.post("/queues", json={"name": "prey"})
    client.post("/queues/prey/purge")
    client.post("/queues/prey/messages", json={"content": "mine"})
    browser.go(elsewhere)
    target = f"http://{host}:{server.port}/queues/prey"
    said = browser.run(
        f"const target = arguments[0]; return ({attack}).then(r => r.type + r.status, e => String(e))", target
    )
    assert "200" not in str(said)
    assert "201" not in str(said)
    queue = client.get("/queues/prey").json()
    assert (queue["ready"], queue["leased"]) == (1, 0), said
    assert client.get("/queues/prey/messages").json()["content"] == "mine"
    client.close()
