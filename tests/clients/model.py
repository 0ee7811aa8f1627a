"""What there is to prove: the actions of SQS, their parameters and errors, as botocore's model has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.session

ATTRIBUTE_NAMES = "QueueAttributeName"


@dataclass(frozen=True)
class Action:
    parameters: tuple[str, ...]
    """In the model's order, what is inside of one after it: `Entries`, `Entries.Id`."""
    errors: tuple[str, ...]


def service() -> Any:
    """The model itself."""
    return botocore.session.Session().get_service_model("sqs")


def actions() -> dict[str, Action]:
    """All of them by name."""
    model = service()
    found = {}
    for name in model.operation_names:
        operation = model.operation_model(name)
        found[name] = Action(
            tuple(_within(operation.input_shape, "")), tuple(shape.name for shape in operation.error_shapes)
        )
    received = found["ReceiveMessage"]
    found["ReceiveMessage"] = Action(tuple(_as_it_is(received.parameters)), received.errors)
    return found


def _as_it_is(parameters: tuple[str, ...]) -> Iterator[str]:
    """What the model lists for the older of a receive's two lists of names are the attributes of queues; what
    may be in it are the system attributes of messages, as in the newer one."""
    for parameter in parameters:
        if not parameter.startswith("AttributeNames."):
            yield parameter
        if parameter == "AttributeNames":
            newer = "MessageSystemAttributeNames."
            yield from (each.removeprefix("MessageSystem") for each in parameters if each.startswith(newer))


def attribute_names() -> list[str]:
    """What a queue can be asked for, without All."""
    names: list[str] = service().shape_for(ATTRIBUTE_NAMES).enum
    return [name for name in names if name != "All"]


def _within(shape: Any, path: str) -> Iterator[str]:
    """The paths below a shape: members of structures, and the names that are listed for a map's keys or a
    list's values."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield path + name
            yield from _within(member, f"{path}{name}.")
    elif shape.type_name == "list":
        yield from (path + name for name in getattr(shape.member, "enum", ()))
        yield from _within(shape.member, path)
    elif shape.type_name == "map":
        yield from (path + name for name in getattr(shape.key, "enum", ()))
        yield from _within(shape.value, path)
