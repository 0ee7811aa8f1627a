"""What a test of harm asks of one queue over each of the two protocols that lead to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx
import pytest

from tests.storm.talk import assert_problem, assert_unavailable, create, send, sqs


class Taken(NamedTuple):
    content: str
    receipt: str


class Face:
    """Contents are strings; times are whole seconds, as SQS has no others."""

    good: int
    """The status of a send that is stored."""

    def __init__(self, http: httpx.Client, name: str = "q") -> None:
        self.http = http
        self.name = name

    def create(self) -> None:
        raise NotImplementedError

    def send(self, content: str, *, delay: int = 0, ttl: int | None = None) -> httpx.Response:
        raise NotImplementedError

    def send_batch(self, contents: list[str]) -> httpx.Response:
        """At most ten."""
        raise NotImplementedError

    def receive(self, limit: int = 1, *, lease: int = 60, wait: int = 0) -> httpx.Response:
        raise NotImplementedError

    def taken(self, answer: httpx.Response) -> list[Taken]:
        """The messages in the answer to a receive."""
        raise NotImplementedError

    def acknowledge(self, receipt: str) -> httpx.Response:
        raise NotImplementedError

    def assert_refused(self, answer: httpx.Response, code: str = "store_unavailable", /) -> None:
        """Told with 503 to come again. `code` is that of Windlass's own HTTP; SQS has one for all."""
        raise NotImplementedError

    def is_unknown(self, answer: httpx.Response) -> bool:
        """Whether the answer says that there is no such queue."""
        raise NotImplementedError

    def send_all(self, contents: list[str]) -> None:
        for content in contents:
            answer = self.send(content)
            assert answer.status_code == self.good, answer.text

    def take(self, limit: int = 1, *, lease: int = 60, wait: int = 0) -> list[Taken]:
        return self.taken(self.receive(limit, lease=lease, wait=wait))

    def receive_all(self, enough: float = float("inf")) -> list[str]:
        """The contents of all messages that are ready, or of `enough` of them, acknowledged."""
        contents: list[str] = []
        while len(contents) < enough and (messages := self.take(10)):
            for message in messages:
                answer = self.acknowledge(message.receipt)
                assert answer.is_success, answer.text
            contents += [message.content for message in messages]
        return contents


class HttpFace(Face):
    good = 201

    def create(self) -> None:
        create(self.http, self.name)

    def send(self, content: str, *, delay: int = 0, ttl: int | None = None) -> httpx.Response:
        return send(self.http, content, self.name, delay=delay, ttl=ttl)

    def send_batch(self, contents: list[str]) -> httpx.Response:
        messages = [{"content": content} for content in contents]
        return self.http.post(f"/queues/{self.name}/messages", json={"messages": messages})

    def receive(self, limit: int = 1, *, lease: int = 60, wait: int = 0) -> httpx.Response:
        return self.http.post(
            f"/queues/{self.name}/receive", json={"lease": lease, "max": limit, "wait": wait}
        )

    def taken(self, answer: httpx.Response) -> list[Taken]:
        if answer.status_code == 204:
            return []
        assert answer.status_code == 200, answer.text
        return [Taken(each["content"], each["receipt"]) for each in answer.json()["messages"]]

    def acknowledge(self, receipt: str) -> httpx.Response:
        return self.http.delete(f"/queues/{self.name}/receipts/{receipt}")

    def assert_refused(self, answer: httpx.Response, code: str = "store_unavailable", /) -> None:
        assert_problem(answer, 503, code)
        assert int(answer.headers["retry-after"]) >= 1

    def is_unknown(self, answer: httpx.Response) -> bool:
        return answer.status_code == 404


class SqsFace(Face):
    good = 200

    def create(self) -> None:
        assert self._ask("CreateQueue").status_code == 200

    def send(self, content: str, *, delay: int = 0, ttl: int | None = None) -> httpx.Response:
        if ttl is not None:  # which queues have, and not messages
            kept = {"MessageRetentionPeriod": str(ttl)}
            assert self._ask("SetQueueAttributes", Attributes=kept).status_code == 200
        return self._ask("SendMessage", MessageBody=content, DelaySeconds=delay)

    def send_batch(self, contents: list[str]) -> httpx.Response:
        entries = [{"Id": str(number), "MessageBody": each} for number, each in enumerate(contents)]
        return self._ask("SendMessageBatch", Entries=entries)

    def receive(self, limit: int = 1, *, lease: int = 60, wait: int = 0) -> httpx.Response:
        return self._ask(
            "ReceiveMessage", MaxNumberOfMessages=limit, VisibilityTimeout=lease, WaitTimeSeconds=wait
        )

    def taken(self, answer: httpx.Response) -> list[Taken]:
        assert answer.status_code == 200, answer.text
        return [Taken(each["Body"], each["ReceiptHandle"]) for each in answer.json().get("Messages", [])]

    def acknowledge(self, receipt: str) -> httpx.Response:
        return self._ask("DeleteMessage", ReceiptHandle=receipt)

    def assert_refused(self, answer: httpx.Response, _: str = "", /) -> None:
        assert_unavailable(answer)

    def is_unknown(self, answer: httpx.Response) -> bool:
        return bool(answer.status_code == 400 and answer.json()["__type"].endswith("#QueueDoesNotExist"))

    def _ask(self, action: str, **parameters: Any) -> httpx.Response:
        parameter = "QueueName" if action == "CreateQueue" else "QueueUrl"
        return sqs(self.http, action, **{parameter: self.name}, **parameters)


FACES: dict[str, type[Face]] = {"http": HttpFace, "sqs": SqsFace}

over_both = pytest.mark.parametrize("over", FACES.values(), ids=FACES)
"""A test that is given `over`, one face and then the other."""
