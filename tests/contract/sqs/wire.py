"""A client of SQS that speaks both protocols to a server in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote_from_bytes, urlencode
from xml.etree import ElementTree

import httpx

from tests.contract.http.served import Served
from windlass.server.sqs import query

FORM = "application/x-www-form-urlencoded"
IN_JSON = {
    "InvalidParameterValue": "InvalidParameterValueException",
    "MissingParameter": "MissingRequiredParameterException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "IncompleteSignature": "IncompleteSignatureException",
}
"""Errors common to all services that have another name in JSON, where `__type` says it."""
_SHORT = {name: short for short, name in IN_JSON.items()}


class Wire:
    """One server's face."""

    def __init__(self, api: Served) -> None:
        self.api = api

    def json(self, action: str, body: Any = None, path: str = "/", **headers: str) -> httpx.Response:
        """Ask in JSON; `body` is sent as it is where it is bytes."""
        sent = {
            "x-amz-target": f"AmazonSQS.{action}",
            "content-type": "application/x-amz-json-1.0",
            **headers,
        }
        return self.api("POST", path, {} if body is None else body, headers=sent)

    def __call__(self, action: str, **parameters: Any) -> dict[str, Any]:
        """What an action answers."""
        answer = self.json(action, parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-amz-json-1.0"
        assert answer.headers["x-amzn-requestid"]
        told: dict[str, Any] = answer.json()
        return told

    def refused(self, action: str, **parameters: Any) -> tuple[int, str, str]:
        """(status, name, code in the query protocol) of an error."""
        answer = self.json(action, parameters)
        return self.error(answer)

    def error(self, answer: httpx.Response) -> tuple[int, str, str]:
        told = answer.json()
        assert told["message"], told
        code, _, fault = answer.headers["x-amzn-query-error"].partition(";")
        assert fault == ("Sender" if answer.status_code < 500 else "Receiver")
        assert answer.headers["x-amzn-requestid"]
        where, _, name = told["__type"].partition("#")
        assert name not in IN_JSON
        assert where == ("com.amazon.coral.service" if name in _SHORT else where)
        return answer.status_code, _SHORT.get(name, name), code

    def form(self, parameters: Mapping[str, str] | bytes, path: str = "/") -> httpx.Response:
        """Ask with a form."""
        body = parameters if isinstance(parameters, bytes) else urlencode(parameters).encode()
        return self.api("POST", path, body, headers={"content-type": FORM})

    def query(self, action: str, path: str = "/", **parameters: str) -> ElementTree.Element:
        """What an action answers, as XML without its namespace."""
        answer = self.form({"Action": action, "Version": "2012-11-05", **parameters}, path)
        assert answer.status_code == 200, answer.text
        return plain(answer.text)

    def refused_query(self, action: str, path: str = "/", **parameters: str) -> tuple[int, str]:
        """(status, code) of an error."""
        answer = self.form({"Action": action, **parameters}, path)
        return answer.status_code, str(plain(answer.text).findtext("Error/Code"))

    def ask(self, form: bool, action: str, **parameters: Any) -> dict[str, Any] | tuple[int, str]:
        """What an action answers in either protocol, as JSON has it; of an error (status, code)."""
        if not form:
            answer = self.json(action, parameters)
            if answer.status_code == 200:
                return dict(answer.json())
            status, _, code = self.error(answer)
            return status, code
        answer = self.form(
            b"&".join(_pair(*each) for each in [("Action", action), *flat(action, "", parameters)])
        )
        root = plain(answer.text)
        if answer.status_code == 200:
            result = root.find(f"{action}Result")
            return {} if result is None else _told(result)
        return answer.status_code, str(root.findtext("Error/Code"))

    # --- shorthands -------------------------------------------------------------------------------

    def create(self, name: str = "q", **attributes: str) -> str:
        """A queue's URL."""
        return str(self("CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"])

    def send(self, url: str, body: str = "x", **more: Any) -> dict[str, Any]:
        return self("SendMessage", QueueUrl=url, MessageBody=body, **more)

    def receive(self, url: str, **wanted: Any) -> list[dict[str, Any]]:
        wanted.setdefault("MaxNumberOfMessages", 10)
        messages: list[dict[str, Any]] = self("ReceiveMessage", QueueUrl=url, **wanted).get("Messages", [])
        return messages

    def bodies(self, url: str, **wanted: Any) -> list[str]:
        return [message["Body"] for message in self.receive(url, **wanted)]


def plain(text: str) -> ElementTree.Element:
    """XML without namespaces."""
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2] or element.tag
    return root


def text(value: str, kind: str = "String") -> dict[str, str]:
    """The value of an attribute."""
    return {"DataType": kind, "StringValue": value}


def flat(action: str, key: str, value: Any) -> Iterator[tuple[str, str]]:
    """As clients of the query protocol number and name things."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            here = f"{key}." * bool(key) + query._name_here(action, name)
            if name in query._MAPS and isinstance(inner, Mapping):
                _, key_name, value_name = query._MAPS[name]
                for number, (item, one) in enumerate(inner.items(), 1):
                    yield f"{here}.{number}.{key_name}", item
                    yield from flat(action, f"{here}.{number}.{value_name}", one)
            else:
                yield from flat(action, here, inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from flat(action, f"{key}.{number}", inner)
    else:
        yield key, str(value)


def quoted(text: str) -> str:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"))


def _pair(name: str, value: str) -> bytes:
    return f"{quoted(name)}={quoted(value)}".encode()


_MAPS = {"Attribute": "Attributes", "MessageAttribute": "MessageAttributes"}
_LISTS = {here: there for there, here in query._LISTS.items()}


def _told(element: ElementTree.Element) -> dict[str, Any]:
    """An answer's XML as JSON would have it, but for numbers, which are text."""
    found: dict[str, Any] = {}
    for child in element:
        name, text = str(child.tag), child.text or ""
        if name in _MAPS:
            key, value = child
            found.setdefault(_MAPS[name], {})[key.text] = _told(value) if len(value) else value.text or ""
        elif len(child):
            found.setdefault(_LISTS.get(name, "Successful"), []).append(_told(child))
        else:
            found[name] = text == "true" if name == "SenderFault" else text
    return found
