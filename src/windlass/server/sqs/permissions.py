"""A queue's policy, as AddPermission and RemovePermission edit it.

A policy is kept and given back. It opens nothing here: who may do what is what the scopes of keys say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from windlass.server.sqs.attributes import MAX_POLICY, MAX_STATEMENTS, of_json, statements_of
from windlass.server.sqs.errors import SqsError, invalid, missing
from windlass.server.sqs.names import arn_of
from windlass.server.sqs.requests import ACTIONS

MAX_ACTIONS = 7
_OWNERS = frozenset(
    {
        "AddPermission",
        "CancelMessageMoveTask",
        "CreateQueue",
        "DeleteQueue",
        "ListMessageMoveTasks",
        "ListQueueTags",
        "ListQueues",
        "RemovePermission",
        "SetQueueAttributes",
        "StartMessageMoveTask",
        "TagQueue",
        "UntagQueue",
    }
)
"""Actions that nobody but a queue's owner can be allowed."""
_label = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
_account = re.compile(r"[0-9]{12}\Z")
_encode = msgspec.json.Encoder().encode


def add(policy: str, queue: str, label: str, accounts: Sequence[str], actions: Sequence[str]) -> str:
    """The policy of a queue ("": none) with one statement more. Raises SqsError."""
    _check_label(label)
    _check_actions(actions)
    if not accounts or not all(map(_account.match, accounts)):
        raise invalid("PrincipalId", f"[{', '.join(accounts)}]", "Unable to verify.")
    parsed = _parsed(policy, queue)
    statements = statements_of(parsed)
    if any(_is_labelled(statement, label) for statement in statements):
        raise invalid("Label", label, "Already exists.")
    principals = [f"arn:aws:iam::{account}:root" for account in accounts]
    named = [f"SQS:{action}" for action in actions]
    statement = {
        "Sid": label,
        "Effect": "Allow",
        "Principal": {"AWS": principals[0] if len(principals) == 1 else principals},
        "Action": named[0] if len(named) == 1 else named,
        "Resource": arn_of(queue),
    }
    text = _encode({**parsed, "Statement": [*statements, statement]}).decode()
    if len(statements) >= MAX_STATEMENTS:
        raise SqsError(
            "OverLimit",
            f"{len(statements) + 1} Statements were found, maximum allowed is {MAX_STATEMENTS}.",
        )
    if len(text.encode()) > MAX_POLICY:
        raise SqsError("OverLimit", f"The policy would be longer than {MAX_POLICY} bytes.")
    return text


def remove(policy: str, queue: str, label: str) -> str:
    """The policy without the statement of this label, "" where none is left. Raises SqsError."""
    _check_label(label)
    if not policy:
        raise invalid("Label", label, "can't find label.")
    parsed = _parsed(policy, queue)
    statements = statements_of(parsed)
    left = [statement for statement in statements if not _is_labelled(statement, label)]
    if len(left) == len(statements):
        raise invalid("Label", label, "can't find label on existing policy.")
    return _encode({**parsed, "Statement": left}).decode() if left else ""


def _check_label(label: str) -> None:
    if not _label.match(label):
        raise invalid(
            "Label",
            label,
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
        )


def _check_actions(actions: Sequence[str]) -> None:
    if not actions:
        raise missing("Actions")
    if len(actions) > MAX_ACTIONS:
        raise SqsError("OverLimit", f"{len(actions)} Actions were found, maximum allowed is {MAX_ACTIONS}.")
    for action in actions:
        if action in _OWNERS:
            raise invalid(
                "ActionName", f"SQS:{action}", "Only the queue owner is allowed to invoke this action."
            )
        if action != "*" and action not in ACTIONS:
            raise invalid(
                "ActionName",
                f"SQS:{action}",
                "Please refer to the appropriate WSDL for a list of valid actions.",
            )


def _parsed(policy: str, queue: str) -> dict[str, Any]:
    if policy:
        parsed: dict[str, Any] = of_json(policy)
        return parsed
    return {"Version": "2008-10-17", "Id": f"{arn_of(queue)}/SQSDefaultPolicy"}


def _is_labelled(statement: object, label: str) -> bool:
    return isinstance(statement, dict) and statement.get("Sid") == label
