"""Whatever is sent, in both protocols: no fault of our own, an error in its words, and nothing else touched.

Parameters are made of what each action takes (requests.py): of the right type, of a wrong one, missing,
doubled, hostile. What an answer gives out (receipts, handles, tokens) is sent back in later requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from tests.contract.http.served import PROBLEM, Served
from tests.contract.sqs.wire import FORM, Wire, flat, plain, quoted
from windlass.errors import QueueNotFound
from windlass.queues import Queues
from windlass.server import control, lane
from windlass.server.sqs.names import arn_of
from windlass.server.sqs.requests import ACTIONS

CONTROL = "control-5e2a"
"""A queue that nothing generated here names."""
SEEN = ("ReceiptHandle", "TaskHandle", "NextToken")
"""What answers give out: a text `seen-...` stands for the latest."""
HOSTILE = (
    "", " ", "x", "0", "-1", "9" * 30, "\0", "\x1f\x7f", "\ufffe\uffff", "\ud800", "\u2028\u00e9\U0010ffff",
    "%", "&=+;", "<>&\"'\r\n", "../..", "x" * 300, "1" * 5000 + "x", "y" * 300_000, "null", "[]", "{",
    "seen-ReceiptHandle", "seen-TaskHandle", "seen-NextToken",
)  # fmt: skip
POLICIES = (
    '{"maxReceiveCount":1,"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dlq"}',
    '{"redrivePermission":"denyAll"}',
    '{"Statement":[]}',
    '{"Statement":"x","a":' + "[" * 800 + "]" * 800 + "}",
)
KNOWN: dict[str, tuple[str, ...]] = {
    "QueueUrl": ("q", "q.fifo", "q", "q.fifo", "dlq", "http://localhost/0/q", "none", "windlass.x"),
    "QueueName": ("q", "q.fifo", "new", "new.fifo", "windlass.x", "x" * 81),
    "QueueNamePrefix": ("q", "n"),
    "SourceArn": (arn_of("dlq"), arn_of("q"), arn_of("none"), "arn:aws:sqs:::"),
    "DestinationArn": (arn_of("q"), arn_of("q.fifo"), arn_of("none")),
    "ReceiptHandle": ("seen-ReceiptHandle",),
    "TaskHandle": ("seen-TaskHandle",),
    "NextToken": ("seen-NextToken",),
    "Id": tuple("abcdefghijklmnop"),
    "DataType": ("String", "Number", "Binary", "Binary.png", "Number.x"),
    "StringValue": ("1", "1.5e3"),
    "MessageGroupId": ("g", "h"),
    "MessageDeduplicationId": ("d", "e"),
    "ReceiveRequestAttemptId": ("r",),
    "AttributeNames": ("All", "Policy", "SenderId", "ApproximateFirstReceiveTimestamp"),
    "MessageSystemAttributeNames": ("All", "DeadLetterQueueSourceArn"),
    "MessageAttributeNames": ("All", "a.*", "a", ".*"),
    "MessageSystemAttributes": ("AWSTraceHeader",),
    "MessageAttributes": ("a", "a.b", "AWS.Types"),
    "Attributes": (
        "VisibilityTimeout", "DelaySeconds", "MaximumMessageSize", "ReceiveMessageWaitTimeSeconds",
        "FifoQueue", "RedrivePolicy", "RedriveAllowPolicy", "Policy", "ContentBasedDeduplication",
        "DeduplicationScope", "KmsMasterKeyId", "MessageRetentionPeriod",
    ),
    "Attributes of": (*POLICIES, "0", "1", "20", "1024", "true", "false", "queue"),
    "AWSAccountIds": ("000000000000",),
    "Actions": ("SendMessage", "*"),
    "Label": ("l",),
}  # fmt: skip
"""Values that mean something, by the name of what they are for."""

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(HOSTILE), inner, max_size=3),
    max_leaves=5,
)
numbers = st.sampled_from([-1, 0, 1, 2, 10, 11, 20, 900, 43_200, 43_201, 10**6, 2**63, 10**30, -(2**70)])


def mostly(
    usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any], one_in: int = 25
) -> st.SearchStrategy[Any]:
    return st.integers(1, one_in).flatmap(lambda which: other if which == one_in else usual)


def texts(name: str) -> st.SearchStrategy[str]:
    known = KNOWN.get(name, ("x", "hello"))
    # Where these are wrong, nothing else is looked at.
    one_in = 25 if name in ("QueueUrl", "Id") else 6
    return mostly(st.sampled_from(known), st.sampled_from(HOSTILE) | st.text(max_size=20), one_in)


def values(kind: inspect.Type, name: str) -> st.SearchStrategy[Any]:
    """Of a type of requests.py, most of them right."""
    if isinstance(kind, inspect.UnionType):
        kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    usual: st.SearchStrategy[Any]
    if isinstance(kind, inspect.StructType):
        usual = struct(kind)
    elif isinstance(kind, inspect.ListType):
        usual = st.lists(values(kind.item_type, name), max_size=3) | st.lists(
            values(kind.item_type, name), max_size=11
        )
    elif isinstance(kind, inspect.DictType):
        usual = st.dictionaries(texts(name), values(kind.value_type, f"{name} of"), max_size=4)
    elif isinstance(kind, inspect.IntType):
        usual = numbers
    elif isinstance(kind, inspect.BytesType):
        usual = st.sampled_from(["AAEC", "", "A", "?"])
    else:
        usual = texts(name)
    return mostly(usual, anything)


def struct(kind: inspect.StructType) -> st.SearchStrategy[dict[str, Any]]:
    must = {field.encode_name: field for field in kind.fields if field.required or field.name == "queue_url"}
    may = {field.encode_name: field for field in kind.fields if field.encode_name not in must}
    usual = st.fixed_dictionaries(
        {name: values(field.type, name) for name, field in must.items()},
        optional={name: values(field.type, name) for name, field in may.items()},
    )
    less = st.fixed_dictionaries(
        {}, optional={field.encode_name: values(field.type, field.encode_name) for field in kind.fields}
    )
    return mostly(usual, less)


def parameters_of(action: str) -> st.SearchStrategy[tuple[str, dict[str, Any], list[str]]]:
    """(action, parameters, names of those that are there twice)."""
    kind = inspect.type_info(ACTIONS[action])
    assert isinstance(kind, inspect.StructType)
    names = [field.encode_name for field in kind.fields]
    doubled = mostly(st.just([]), st.lists(st.sampled_from(names), max_size=1) if names else st.just([]))
    return st.tuples(st.just(action), struct(kind), doubled)


_OFTEN = [action for action in sorted(ACTIONS) if "Message" in action and "Task" not in action]
calls = st.sampled_from([*sorted(ACTIONS), *_OFTEN]).flatmap(parameters_of)


def as_json(parameters: Mapping[str, Any], doubled: list[str]) -> bytes:
    pairs = [*parameters.items(), *((name, parameters.get(name)) for name in doubled)]
    return b"{%b}" % b",".join(f"{json.dumps(name)}:{json.dumps(value)}".encode() for name, value in pairs)


def as_form(action: str, parameters: Mapping[str, Any], doubled: list[str]) -> bytes:
    pairs = [("Action", action), *flat(action, "", parameters)]
    pairs += [pair for pair in pairs if pair[0].partition(".")[0] in doubled]
    return b"&".join(f"{quoted(name)}={quoted(value)}".encode() for name, value in pairs)


class Target:
    """A server that is sent everything, and what has to be true of it."""

    def __init__(self, served: Served, patch: pytest.MonkeyPatch) -> None:
        self.served = served
        self.wire = Wire(served)
        self.faults: list[object] = []
        self.seen = dict.fromkeys(SEEN, "nothing")
        patch.setattr(lane, "log", self)
        receive = Queues.receive

        def soon(
            queues: Queues, queue: str, limit: int, lease: int | None, wait: float, *more: Any, **how: Any
        ) -> Any:
            return receive(queues, queue, limit, lease, min(wait, 0.001), *more, **how)

        patch.setattr(Queues, "receive", soon)
        served.run(self._listen())
        self.stand()
        url = self.wire.create(CONTROL)
        for n in range(3):
            self.wire.send(url, str(n))
        self.control = self._control()

    def stand(self) -> None:
        """Make the queues that there have to be, unless they are there."""
        policy = f'{{"deadLetterTargetArn":"{arn_of("dlq")}","maxReceiveCount":"2"}}'
        for name, attributes in {
            "dlq": {},
            "q": {"RedrivePolicy": policy},
            "q.fifo": {"FifoQueue": "true"},
        }.items():
            try:
                self.served.app.store.queue_number(name)
            except (QueueNotFound, AttributeError):  # or there is no store yet
                self.wire.create(name, **attributes)

    async def _listen(self) -> None:
        self.served._runner.get_loop().set_exception_handler(lambda _, context: self.faults.append(context))

    def error(self, *what: object, **more: object) -> None:
        """In place of the log of faults."""
        self.faults.append((what, more))

    def _control(self) -> Any:
        store = self.served.app.store
        return (
            self.served.run(store.peek(CONTROL, 10)),
            self.served.run(store.queue(CONTROL)).settings,
        )

    def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, Any]) -> httpx.Response:
        for name, value in self.seen.items():
            body = body.replace(f"seen-{name}".encode(), value.encode())
        answer = self.served(method, path, body, headers=headers)
        assert answer.status_code < 500, answer.text
        assert not self.faults
        return answer

    def json(self, answer: httpx.Response) -> None:
        """It is an answer of the JSON protocol."""
        assert answer.headers["content-type"] == "application/x-amz-json-1.0"
        assert answer.headers["x-amzn-requestid"]
        told = answer.json()
        if answer.status_code == 200:
            assert "x-amzn-query-error" not in answer.headers
            self._look(told)
            return
        assert set(told) == {"__type", "message"}
        assert told["__type"].startswith("com.amazon")
        assert told["message"]
        code, _, fault = answer.headers["x-amzn-query-error"].partition(";")
        assert code
        assert fault == "Sender"

    def _look(self, told: Any) -> None:
        for name, value in told.items() if isinstance(told, dict) else ():
            if name in self.seen:
                self.seen[name] = value
            self._look(value[0] if isinstance(value, list) and value else value)

    def xml(self, answer: httpx.Response) -> ElementTree.Element:
        """It is an answer of the query protocol."""
        assert answer.headers["content-type"] == "text/xml"
        root = plain(answer.text)
        if answer.status_code == 200:
            assert root.findtext("ResponseMetadata/RequestId")
            for name in self.seen:
                self.seen[name] = root.findtext(f".//{name}") or self.seen[name]
            return root
        assert root.tag == "ErrorResponse"
        assert root.findtext("Error/Type") == "Sender"
        assert root.findtext("Error/Code")
        assert root.findtext("Error/Message")
        assert root.findtext("RequestId")
        return root

    def untouched(self) -> None:
        assert self._control() == self.control


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    with Served(tmp_path / "data", road="protocol") as served:
        yield Target(served, monkeypatch)


amounts = pytest.mark.parametrize("amount", [60, pytest.param(3_000, marks=pytest.mark.storm)])
JSON = "application/x-amz-json-1.0"


@amounts
def test_any_parameters_of_any_action(target: Target, amount: int) -> None:
    """Planted defects: words with what was sent in an answer that XML cannot carry; a fault of our own for a
    number, a name or a policy that nobody thought of."""

    @settings(max_examples=amount)
    @given(calls, st.sampled_from(["json", "form", "get"]), st.sampled_from(["/", "/000000000000/q"]))
    def each(call: tuple[str, dict[str, Any], list[str]], how: str, path: str) -> None:
        action, parameters, doubled = call
        target.stand()
        if how == "json":
            headers = {"x-amz-target": f"AmazonSQS.{action}", "content-type": JSON}
            target.json(target.ask("POST", path, as_json(parameters, doubled), headers))
            return
        form = as_form(action, parameters, doubled)
        if how == "form" or len(form) > 10_000:
            answer = target.xml(target.ask("POST", path, form, {"content-type": FORM}))
        else:
            for name, value in target.seen.items():
                form = form.replace(f"seen-{name}".encode(), value.encode())
            answer = target.xml(target.ask("GET", f"{path}?{form.decode()}", b"", {}))
        if answer.findtext("Error/Code") == "InvalidMessageContents":
            assert action in ("SendMessage", "ReceiveMessage")  # all others have done their work by then

    each()
    target.untouched()


pieces = st.sampled_from(
    [b"{", b"}", b"[", b'"', b":", b",", b'"QueueUrl"', b'"q"', b"null", b"1e400", b"\\ud800", b"\xff", b"\0",
     b"&", b"=", b"%", b"%zz", b"+", b".1", b".Name", b"Action=", b"SendMessage", b"QueueUrl=q",
     b"MessageBody", b"MessageAttribute", b".entry", b".999999999999999999", b"[" * 500, b"&" * 6000,
     b"a." * 20]
)  # fmt: skip
bodies = st.binary(max_size=100) | st.lists(pieces, max_size=12).map(b"".join)


@amounts
def test_any_bytes_as_a_body(target: Target, amount: int) -> None:
    """Planted defect: a fault of our own for what is neither JSON nor a form."""

    @settings(max_examples=amount)
    @given(bodies, st.sampled_from(sorted(ACTIONS)), st.booleans())
    def each(body: bytes, action: str, form: bool) -> None:
        if form:
            begun = f"Action={action}&".encode() + body
            target.xml(target.ask("POST", "/", begun, {"content-type": FORM}))
            target.xml(target.ask("POST", "/", body, {"content-type": FORM}))
        else:
            target.json(target.ask("POST", "/", body, {"x-amz-target": f"AmazonSQS.{action}"}))

    each()
    target.untouched()


lines = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60)
signatures = st.tuples(
    st.sampled_from(["AWS4-HMAC-SHA256", "Bearer", "Basic", "aws4-hmac-sha256", ""]),
    st.sampled_from(
        ["Credential=KEY/20260101/r/sqs/aws4_request", "Credential=KEY", "Credential=//////", "wk_1_x"]
    ),
    st.sampled_from(
        ["SignedHeaders=host;x-amz-date", "SignedHeaders=;;", "SignedHeaders=none", "SignedHeaders"]
    ),
    st.sampled_from(["Signature=" + "0" * 64, "Signature=", "Signature=\u00e9"]),
).map(lambda parts: f"{parts[0]} {', '.join(parts[1:])}")
fields = {
    "x-amz-target": st.sampled_from(["AmazonSQS.ListQueues", "AmazonSQS.", "Amazon.ListQueues"]) | lines,
    "content-type": st.sampled_from([FORM, JSON, f"{FORM}; charset=x", "multipart/form-data"]) | lines,
    "authorization": signatures | lines,
    "x-amz-date": st.sampled_from(["20260101T000000Z", "20260101T000000", "20269999T999999Z"]) | lines,
    "date": st.sampled_from(["Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 99 Jan 2026 00:00:00 GMT"]) | lines,
    "x-amz-content-sha256": st.sampled_from(["UNSIGNED-PAYLOAD", "0" * 64]) | lines,
    "x-forwarded-proto": lines,
}
_PRESIGNED = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=KEY%2F20260101%2Fr%2Fsqs%2Faws4_request"
    "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
)
queries = st.sampled_from(
    ["", "?Action=ListQueues", "?Action=ListQueues&X-Amz-Signature=0", "?X-Amz-Algorithm=AWS4-HMAC-SHA256",
     f"?Action=DeleteQueue&QueueUrl=q&{_PRESIGNED}"]
)  # fmt: skip
paths = st.sampled_from(
    ["/", "/000000000000/q", "/1/q%2F", "/1/%FF", "/1/%00", "/1/..", "//1/q", "/1/q/", "/1"]
)


@amounts
def test_any_headers_of_who_has_no_key(target: Target, amount: int) -> None:
    """Planted defects: let in without a signature; a fault of our own for one that cannot be read."""
    key = target.served.run(control.act(target.served.app, {"do": "create_key", "scopes": ["all"]}))
    forms = st.sampled_from([b"", b"{}", b"Action=ListQueues", b"Action=DeleteQueue&QueueUrl=q"])

    @settings(max_examples=amount)
    @given(
        st.fixed_dictionaries({}, optional=fields), st.sampled_from(["POST", "GET"]), paths, queries, forms
    )
    def each(headers: dict[str, str], method: str, path: str, asked: str, body: bytes) -> None:
        sent = {
            name: value.replace("KEY", key["access_key_id"]).encode("latin-1")
            for name, value in headers.items()
        }
        where = path + asked.replace("KEY", key["access_key_id"])
        answer = target.ask(method, where, body if method == "POST" else b"", sent)
        assert answer.status_code in (400, 401, 403, 404, 405), answer.text
        kind = answer.headers["content-type"]
        if kind == "text/xml":
            target.xml(answer)
        elif kind != PROBLEM:
            target.json(answer)

    each()
    target.untouched()
