"""A headless Chromium, driven through chromedriver's own protocol (W3C WebDriver)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.harness import free_port, until

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1200,1600",
)  # fmt: skip


class Browser:
    """One browser with an empty profile in `directory`. Needs Debian's chromium and chromium-driver."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Self:
        program, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        assert program, "chromedriver is missing: apt-get install chromium-driver"
        assert chromium, "chromium is missing: apt-get install chromium"
        port = free_port()
        self._log = (self._directory / "chromedriver.log").open("wb")
        self._process = subprocess.Popen([program, f"--port={port}"], stdout=self._log, stderr=self._log)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        try:
            until(self._ready, 60, "chromedriver")
            flags = [*_FLAGS, f"--user-data-dir={self._directory / 'profile'}"]
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": {"binary": chromium, "args": flags},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            session = self._call("POST", "/session", capabilities={"alwaysMatch": wanted})
            self._session = f"/session/{session['sessionId']}"
        except BaseException:
            self._stop()
            raise
        return self

    def _ready(self) -> bool:
        try:
            return bool(self._http.get("/status").json()["value"]["ready"])
        except httpx.TransportError:
            return False

    def _call(self, method: str, path: str, **body: Any) -> Any:
        answer = self._http.request(method, path, json=body if method == "POST" else None)
        assert answer.is_success, answer.text
        return answer.json()["value"]

    def go(self, url: str) -> None:
        """Open a page and wait until it has loaded."""
        self._call("POST", f"{self._session}/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; its `return` value, or what a promise it returns comes to."""
        return self._call("POST", f"{self._session}/execute/sync", script=script, args=arguments)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", f"{self._session}/screenshot")))

    def console(self) -> list[str]:
        """What the console said since the last call, warnings and errors only."""
        entries = self._call("POST", f"{self._session}/se/log", type="browser")
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """URLs that pages asked for since the last call."""
        entries = self._call("POST", f"{self._session}/se/log", type="performance")
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _stop(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(60)
        self._log.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._stop()
