"""Why some of what SQS's model has is not proved: what Windlass never says, and what nobody can send."""

from __future__ import annotations

READ_ONLY = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
    "QueueArn",
)

REASONS: tuple[tuple[str, str, str], ...] = (
    # patterns of actions and of words (as in proofs.py), and the reason
    ("*", "!Kms*", "never: keys of KMS are stored and given back, and not used"),
    ("*", "!RequestThrottled", "never: there is no rate that a client may not exceed"),
    ("*", "!InvalidAddress", "never: a queue is found by the last part of its URL alone"),
    ("*", "!InvalidSecurity", "never: TLS is the business of whoever stands in front"),
    ("CreateQueue", "!QueueDeletedRecently", "never: a name is free at once"),
    ("DeleteMessage", "!InvalidIdFormat", "never: such a receipt is a ReceiptHandleIsInvalid"),
    ("ReceiveMessage", "!OverLimit", "never: no number of messages in flight is too large"),
    *((action, "!UnsupportedOperation", "never: nothing of it is unsupported") for action in (
        "AddPermission", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "CreateQueue",
        "DeleteMessage", "DeleteMessageBatch", "GetQueueAttributes", "GetQueueUrl",
        "ListDeadLetterSourceQueues", "ListMessageMoveTasks", "ListQueueTags", "ListQueues", "PurgeQueue",
        "ReceiveMessage", "RemovePermission", "SetQueueAttributes", "StartMessageMoveTask", "TagQueue",
        "UntagQueue",
    )),
    ("*Queue*", "Attributes.All", "no attribute: it asks for all of them"),
    *(("*Queue*", f"Attributes.{name}", "cannot be set: it is told") for name in READ_ONLY),
    ("SetQueueAttributes", "Attributes.FifoQueue", "cannot be changed"),
    ("*", "*MessageSystemAttributes.BinaryValue", "no system attribute is binary"),
    ("*", "*MessageSystemAttributes.*ListValues", "SQS does not implement it"),
    ("SendMessageBatch", "Entries.MessageAttributes.*ListValues", "SQS does not implement it"),
)  # fmt: skip
