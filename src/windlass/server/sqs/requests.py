"""What each action takes: names and types, the same for both protocols.

They are those of the API reference of SQS, version 2012-11-05. The JSON protocol is decoded into them as it
is; the query protocol (query.py) first makes of its form what the JSON would be.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import field

from windlass.server.sqs.errors import SqsError, missing


class Shape(msgspec.Struct, rename="pascal", gc=False):
    """A structure; what is null is as if it were not there, and what is unknown is passed over."""


class AttributeValue(Shape):
    """A message's attribute. Binary values are base64 in JSON, and bytes here."""

    data_type: str
    string_value: str | None = None
    binary_value: bytes | None = None
    string_list_values: list[str] | None = None
    binary_list_values: list[bytes] | None = None


Attributes = dict[str, str]
MessageAttributes = dict[str, AttributeValue]


class OfQueue(Shape, kw_only=True):
    """What is about one queue, by its URL; its bare name is taken too.

    It may be left out where the request goes to that URL.
    """

    queue_url: str = ""


# --- messages -----------------------------------------------------------------------------------------


class SendMessage(OfQueue):
    message_body: str
    delay_seconds: int | None = None
    message_attributes: MessageAttributes | None = None
    message_system_attributes: MessageAttributes | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendEntry(Shape):
    id: str
    message_body: str
    delay_seconds: int | None = None
    message_attributes: MessageAttributes | None = None
    message_system_attributes: MessageAttributes | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessageBatch(OfQueue):
    entries: list[SendEntry]


class ReceiveMessage(OfQueue):
    attribute_names: list[str] | None = None
    message_system_attribute_names: list[str] | None = None
    message_attribute_names: list[str] | None = None
    max_number_of_messages: int | None = None
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None
    receive_request_attempt_id: str | None = None


class DeleteMessage(OfQueue):
    receipt_handle: str


class DeleteEntry(Shape):
    id: str
    receipt_handle: str


class DeleteMessageBatch(OfQueue):
    entries: list[DeleteEntry]


class ChangeMessageVisibility(OfQueue):
    receipt_handle: str
    visibility_timeout: int


class VisibilityEntry(Shape):
    id: str
    receipt_handle: str
    visibility_timeout: int | None = None


class ChangeMessageVisibilityBatch(OfQueue):
    entries: list[VisibilityEntry]


# --- queues -------------------------------------------------------------------------------------------


class CreateQueue(Shape):
    queue_name: str
    attributes: Attributes | None = None
    tags: Attributes | None = field(name="tags", default=None)


class GetQueueUrl(Shape):
    queue_name: str
    queue_owner_aws_account_id: str | None = field(name="QueueOwnerAWSAccountId", default=None)


class ListQueues(Shape):
    queue_name_prefix: str | None = None
    next_token: str | None = None
    max_results: int | None = None


class GetQueueAttributes(OfQueue):
    attribute_names: list[str] | None = None


class SetQueueAttributes(OfQueue):
    attributes: Attributes


class DeleteQueue(OfQueue):
    pass


class PurgeQueue(OfQueue):
    pass


class ListDeadLetterSourceQueues(OfQueue):
    next_token: str | None = None
    max_results: int | None = None


class TagQueue(OfQueue):
    tags: Attributes


class UntagQueue(OfQueue):
    tag_keys: list[str]


class ListQueueTags(OfQueue):
    pass


class AddPermission(OfQueue):
    label: str
    aws_account_ids: list[str] = field(name="AWSAccountIds")
    actions: list[str]


class RemovePermission(OfQueue):
    label: str


# --- moves out of dead-letter queues --------------------------------------------------------------------


class StartMessageMoveTask(Shape):
    source_arn: str
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None


class ListMessageMoveTasks(Shape):
    source_arn: str
    max_results: int | None = None


class CancelMessageMoveTask(Shape):
    task_handle: str


ACTIONS: dict[str, type[Shape]] = {
    shape.__name__: shape
    for shape in (
        AddPermission,
        CancelMessageMoveTask,
        ChangeMessageVisibility,
        ChangeMessageVisibilityBatch,
        CreateQueue,
        DeleteMessage,
        DeleteMessageBatch,
        DeleteQueue,
        GetQueueAttributes,
        GetQueueUrl,
        ListDeadLetterSourceQueues,
        ListMessageMoveTasks,
        ListQueues,
        ListQueueTags,
        PurgeQueue,
        ReceiveMessage,
        RemovePermission,
        SendMessage,
        SendMessageBatch,
        SetQueueAttributes,
        StartMessageMoveTask,
        TagQueue,
        UntagQueue,
    )
}
"""Action -> what it takes."""

_WHERE = re.compile(r" - at `(?:key in )?\$\.?(.*)`\Z", re.DOTALL)
_ABSENT = re.compile(r"missing required field `(.*)`\Z")


def fault_of(error: msgspec.ValidationError, *, json: bool = False) -> SqsError:
    """What a client is told of a request that is not as the classes above have it.

    Something is missing, or has the wrong type: which has a name of its own in JSON.
    """
    text = str(error)
    where = _WHERE.search(text)
    parameter = where[1] if where else ""
    reason = text[: where.start()] if where else text
    absent = _ABSENT.search(reason)
    if absent:
        return missing(f"{parameter}.{absent[1]}" if parameter else absent[1])
    if json:
        return SqsError("SerializationException", f"{parameter or 'The request'}: {reason}.")
    return SqsError("InvalidParameterValue", f"Value for parameter {parameter} is invalid. Reason: {reason}.")
