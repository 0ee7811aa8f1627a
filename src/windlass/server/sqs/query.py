"""The query protocol of SQS, version 2012-11-05: a form comes in, XML goes out.

A form is flat: `MessageAttribute.1.Name=colour&MessageAttribute.1.Value.DataType=String`. It is made into
what the JSON protocol would have had, and then into the same classes (requests.py). Lists and maps have other
names here than in JSON; both are taken, numbered plainly, or under `member` and `entry` as some clients do.
What is unknown is passed over, as the parts of a signature in a URL are.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec
from msgspec import inspect

from windlass.server.sqs.errors import XML_CANNOT, SqsError, invalid, missing
from windlass.server.sqs.requests import ACTIONS, Shape, fault_of

MAX_PARAMETERS = 5000
"""Of one form: several times what a batch of ten can have."""
_MAX_DEPTH = 12
"""Dots in a key: more than any that is known has."""

_LISTS = {
    "AttributeNames": "AttributeName",
    "MessageSystemAttributeNames": "MessageSystemAttributeName",
    "MessageAttributeNames": "MessageAttributeName",
    "TagKeys": "TagKey",
    "AWSAccountIds": "AWSAccountId",
    "Actions": "ActionName",
    "StringListValues": "StringListValue",
    "BinaryListValues": "BinaryListValue",
    "QueueUrls": "QueueUrl",
    "queueUrls": "QueueUrl",
    "Messages": "Message",
    "Failed": "BatchResultErrorEntry",
    "Results": "ListMessageMoveTasksResultEntry",
}
"""Lists: name in JSON -> name here. Those of batches have the action in their name."""
_PAIR = ("Name", "Value")
_MAPS = {
    "Attributes": ("Attribute", *_PAIR),
    "MessageAttributes": ("MessageAttribute", *_PAIR),
    "MessageSystemAttributes": ("MessageSystemAttribute", *_PAIR),
    "tags": ("Tag", "Key", "Value"),
    "Tags": ("Tag", "Key", "Value"),
}
"""Maps: name in JSON -> name here, of a key, and of its value."""

_number = re.compile(r"-?[0-9]{1,18}\Z")
_index = re.compile(r"[0-9]{1,18}\Z")


# --- what comes in ------------------------------------------------------------------------------------

Tree = dict[str, Any]
"""Parameters, as their keys nest them: text, or a Tree."""


def parse(form: bytes) -> tuple[str, Shape]:
    """(action, what it takes) of a form, which is a body or a URL's query string. Raises SqsError."""
    tree = _tree(form)
    action = tree.get("Action", "")
    if not isinstance(action, str) or not action:
        raise SqsError("MissingAction", "The request must contain the parameter Action.")
    shape = _SHAPES.get(action)
    if shape is None:
        raise SqsError("InvalidAction", f"The action {action[:200]} is not valid for this endpoint.")
    try:
        # Not msgspec's lax mode: it takes 1e3 for a number, and null, which is base64, for nothing.
        return action, msgspec.convert(shape.read(tree, ""), ACTIONS[action])
    except msgspec.ValidationError as error:
        raise fault_of(error) from None


def _malformed(reason: str) -> SqsError:
    return SqsError("MalformedQueryString", f"The query string contains a syntax error: {reason}")


def _tree(form: bytes) -> Tree:
    if form.count(b"&") >= MAX_PARAMETERS:
        raise _malformed(f"it has more than {MAX_PARAMETERS:,} parameters.")
    tree: Tree = {}
    for parameter in form.split(b"&"):
        if not parameter:
            continue
        name, _, value = parameter.partition(b"=")
        key = _decoded(name)
        node, last = tree, key
        if "." in key:
            if key.count(".") > _MAX_DEPTH:
                continue
            *path, last = key.split(".")
            for part in path:
                node = node.setdefault(part, {})
                if not isinstance(node, dict):
                    raise _twice(key)
        if last in node:
            raise _twice(key)
        node[last] = _decoded(value)
    return tree


def _twice(key: str) -> SqsError:
    return _malformed(f"the parameter {key[:200]} is there twice.")


def _decoded(text: bytes) -> str:
    """What percent-encoded UTF-8 says, at the speed of memory: a body may have millions of escapes."""
    if b"+" in text:
        text = text.replace(b"+", b" ")
    try:
        if b"%" in text:
            escaped = text.replace(b"\\", b"\\\\").replace(b"%", b"\\x")
            text = escaped.decode("unicode_escape").encode("latin-1")
        return text.decode()
    except UnicodeDecodeError:
        raise _malformed("it has to be percent-encoded UTF-8.") from None


class _Leaf:
    """Text."""

    def read(self, node: Any, _key: str) -> Any:
        return node


class _Whole:
    """A whole number."""

    def read(self, node: Any, key: str) -> Any:
        if not isinstance(node, str):
            return node
        if not _number.match(node):
            raise invalid(key, node, "Must be an integer.")
        return int(node)


class _List:
    def __init__(self, item: _Kind) -> None:
        self._item = item

    def read(self, node: Any, key: str) -> Any:
        if isinstance(node, str):  # botocore sends an empty list so; and old clients a single name
            return [self._item.read(node, key)] if node else []
        return [self._item.read(inner, f"{key}.{number}") for number, inner in _numbered(node, key, "member")]


class _Map:
    def __init__(self, names: tuple[str, str], value: _Kind) -> None:
        self._names = names
        self._value = value

    def read(self, node: Any, key: str) -> Any:
        if isinstance(node, str):
            if node:
                raise invalid(key, node, "It has names and values.")
            return {}
        name_name, value_name = self._names
        if name_name in node:  # the oldest documents have Attribute.Name=… without a number
            node = {"1": node}
        found: Tree = {}
        for number, pair in _numbered(node, key, "entry"):
            where = f"{key}.{number}"
            if not isinstance(pair, dict):
                raise invalid(where, pair, "It has a name and a value.")
            name = pair.get(name_name, pair.get("key"))
            value = pair.get(value_name, pair.get("value"))
            if name is None:
                raise missing(f"{where}.{name_name}")
            if value is None:
                raise missing(f"{where}.{value_name}")
            if not isinstance(name, str):
                raise invalid(f"{where}.{name_name}", "", "It is a text.")
            if name in found:
                raise invalid(f"{where}.{name_name}", name, "It is there twice.")
            found[name] = self._value.read(value, f"{where}.{value_name}")
        return found


class _Struct:
    def __init__(self, fields: dict[str, tuple[str, _Kind]]) -> None:
        self._fields = fields
        """Name in the form, of which a field may have two -> name in JSON, kind."""

    def read(self, node: Any, key: str) -> Any:
        if not isinstance(node, dict):
            return node  # and is refused as what it is
        found: Tree = {}
        for name, inner in node.items():
            known = self._fields.get(name)
            if known is not None:
                where = f"{key}.{name}" if key else name
                if known[0] in found:
                    raise _twice(where)
                found[known[0]] = known[1].read(inner, where)
        return found


_Kind = _Leaf | _Whole | _List | _Map | _Struct


def _numbered(node: Tree, key: str, under: str) -> list[tuple[int, Any]]:
    """What is numbered, in its order. It may start anywhere, and have gaps."""
    if len(node) == 1 and under in node:
        below: Any = node[under]
        if isinstance(below, str):
            return [(1, below)] if below else []
        node = below
    found: dict[int, Any] = {}
    for part, inner in node.items():
        if not _index.match(part):
            raise _malformed(f"{key[:200]} is followed by a number.")
        if int(part) in found:  # 1 and 01
            raise _twice(f"{key}.{part}")
        found[int(part)] = inner
    return sorted(found.items(), key=lambda pair: pair[0])


def _kind(known: inspect.Type, action: str, name: str) -> _Kind:
    if isinstance(known, inspect.UnionType):
        known = next(one for one in known.types if not isinstance(one, inspect.NoneType))
    if isinstance(known, inspect.StructType):
        fields: dict[str, tuple[str, _Kind]] = {}
        for field in known.fields:
            member = field.encode_name
            entry = (member, _kind(field.type, action, member))
            fields[member] = fields[_name_here(action, member)] = entry
        return _Struct(fields)
    if isinstance(known, inspect.ListType):
        return _List(_kind(known.item_type, action, name))
    if isinstance(known, inspect.DictType):
        return _Map(_MAPS[name][1:], _kind(known.value_type, action, name))
    return _Whole() if isinstance(known, inspect.IntType) else _Leaf()


def _name_here(action: str, member: str) -> str:
    if member == "Entries":
        return f"{action}RequestEntry"
    return _MAPS[member][0] if member in _MAPS else _LISTS.get(member, member)


_SHAPES = {action: _kind(inspect.type_info(shape), action, "") for action, shape in ACTIONS.items()}


# --- what goes out ------------------------------------------------------------------------------------

_NAMESPACE = b'xmlns="http://queue.amazonaws.com/doc/2012-11-05/"'
_WITHOUT_RESULT = frozenset(
    {
        "AddPermission",
        "ChangeMessageVisibility",
        "DeleteMessage",
        "DeleteQueue",
        "PurgeQueue",
        "RemovePermission",
        "SetQueueAttributes",
        "TagQueue",
        "UntagQueue",
    }
)
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r")
_SPECIAL = _CONTROLS + b"&<>\r"


def render(action: str, result: dict[str, Any], request_id: str) -> bytes:
    """The answer's XML. `result` is as the JSON protocol has it, with bytes for base64.

    Raises SqsError, InvalidMessageContents, for text that XML cannot carry.
    """
    name = action.encode()
    out = [b'<?xml version="1.0"?><%bResponse %b>' % (name, _NAMESPACE)]
    if action not in _WITHOUT_RESULT:
        out.append(b"<%bResult>" % name)
        _members(out, action, result)
        out.append(b"</%bResult>" % name)
    out.append(
        b"<ResponseMetadata><RequestId>%b</RequestId></ResponseMetadata></%bResponse>"
        % (_text(request_id), name)
    )
    return b"".join(out)


def render_error(error: SqsError, request_id: str) -> bytes:
    """The XML of an error. What XML cannot carry of its message is replaced."""
    return (
        b'<?xml version="1.0"?><ErrorResponse %b><Error><Type>%b</Type><Code>%b</Code><Message>%b</Message>'
        b"<Detail/></Error><RequestId>%b</RequestId></ErrorResponse>"
    ) % (
        _NAMESPACE,
        b"Sender" if error.sender else b"Receiver",
        _text(error.code),
        _text(XML_CANNOT.sub("\ufffd", error.message)),
        _text(XML_CANNOT.sub("\ufffd", request_id)),
    )


def _members(out: list[bytes], action: str, members: dict[str, Any]) -> None:
    for name, value in members.items():
        if isinstance(value, str):  # most are
            tag = name.encode()
            out.append(b"<%b>%b</%b>" % (tag, _text(value), tag))
        elif isinstance(value, list):
            element = f"{action}ResultEntry" if name == "Successful" else _LISTS.get(name, name)
            for item in value:
                _element(out, action, element.encode(), item)
        elif isinstance(value, dict) and name in _MAPS:
            element, key_name, value_name = _MAPS[name]
            tag, key_tag, value_tag = element.encode(), key_name.encode(), value_name.encode()
            for key, item in value.items():
                out.append(b"<%b><%b>%b</%b>" % (tag, key_tag, _text(key), key_tag))
                _element(out, action, value_tag, item)
                out.append(b"</%b>" % tag)
        elif value is not None:
            _element(out, action, name.encode(), value)


def _element(out: list[bytes], action: str, tag: bytes, value: Any) -> None:
    out.append(b"<%b>" % tag)
    if isinstance(value, dict):
        _members(out, action, value)
    elif isinstance(value, bool):
        out.append(b"true" if value else b"false")
    elif isinstance(value, bytes):
        out.append(base64.b64encode(value))
    else:
        out.append(_text(str(value)))
    out.append(b"</%b>" % tag)


def _text(text: str) -> bytes:
    """Escaped UTF-8. XML_CANNOT says the same of what cannot be, but takes far longer for a large body."""
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise _cannot() from None
    if len(data.translate(None, _SPECIAL)) != len(data):
        if len(data.translate(None, _CONTROLS)) != len(data):
            raise _cannot()
        data = data.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
        data = data.replace(b"\r", b"&#xD;")  # bare, it would arrive as a line feed
    if not text.isascii() and ("\ufffe" in text or "\uffff" in text):
        raise _cannot()
    return data


def _cannot() -> SqsError:
    return SqsError(
        "InvalidMessageContents",
        "The message contains characters that XML cannot carry: receive it with the JSON protocol.",
    )
