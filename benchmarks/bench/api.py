"""The few calls to Windlass that prepare and check a measurement; never inside the measured window."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

from bench.processes import BenchmarkError

CONTENT_BYTES = 100
LARGEST_BATCH = 1000
KEEP_ALIVE_SECONDS = 2


def content(queue: str) -> str:
    """The 100-byte content; it begins with the queue's name, from which a client tells the queue."""
    return f"{queue} ".ljust(CONTENT_BYTES, "x")


def complete(answer: bytes) -> bool:
    """Whether an HTTP answer is there to its last byte."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    _, named, rest = head.lower().partition(b"\r\ncontent-length:")
    return not named or len(body) >= int(rest.split(b"\r\n")[0])


class Api:
    """One connection to the server on `port`, a new one after a pause; with an API key if one is needed."""

    def __init__(self, port: int, key: str | None = None) -> None:
        self.port = port
        self.key = key
        self._connection = HTTPConnection("127.0.0.1", port, timeout=120)
        self._used = time.monotonic()

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        if time.monotonic() - self._used > KEEP_ALIVE_SECONDS:
            self._connection.close()  # opened again by the request; the server may have closed it
        self._used = time.monotonic()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def expect(self, status: int, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """The answer's JSON (None without a body); BenchmarkError for any other status."""
        found, text = self.call(method, path, None if body is None else json.dumps(body).encode())
        if found != status:
            raise BenchmarkError(f"{method} {path}: {found} instead of {status}: {text[:300]!r}")
        return json.loads(text) if text else None

    def create_queue(self, queue: str, **settings: object) -> None:
        self.expect(201, "POST", "/queues", {"name": queue, **settings})

    def delete_queue(self, queue: str) -> None:
        self.expect(204, "DELETE", f"/queues/{queue}")

    def counts(self, queue: str) -> dict[str, int]:
        """Messages of a queue by state: ready, delayed, leased, blocked, dead."""
        found = self.expect(200, "GET", f"/queues/{queue}")
        return {
            state: int(found.get(state, 0)) for state in ("ready", "delayed", "leased", "blocked", "dead")
        }

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.expect(200, "GET", "/status")
        return found

    def check(self, queue: str) -> None:
        """A message sent is received, and an acknowledged one is gone."""
        for lease in (False, True):
            text = content(queue)
            sent = self.expect(201, "POST", f"/queues/{queue}/messages", {"content": text})
            parameters = "?lease=30" if lease else ""
            got = self.expect(200, "GET", f"/queues/{queue}/messages{parameters}")
            if (got["id"], got["content"]) != (sent["id"], text):
                raise BenchmarkError(f"sent {sent['id']} and received {got['id']} with {got['content']!r}")
            if lease:
                self.expect(204, "DELETE", f"/queues/{queue}/receipts/{got['receipt']}")
        self.expect(204, "GET", f"/queues/{queue}/messages")

    def fill(
        self,
        queue: str,
        messages: int,
        *,
        connections: int = 8,
        fields: Callable[[], Mapping[str, object]] = dict,
        progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        """Send `messages` in batches of 1,000 over `connections`; `fields()` is asked once a batch."""
        sizes = [LARGEST_BATCH] * (messages // LARGEST_BATCH)
        if messages % LARGEST_BATCH:
            sizes.append(messages % LARGEST_BATCH)
        shares = [sizes[start::connections] for start in range(connections)]

        def send(share: list[int]) -> None:
            api = Api(self.port, self.key)
            for size in share:
                body = _batch_body(queue, size, fields())
                while (answer := api.call("POST", f"/queues/{queue}/messages", body))[0] in (429, 503):
                    time.sleep(0.05)
                if answer[0] != 201:
                    raise BenchmarkError(f"filling {queue}: {answer[0]} {answer[1][:300]!r}")
                progress(size)
            api.close()

        with ThreadPoolExecutor(connections) as pool:
            for outcome in [pool.submit(send, share) for share in shares if share]:
                outcome.result()

    def fill_each(
        self,
        queues: Sequence[str],
        messages: int,
        *,
        create: bool = False,
        connections: int = 32,
        progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        """Send a batch of `messages` to each of `queues`, which are made before with `create`."""

        def fill(share: Sequence[str]) -> None:
            api = Api(self.port, self.key)
            for queue in share:
                if create:
                    api.create_queue(queue)
                path = f"/queues/{queue}/messages"
                status, text = api.call("POST", path, _batch_body(queue, messages, {}))
                if status != 201:
                    raise BenchmarkError(f"filling {queue}: {status} {text[:300]!r}")
                progress(1)
            api.close()

        with ThreadPoolExecutor(connections) as pool:
            for outcome in [pool.submit(fill, queues[start::connections]) for start in range(connections)]:
                outcome.result()

    def drain(
        self,
        queue: str,
        messages: int,
        *,
        lease: float,
        connections: int = 8,
        progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        """Lease `messages` for `lease` seconds in batches of 1,000."""
        sizes = [LARGEST_BATCH] * (messages // LARGEST_BATCH)
        if messages % LARGEST_BATCH:
            sizes.append(messages % LARGEST_BATCH)

        def take(share: list[int]) -> None:
            api = Api(self.port, self.key)
            for size in share:
                path = f"/queues/{queue}/messages?lease={lease:g}&max={size}"
                got = api.expect(200, "GET", path)["messages"]
                if len(got) != size:
                    raise BenchmarkError(f"leased {len(got)} of {size} from {queue}")
                progress(size)
            api.close()

        with ThreadPoolExecutor(connections) as pool:
            shares = [sizes[start::connections] for start in range(connections)]
            for outcome in [pool.submit(take, share) for share in shares if share]:
                outcome.result()

    def close(self) -> None:
        self._connection.close()


def _batch_body(queue: str, size: int, fields: Mapping[str, object]) -> bytes:
    message = json.dumps({"content": content(queue), **fields}, separators=(",", ":"))
    return ('{"messages":[' + ",".join([message] * size) + "]}").encode()
