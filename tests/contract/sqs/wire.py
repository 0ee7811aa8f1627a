"""A client of SQS that speaks both protocols to a server in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import httpx

from tests.contract.http.served import Served

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
