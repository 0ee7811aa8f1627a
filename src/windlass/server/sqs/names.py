"""Queues have a name here, and for clients of SQS a URL and an ARN besides."""

from __future__ import annotations

import re

from windlass.queues.rules import NAME
from windlass.server.sqs.errors import NO_QUEUE, SqsError, invalid

ACCOUNT = "000000000000"
REGION = "us-east-1"
"""What an ARN says. Any other account and region in a client's ARN is taken as well."""
FIFO = ".fifo"

_name = re.compile(NAME)
_new = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
_arn = re.compile(r"arn:aws[a-z-]*:sqs:[a-z0-9-]*:[0-9]*:([^:]+)\Z")


def url_of(base: str, name: str) -> str:
    """The QueueUrl of a queue, for a client that came by way of `base`."""
    return f"{base}/{ACCOUNT}/{name}"


def arn_of(name: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


def name_of_url(url: str) -> str:
    """The name in a QueueUrl, of whichever host and account, or one alone. Raises SqsError."""
    name = url.rstrip("/").rpartition("/")[2]
    if not _name.match(name):
        raise SqsError("QueueDoesNotExist", NO_QUEUE)
    return name


def name_of_arn(arn: str, parameter: str) -> str:
    """The name in an ARN. Raises SqsError."""
    found = _arn.match(arn)
    if found is None or not _name.match(found[1]):
        raise invalid(
            parameter, arn, "It is no ARN of a queue, as in arn:aws:sqs:us-east-1:000000000000:orders."
        )
    return found[1]


def check_new(name: str, *, fifo: bool) -> None:
    """Raise SqsError for what cannot be the name of a new queue."""
    if fifo and not name.endswith(FIFO):
        raise invalid(
            "QueueName",
            name,
            "The name of a FIFO queue can only include alphanumeric characters,"
            " hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.",
        )
    if len(name) > 80 or not _new.match(name.removesuffix(FIFO) if fifo else name) or not _name.match(name):
        raise invalid(
            "QueueName",
            name,
            "Can only include alphanumeric characters, hyphens, or underscores."
            " 1 to 80 in length, and here the first one is a letter or a digit.",
        )
