"""SQS as botocore knew it while it spoke the query protocol: its model of today, with the names of then."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from hypothesis import strategies as st

_ITEMS = {
    "AWSAccountIdList": "AWSAccountId",
    "ActionNameList": "ActionName",
    "AttributeNameList": "AttributeName",
    "BatchResultErrorEntryList": "BatchResultErrorEntry",
    "BinaryList": "BinaryListValue",
    "ChangeMessageVisibilityBatchRequestEntryList": "ChangeMessageVisibilityBatchRequestEntry",
    "ChangeMessageVisibilityBatchResultEntryList": "ChangeMessageVisibilityBatchResultEntry",
    "DeleteMessageBatchRequestEntryList": "DeleteMessageBatchRequestEntry",
    "DeleteMessageBatchResultEntryList": "DeleteMessageBatchResultEntry",
    "ListMessageMoveTasksResultEntryList": "ListMessageMoveTasksResultEntry",
    "MessageAttributeNameList": "MessageAttributeName",
    "MessageList": "Message",
    "MessageSystemAttributeList": "MessageSystemAttributeName",
    "QueueUrlList": "QueueUrl",
    "SendMessageBatchRequestEntryList": "SendMessageBatchRequestEntry",
    "SendMessageBatchResultEntryList": "SendMessageBatchResultEntry",
    "StringList": "StringListValue",
    "TagKeyList": "TagKey",
}
"""List -> the name of its items."""
_MAPS = {
    "MessageBodyAttributeMap": ("MessageAttribute", "Name", "Value"),
    "MessageBodySystemAttributeMap": ("MessageSystemAttribute", "Name", "Value"),
    "MessageSystemAttributeMap": ("Attribute", "Name", "Value"),
    "QueueAttributeMap": ("Attribute", "Name", "Value"),
    "TagMap": ("Tag", "Key", "Value"),
}
"""Map -> its own name, that of a key, that of a value."""


@cache
def model() -> Any:
    """The ServiceModel. Fails on a list or map that it has no old name for."""
    described = Loader().load_service_model("sqs", "service-2")
    described["metadata"] |= {
        "protocol": "query",
        "protocols": ["query"],
        "xmlNamespace": "http://queue.amazonaws.com/doc/2012-11-05/",
    }
    for name, shape in described["shapes"].items():
        if shape["type"] == "list":
            shape["flattened"] = True
            shape["member"]["locationName"] = _ITEMS[name]
        elif shape["type"] == "map":
            own, key, value = _MAPS[name]
            shape |= {"flattened": True, "locationName": own}
            shape["key"]["locationName"] = key
            shape["value"]["locationName"] = value
        for member in shape.get("members", {}).values():
            if member["shape"] in ("StringList", "BinaryList"):
                member["locationName"] = _ITEMS[member["shape"]]
    for operation in described["operations"].values():
        if "output" in operation:
            operation["output"]["resultWrapper"] = operation["output"]["shape"]
    return ServiceModel(described, "sqs")


def values(shape: Shape, text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Anything of a shape, with such texts."""
    made: st.SearchStrategy[Any]
    match shape.type_name:
        case "structure":
            members = {name: values(member, text) for name, member in shape.members.items()}
            needed = set(shape.required_members)
            made = st.fixed_dictionaries(
                {name: value for name, value in members.items() if name in needed},
                optional={name: value for name, value in members.items() if name not in needed},
            )
        case "list":
            made = st.lists(values(shape.member, text), max_size=3)
        case "map":
            made = st.dictionaries(text, values(shape.value, text), min_size=1, max_size=3)
        case "string":
            made = text
        case "blob":
            made = st.binary(max_size=6) | st.just(base64.b64decode("null"))
        case "boolean":
            made = st.booleans()
        case "integer" | "long":
            made = st.integers(-(10**9), 10**18 - 1)
        case other:
            raise AssertionError(f"{other}: there was none when this was written")
    return made
