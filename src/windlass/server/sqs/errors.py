"""The errors of SQS: for each its name in JSON, its code in the query protocol, and its status.

The words of the JSON protocol are those of the API reference, and those that all services have in common. Its
clients know errors by the older codes of the query protocol, which come in the header `x-amzn-query-error`.
"""

from __future__ import annotations

import re

from windlass import errors
from windlass.errors import WindlassError

_OLD = "AWS.SimpleQueueService."
_PREFIXED = (
    "BatchEntryIdsNotDistinct",
    "BatchRequestTooLong",
    "EmptyBatchRequest",
    "InvalidBatchEntryId",
    "MessageNotInflight",
    "PurgeQueueInProgress",
    "QueueDeletedRecently",
    "TooManyEntriesInBatchRequest",
    "UnsupportedOperation",
)
_CODES = {name: _OLD + name for name in _PREFIXED} | {
    "AccessDeniedException": "AccessDenied",
    "QueueDoesNotExist": _OLD + "NonExistentQueue",
    "QueueNameExists": "QueueAlreadyExists",
    "SerializationException": "MalformedInput",
    "UnknownOperationException": "InvalidAction",
}
"""Names whose code in the query protocol is another."""
_STATUSES = {
    "PurgeQueueInProgress": 403,
    "OverLimit": 403,
    "AccessDeniedException": 403,
    "MissingAuthenticationToken": 403,
    "InvalidClientTokenId": 403,
    "SignatureDoesNotMatch": 403,
    "ReceiptHandleIsInvalid": 404,
    "ResourceNotFoundException": 404,
    "MalformedQueryString": 404,
    "RequestTimeout": 408,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
}
"""Those of all others are 400."""
_COMMON = {
    "InvalidParameterValue": "InvalidParameterValueException",
    "MissingParameter": "MissingRequiredParameterException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "IncompleteSignature": "IncompleteSignatureException",
} | {
    name: name
    for name in (
        "AccessDeniedException",
        "InternalFailure",
        "InvalidAction",
        "MalformedQueryString",
        "MissingAction",
        "RequestExpired",
        "RequestTimeout",
        "SerializationException",
        "ServiceUnavailable",
        "UnknownOperationException",
    )
}
"""Those that are no shapes of SQS but common to all services: what they are called in JSON."""


class SqsError(Exception):
    """An error that a client of SQS is told, by its name in the JSON protocol, or where that is one of all
    services by its code."""

    def __init__(self, name: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.message = message
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        """Its name in the query protocol."""
        return _CODES.get(self.name, self.name)

    @property
    def type(self) -> str:
        """What `__type` says."""
        common = _COMMON.get(self.name)
        return f"com.amazonaws.sqs#{self.name}" if common is None else f"com.amazon.coral.service#{common}"

    @property
    def status(self) -> int:
        return _STATUSES.get(self.name, 400)

    @property
    def sender(self) -> bool:
        """True where the client is at fault."""
        return self.status < 500


def invalid(parameter: str, value: object, reason: str) -> SqsError:
    """The usual words about a value that may not be."""
    return SqsError(
        "InvalidParameterValue",
        f"Value {str(value)[:200]} for parameter {parameter} is invalid. Reason: {reason}",
    )


def missing(parameter: str) -> SqsError:
    return SqsError("MissingParameter", f"The request must contain the parameter {parameter}.")


NO_QUEUE = "The specified queue does not exist."


def of(error: WindlassError) -> SqsError:
    """What a client of SQS is told of an error of the house."""
    for kind, name in _OF:
        if isinstance(error, kind):
            message = NO_QUEUE if name == "QueueDoesNotExist" else error.detail
            return SqsError(name, message, retry_after=error.retry_after)
    if error.status >= 500:
        name = "InternalFailure" if error.status == 500 else "ServiceUnavailable"
    else:
        name = "InvalidParameterValue"
    return SqsError(name, error.detail, retry_after=error.retry_after)


_OF: tuple[tuple[type[WindlassError], str], ...] = (
    (errors.QueueNotFound, "QueueDoesNotExist"),
    (errors.QueueExists, "QueueNameExists"),
    (errors.QueueFull, "OverLimit"),
    (errors.ReceiptUnknown, "ReceiptHandleIsInvalid"),
    (errors.RequestTimeout, "RequestTimeout"),
    (errors.Unauthenticated, "MissingAuthenticationToken"),
    (errors.Forbidden, "AccessDeniedException"),
)

XML_CANNOT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no Body may have, and XML cannot carry."""
