"""The attributes of a queue as clients of SQS know them, and the settings that they are here.

Some of them are settings of the engine. What the engine has no use for is kept as it was given, in
`QueueSettings.sqs`, and only the given: a default is a default whoever made the queue. Values are checked
here; whether a dead-letter queue is there is for queues.py to find out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from windlass.message import QueueInfo, QueueSettings
from windlass.server.sqs.errors import XML_CANNOT, SqsError, invalid
from windlass.server.sqs.names import FIFO, arn_of, name_of_arn

MAX_SIZE = 1024 * 1024
"""Bytes that a message may have, and a batch."""
MAX_POLICY = 8192
"""Bytes of a policy."""
MAX_STATEMENTS = 20
MAX_SOURCES = 10
"""Queues that a RedriveAllowPolicy may name."""
_MAX_KEY_ID = 2048
_RETENTION = 345_600
"""Seconds for which a queue keeps messages where its maker says nothing."""
_LONGEST_RETENTION = 1_209_600
_LEASE = 30
"""What lease_seconds is while VisibilityTimeout is 0, which no lease may be."""

_RANGES = {
    "DelaySeconds": (0, 900),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
    "MaximumMessageSize": (1024, MAX_SIZE),
    "MessageRetentionPeriod": (60, _LONGEST_RETENTION),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
_WORDS = {
    "ContentBasedDeduplication": ("true", "false"),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
    "SqsManagedSseEnabled": ("true", "false"),
}
_OF_FIFO = frozenset({"FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"})
_OF_JSON = frozenset({"Policy", "RedrivePolicy", "RedriveAllowPolicy"})
_REDRIVING = "RedrivePolicy"
"""The one whose value SQS calls a parameter, where it is wrong."""
_READ_ONLY = frozenset(
    {
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesDelayed",
        "ApproximateNumberOfMessagesNotVisible",
        "CreatedTimestamp",
        "LastModifiedTimestamp",
        "QueueArn",
    }
)
_PERMISSIONS = ("allowAll", "denyAll", "byQueue")
_KEPT = ("Policy", "RedriveAllowPolicy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds")
"""Not shown unless they are set."""
_REDRIVE = frozenset({"deadLetterTargetArn", "maxReceiveCount"})
_whole = re.compile(r"[0-9]{1,10}\Z")
_encode = msgspec.json.Encoder().encode

NEW: dict[str, Any] = {"retention_seconds": _RETENTION, "max_message_bytes": 2 * MAX_SIZE + 2}
"""Settings of a new queue whose maker says nothing of them, where the engine's defaults are others."""
NOTHING = QueueSettings()
"""What a new queue starts from."""


def of_json(text: str) -> Any:
    """What a JSON text says. Raises ValueError."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError("no JSON") from error


# --- what is given ------------------------------------------------------------------------------------


def check(given: Mapping[str, str], *, fifo: bool) -> dict[str, str]:
    """Attributes for a queue of this type, each in its usual form; "" takes one away. Raises SqsError."""
    checked: dict[str, str] = {}
    for name, value in given.items():
        if name not in _CHECKS or (name in _OF_FIFO and not fifo):
            raise _unknown(name)
        checked[name] = _CHECKS[name](name, value)
    if checked.get("KmsMasterKeyId") and checked.get("SqsManagedSseEnabled") == "true":
        raise SqsError(
            "InvalidAttributeName",
            "You can use one type of server-side encryption (SSE) at one time."
            " You can either enable KMS SSE or SQS SSE.",
        )
    checked.pop("FifoQueue", None)  # the name says so
    return checked


def is_fifo(given: Mapping[str, str]) -> bool:
    """Whether a queue is to be made a FIFO queue. Raises SqsError."""
    wanted = given.get("FifoQueue")
    if wanted is not None and wanted != "true":
        raise _unknown("FifoQueue")  # so says SQS of "false"
    return wanted == "true"


def _unknown(name: str) -> SqsError:
    return SqsError("InvalidAttributeName", f"Unknown Attribute {name[:100]}.")


def _wrong(name: str, reason: str = "") -> SqsError:
    why = f" Reason: {reason}" if reason else ""
    code = "InvalidParameterValue" if name == _REDRIVING else "InvalidAttributeValue"
    return SqsError(code, f"Invalid value for the parameter {name}.{why}")


def _number(name: str, value: str) -> str:
    least, most = _RANGES[name]
    if not _whole.match(value) or not least <= int(value) <= most:
        raise _wrong(name)
    return str(int(value))


def _word(name: str, value: str) -> str:
    if value not in _WORDS[name]:
        raise _wrong(name)
    return value


def _fifo_queue(name: str, value: str) -> str:
    if value != "true":
        raise _wrong(name, "Modifying queue type is not supported.")
    return value


def _key_id(name: str, value: str) -> str:
    if len(value) > _MAX_KEY_ID or XML_CANNOT.search(value):
        raise _wrong(name)
    return value


def _policy(name: str, value: str) -> str:
    if not value:
        return value
    if XML_CANNOT.search(value) or len(value.encode()) > MAX_POLICY:
        raise _wrong(name)
    try:
        policy = of_json(value)
    except ValueError:
        raise _wrong(name) from None
    if not isinstance(policy, dict):
        raise _wrong(name)
    amount = len(statements_of(policy))
    if amount > MAX_STATEMENTS:
        raise SqsError(
            "OverLimit",
            f"{amount} statements were found in the submitted policy, max allowed is {MAX_STATEMENTS}",
        )
    return value


def statements_of(policy: Mapping[str, Any]) -> list[Any]:
    """A policy's statements; one may stand alone, without a list."""
    statements = policy.get("Statement") or []
    return statements if isinstance(statements, list) else [statements]


def _redrive_policy(name: str, value: str) -> str:
    if not value:
        return value
    try:
        policy = of_json(value)
    except ValueError:
        policy = None
    if not isinstance(policy, dict):
        raise _wrong(name, "Redrive policy is not a valid JSON map.")
    for mandatory in ("maxReceiveCount", "deadLetterTargetArn"):
        if mandatory not in policy:
            raise invalid(name, value, f"Redrive policy does not contain mandatory attribute: {mandatory}.")
    if policy.keys() - _REDRIVE:
        raise invalid(
            name, value, "Only following attributes are supported: [maxReceiveCount, deadLetterTargetArn]."
        )
    count = policy["maxReceiveCount"]
    if isinstance(count, str) and _whole.match(count):
        count = int(count)
    if type(count) is not int or not 1 <= count <= 1000:
        raise invalid(
            name,
            value,
            f"Invalid value for maxReceiveCount: {str(count)[:100]}, valid values are from 1 to 1000 both"
            " inclusive.",
        )
    arn = policy["deadLetterTargetArn"]
    try:
        letters = name_of_arn(arn if isinstance(arn, str) else "", name)
    except SqsError:
        raise invalid(name, value, "Invalid value for deadLetterTargetArn.") from None
    return _redrive_text(letters, count)


def _redrive_text(letters: str, count: int) -> str:
    return _encode({"deadLetterTargetArn": arn_of(letters), "maxReceiveCount": count}).decode()


def letters_of(redrive_policy: str) -> tuple[str, int]:
    """(name of the dead-letter queue, maxReceiveCount) of a RedrivePolicy that `check` gave."""
    policy = of_json(redrive_policy)
    return name_of_arn(policy["deadLetterTargetArn"], "RedrivePolicy"), policy["maxReceiveCount"]


def _redrive_allow_policy(name: str, value: str) -> str:
    if not value:
        return value
    try:
        policy = of_json(value) if len(value) <= MAX_POLICY and not XML_CANNOT.search(value) else None
    except ValueError:
        policy = None
    if (
        not isinstance(policy, dict)
        or policy.get("redrivePermission") not in _PERMISSIONS
        or policy.keys() - {"redrivePermission", "sourceQueueArns"}
        or not _are_texts(policy.get("sourceQueueArns", []))
    ):
        raise _wrong(
            name, "Amazon SQS can't create the redrive allow policy, as it's in an unsupported format."
        )
    sources = policy.get("sourceQueueArns", [])
    by_queue = policy["redrivePermission"] == "byQueue"
    why = None
    if sources and not by_queue:
        why = "To specify one or more source queue ARNs, you must set redrivePermission to byQueue."
    elif by_queue and not sources:
        why = (
            "When you specify the byQueue permission type, you must also specify one or more sourceQueueArns"
            " values."
        )
    elif len(sources) > MAX_SOURCES:
        why = f"The maximum number of source queue ARNs you can specify is {MAX_SOURCES}."
    if why is not None:
        raise invalid(name, value, f"Amazon SQS can't create the redrive allow policy. {why}")
    for source in sources:
        name_of_arn(source, name)
    return value


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_CHECKS: dict[str, Callable[[str, str], str]] = {
    **dict.fromkeys(_RANGES, _number),
    **dict.fromkeys(_WORDS, _word),
    "FifoQueue": _fifo_queue,
    "KmsMasterKeyId": _key_id,
    "Policy": _policy,
    "RedrivePolicy": _redrive_policy,
    "RedriveAllowPolicy": _redrive_allow_policy,
}


# --- what becomes of it -------------------------------------------------------------------------------


def changes(old: QueueSettings, checked: Mapping[str, str]) -> dict[str, Any]:
    """The settings that checked attributes change, `sqs` among them. Raises SqsError."""
    sqs = dict(old.sqs)
    named: dict[str, Any] = {"sqs": sqs}
    for name, value in checked.items():
        if name == "VisibilityTimeout":
            named["lease_seconds"] = int(value) or _LEASE
            _keep(sqs, name, "0" if value == "0" else "")
        elif name == "MessageRetentionPeriod":
            named["retention_seconds"] = int(value)
        elif name == "RedrivePolicy":
            if value:
                named["dead_letter"], named["max_deliveries"] = letters_of(value)
            elif old.dead_letter is not None:
                named["dead_letter"] = named["max_deliveries"] = None
        else:
            if name == "MaximumMessageSize":
                named["max_message_bytes"] = 2 * int(value) + 2  # as JSON it has quotes, and escapes
            _keep(sqs, name, value)
    if checked.get("KmsMasterKeyId"):
        sqs["SqsManagedSseEnabled"] = "false"
    elif checked.get("SqsManagedSseEnabled") == "true":
        _keep(sqs, "KmsMasterKeyId", "")
        _keep(sqs, "KmsDataKeyReusePeriodSeconds", "")
    if (
        sqs.get("FifoThroughputLimit") == "perMessageGroupId"
        and sqs.get("DeduplicationScope") != "messageGroup"
    ):
        raise _wrong(
            "FifoThroughputLimit",
            "The perMessageGroupId value is allowed only when the value for DeduplicationScope is"
            " messageGroup.",
        )
    return named


def _keep(sqs: dict[str, str], name: str, value: str) -> None:
    if value:
        sqs[name] = value
    else:
        sqs.pop(name, None)


def allows(settings: QueueSettings, source: str) -> bool:
    """Whether a queue's RedriveAllowPolicy lets queue `source` send its dead letters there."""
    text = settings.sqs.get("RedriveAllowPolicy")
    if text is None:
        return True
    policy = of_json(text)
    if policy["redrivePermission"] != "byQueue":
        return bool(policy["redrivePermission"] == "allowAll")
    return any(name_of_arn(arn, "RedriveAllowPolicy") == source for arn in policy["sourceQueueArns"])


# --- what is shown ------------------------------------------------------------------------------------


def shown(info: QueueInfo) -> dict[str, str]:
    """All attributes that a queue has."""
    settings, created = info.settings, str(info.created_at // 1000)
    sqs = settings.sqs
    retention = settings.retention_seconds
    found = {
        "QueueArn": arn_of(info.name),
        "ApproximateNumberOfMessages": str(info.ready + info.blocked),
        "ApproximateNumberOfMessagesNotVisible": str(info.leased),
        "ApproximateNumberOfMessagesDelayed": str(info.delayed),
        "CreatedTimestamp": created,
        "LastModifiedTimestamp": sqs.get("LastModifiedTimestamp", created),
        "VisibilityTimeout": sqs.get("VisibilityTimeout") or str(math.ceil(settings.lease_seconds)),
        "MaximumMessageSize": str(maximum_size(settings)),
        "MessageRetentionPeriod": str(_LONGEST_RETENTION if retention is None else math.ceil(retention)),
        "DelaySeconds": sqs.get("DelaySeconds", "0"),
        "ReceiveMessageWaitTimeSeconds": sqs.get("ReceiveMessageWaitTimeSeconds", "0"),
        "SqsManagedSseEnabled": sqs.get("SqsManagedSseEnabled", "false"),
    }
    if info.name.endswith(FIFO):
        found["FifoQueue"] = "true"
        found["ContentBasedDeduplication"] = sqs.get("ContentBasedDeduplication", "false")
        found["DeduplicationScope"] = sqs.get("DeduplicationScope", "queue")
        found["FifoThroughputLimit"] = sqs.get("FifoThroughputLimit", "perQueue")
    if settings.dead_letter is not None and settings.max_deliveries is not None:
        found["RedrivePolicy"] = _redrive_text(settings.dead_letter, settings.max_deliveries)
    found |= {name: sqs[name] for name in _KEPT if name in sqs}
    if "KmsMasterKeyId" in sqs:
        found.setdefault("KmsDataKeyReusePeriodSeconds", "300")
    return found


def maximum_size(settings: QueueSettings) -> int:
    """What MaximumMessageSize says of a queue, bytes."""
    kept = settings.sqs.get("MaximumMessageSize")
    return int(kept) if kept else min(settings.max_message_bytes, MAX_SIZE)


def selected(info: QueueInfo, names: Iterable[str]) -> dict[str, str]:
    """The attributes of these names that a queue has; `All` means all. Raises SqsError."""
    asked = set(names)
    fifo = info.name.endswith(FIFO)
    for name in sorted(asked):
        known = name in _CHECKS or name in _READ_ONLY or name == "All"
        if not known or (name in _OF_FIFO and not fifo):
            raise _unknown(name)
    return {name: value for name, value in shown(info).items() if name in asked or "All" in asked}


def differing(info: QueueInfo, checked: Mapping[str, str]) -> str | None:
    """The first of these attributes that a queue has with another value; None: there is none."""
    found = shown(info)
    for name, value in checked.items():
        if not _same(name, found.get(name, ""), value):
            return name
    return None


def _same(name: str, one: str, other: str) -> bool:
    if one == other:
        return True
    return name in _OF_JSON and bool(one and other) and of_json(one) == of_json(other)
