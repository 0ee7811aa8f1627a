"""Messages as a model's run draws them: in any queue, with a fault or none."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.contract.sqs.wire import text
from windlass.server.sqs.names import FIFO

Draft = dict[str, Any]
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "body": ({"MessageBody": ""}, "MissingParameter"),
    "character": ({"MessageBody": "a\u0007"}, "InvalidMessageContents"),
    "delay": ({"DelaySeconds": 901}, "InvalidParameterValue"),
    "attribute": ({"MessageAttributes": {"n": text("x", "Number")}}, "InvalidParameterValue"),
    "group": ({"MessageGroupId": "a b"}, "InvalidParameterValue"),
}
"""What makes a message one that is refused, and the code of that."""
DRAFTS = st.fixed_dictionaries(
    {
        "delay": st.sampled_from([None, None, None, 0, 5, 60]),
        "group": st.sampled_from(["a", "a", "b"]),
        "dedup": st.sampled_from([None, None, "x", "x", "y", ""]),
        "attributes": st.sampled_from([{}, {}, {"n": text("1.5", "Number"), "a": text("<é>\r")}]),
        "fault": st.sampled_from([None] * 12 + [*FAULTS]),
    }
)
PLAIN: Draft = {"delay": None, "group": "a", "dedup": "x", "attributes": {}, "fault": None}


def written(queue: str, draft: Draft, body: str) -> dict[str, Any]:
    """The parameters of one that is sent to this queue; `body` is what no other one says."""
    sent: dict[str, Any] = {"MessageBody": body}
    if draft["attributes"]:
        sent["MessageAttributes"] = draft["attributes"]
    if queue.endswith(FIFO):
        sent["MessageGroupId"] = draft["group"]
        if draft["dedup"] == "":  # by its content
            sent["MessageBody"] = "the same"
        elif draft["dedup"] is not None:
            sent["MessageDeduplicationId"] = draft["dedup"]
    else:
        if draft["group"] == "b":
            sent["MessageGroupId"] = "b"
        if draft["delay"] is not None:
            sent["DelaySeconds"] = draft["delay"]
    return sent | (FAULTS[draft["fault"]][0] if draft["fault"] is not None else {})
