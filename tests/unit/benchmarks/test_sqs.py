"""What the suite `sqs` sends, signs, counts and compares."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.processes import BenchmarkError
from bench.sigv4 import Credentials
from bench.sqs import Sqs
from bench.suites.sqs import OPERATIONS, VARIANTS, answers_of, chosen, constant

Handler = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]
MESSAGE = {"MessageId": "m", "ReceiptHandle": "r", "Body": "bench ".ljust(100, "x")}


@contextmanager
def serving(handle: Handler) -> Iterator[Sqs]:
    """A server that answers each action with what `handle` makes of its parameters."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parameters = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, told = handle(self.headers["X-Amz-Target"].removeprefix("AmazonSQS."), parameters)
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        sqs = Sqs(server.server_port, Credentials("a", "b"))
        sqs.url = "a queue"
        yield sqs
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def counted(ready: int) -> dict[str, Any]:
    """The answer of GetQueueAttributes where so many are ready."""
    names = ("", "NotVisible", "Delayed")
    counts = {f"ApproximateNumberOfMessages{name}": "0" for name in names}
    return {"Attributes": {**counts, "ApproximateNumberOfMessages": str(ready)}}


def healthy(action: str, _parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {
        "GetQueueUrl": {"QueueUrl": "a queue"},
        "SendMessage": {"MessageId": "m"},
        "ReceiveMessage": {"Messages": [MESSAGE]},
        "DeleteMessage": {},
        "GetQueueAttributes": counted(0),
    }
    return 200, answers[action]


@pytest.mark.parametrize(
    ("method", "signature"),
    [
        ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ],
)
def test_signs_as_the_published_examples_do(method: str, signature: str) -> None:
    """They are get-vanilla and post-vanilla of the test suite of Signature Version 4."""
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    headers = {"Host": "example.amazonaws.com", "X-Amz-Date": "20150830T123600Z"}
    assert credentials.authorization(headers, b"", method=method, service="service") == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"
        f" SignedHeaders=host;x-amz-date, Signature={signature}"
    )


def test_a_server_that_works_is_taken() -> None:
    with serving(healthy) as sqs:
        sqs.check()


def test_a_server_that_deletes_nothing_is_an_error() -> None:
    """Planted: DeleteMessage is answered 200, and the message stays."""

    def keeps(action: str, parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if action == "GetQueueAttributes":
            return 200, counted(1)
        return healthy(action, parameters)

    with serving(keeps) as sqs, pytest.raises(BenchmarkError, match="after it was deleted: 1"):
        sqs.check()


def test_a_server_that_gives_another_body_is_an_error() -> None:
    """Planted: a Body that is not what was sent."""

    def garbles(action: str, parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if action == "ReceiveMessage":
            return 200, {"Messages": [{**MESSAGE, "Body": "other"}]}
        return healthy(action, parameters)

    with serving(garbles) as sqs, pytest.raises(BenchmarkError, match="received"):
        sqs.check()


def test_signatures_that_nobody_verifies_are_an_error() -> None:
    """Planted: a server whose authentication is off, in a run that is to measure what it costs."""
    with serving(healthy) as sqs, pytest.raises(BenchmarkError, match="a wrong signature is answered 200"):
        sqs.check_refusal()


def test_a_batch_of_which_one_fails_is_an_error() -> None:
    """Planted: a partial failure, under an answer of 200, while a queue is filled."""

    def fails(_action: str, _parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"Successful": [], "Failed": [{"Id": "3", "Code": "InternalFailure"}]}

    with serving(fails) as sqs, pytest.raises(BenchmarkError, match="InternalFailure"):
        sqs.fill(20)


def test_an_error_is_told_with_its_words() -> None:
    with (
        serving(lambda *_: (400, {"__type": "QueueDoesNotExist"})) as sqs,
        pytest.raises(BenchmarkError, match=r"400.*QueueDoesNotExist"),
    ):
        sqs.call("GetQueueUrl", QueueName="bench")


def test_the_yardstick_answers_the_bytes_that_were_given() -> None:
    """Planted: an answer made anew, which would be shorter than the one it stands for."""
    with serving(healthy) as sqs:
        answers = answers_of(sqs)
    with constant(answers, Path("/var/tmp")) as other:
        again = Sqs(other.port)
        for action, told in answers.items():
            answer = again.ask(action, {})
            assert (answer.status, answer.body.decode()) == (told["status"], told["body"])
    assert sorted(answers) == ["DeleteMessage", "GetQueueUrl", "ReceiveMessage", "SendMessage"]


def test_only_chooses_operations_and_servers_apart() -> None:
    assert chosen((), list(OPERATIONS)) == list(OPERATIONS)
    assert chosen(("send", "moto"), list(OPERATIONS)) == ["send"]
    assert chosen(("send", "moto"), list(VARIANTS)) == ["moto"]
    assert chosen(("send",), list(VARIANTS)) == list(VARIANTS)
