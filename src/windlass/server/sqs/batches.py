"""What all batches have in common: one to ten entries with ids of their own, each with its own success."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from windlass.server.sqs.call import Result
from windlass.server.sqs.errors import XML_CANNOT, SqsError

MOST = 10
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")


class Entry(Protocol):
    """One of a batch."""

    id: str


def check_entries(entries: Sequence[Entry]) -> None:
    """Raise SqsError for what is no batch."""
    if not entries:
        raise SqsError("EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(entries) > MOST:
        raise SqsError(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are {MOST}. You have sent {len(entries)}.",
        )
    ids = [entry.id for entry in entries]
    if len(set(ids)) == len(ids) and all(map(_ID.match, ids)):
        return
    seen: set[str] = set()
    for entry in entries:
        if not _ID.match(entry.id):
            raise SqsError(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and"
                " underscores. It can be at most 80 letters long.",
            )
        if entry.id in seen:
            raise SqsError("BatchEntryIdsNotDistinct", f"Id {entry.id} repeated.")
        seen.add(entry.id)


def failed(entry_id: str, error: SqsError) -> Result:
    """What an answer says of an entry that failed: the others are done, so it has to arrive in XML too."""
    message = XML_CANNOT.sub("\ufffd", error.message)
    return {"Id": entry_id, "SenderFault": error.sender, "Code": error.code, "Message": message}
