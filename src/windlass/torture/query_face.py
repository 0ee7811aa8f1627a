"""The storm over SQS, in the query protocol: forms go out, XML comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from windlass.torture.sqs_face import SqsFace
from windlass.torture.wire import Answer, Asked

_LISTS = {"Message": "Messages", "BatchResultErrorEntry": "Failed"}
"""Elements that may be there several times, and what JSON calls all of them; any others are successes."""


class QueryFace(SqsFace):
    """The same requests, written otherwise."""

    def written(self, action: str, path: str, parameters: Mapping[str, Any]) -> Asked:
        form = {"Action": action, "Version": "2012-11-05", **dict(_flat(action, parameters))}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Asked("POST", path, urlencode(form).encode(), headers)

    def told(self, answer: Answer) -> Mapping[str, Any]:
        result = _xml(answer)[0]
        return _members(result) if result.tag.endswith("Result") else {}

    def fault(self, answer: Answer) -> str:
        return str(_xml(answer).findtext("Error/Code")).rpartition(".")[2]


def _flat(action: str, parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        one = name.removesuffix("s")
        if name == "Entries":
            for number, entry in enumerate(value, 1):
                yield from ((f"{action}RequestEntry.{number}.{key}", each) for key, each in entry.items())
        elif isinstance(value, Mapping):
            for number, (key, each) in enumerate(value.items(), 1):
                yield from ((f"{one}.{number}.Name", key), (f"{one}.{number}.Value", each))
        elif isinstance(value, list):
            yield from ((f"{one}.{number}", each) for number, each in enumerate(value, 1))
        else:
            yield name, value


def _xml(answer: Answer) -> ElementTree.Element:
    """Without its namespace."""
    root = ElementTree.fromstring(answer.body)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
    return root


def _members(element: ElementTree.Element) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in element:
        if child.tag == "Attribute":
            found.setdefault("Attributes", {})[child.findtext("Name")] = child.findtext("Value")
        elif len(child):
            found.setdefault(_LISTS.get(child.tag, "Successful"), []).append(_members(child))
        else:
            found[child.tag] = child.text or ""
    return found
