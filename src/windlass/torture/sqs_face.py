"""The storm over SQS, in its JSON 1.0.

A send to a FIFO queue may be repeated: it has an id for that, or its content is one. One to a standard queue
may not. A receipt is deleted with 200 whatever becomes of it, and only a change of visibility tells more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import md5
from typing import Any

from windlass.torture.content import token_of
from windlass.torture.face import Face, Queues
from windlass.torture.records import Received
from windlass.torture.wire import Answer, Asked

_FIFO = ".fifo"
_COUNTS = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]
_CHANGES = {
    "MessageNotInflight": "stale",
    "InvalidParameterValueException": "gone",
    "InvalidParameterValue": "gone",  # the same in the query protocol
}


class SqsFace(Face):
    """Leases and waits are whole seconds here."""

    queues = Queues("torture-leased", "torture-grouped.fifo", "torture-ordered", "torture-plain")
    plain = False
    whole_groups = True
    batch = 10
    limits = (None, 1, 10, 10)
    waits = (0, 1)

    def _asked(self, action: str, queue: str, *, by_url: bool = True, **parameters: Any) -> Asked:
        """A request to the endpoint, or to the queue's URL: clients do either."""
        url = f"/000000000000/{queue}"
        given = {name: value for name, value in parameters.items() if value is not None}
        return self.written(action, url if by_url else "/", {"QueueUrl": f"http://localhost{url}"} | given)

    def written(self, action: str, path: str, parameters: Mapping[str, Any]) -> Asked:
        """A request as the protocol has it."""
        headers = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
        return Asked("POST", path, parameters, headers)

    def told(self, answer: Answer) -> Mapping[str, Any]:
        """What a success says, as JSON has it."""
        body: Any = answer.json()
        return dict(body)

    def create(self, queue: str, lease: float) -> Asked:
        attributes = {"VisibilityTimeout": str(round(lease))}
        if queue.endswith(_FIFO):
            attributes |= {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        return self._asked("CreateQueue", queue, by_url=False, QueueName=queue, Attributes=attributes)

    def created(self, answer: Answer) -> bool:
        return answer.status == 200

    def count(self, queue: str) -> Asked:
        return self._asked("GetQueueAttributes", queue, AttributeNames=_COUNTS)

    def counted(self, answer: Answer) -> Mapping[str, int] | None:
        if answer.status != 200:
            return None
        attributes = self.told(answer)["Attributes"]
        return {name: int(attributes[name]) for name in _COUNTS}

    def ways(self, queue: str) -> Sequence[str]:
        return ("content", "dedup_id", "none") if queue.endswith(_FIFO) else ("none",)

    def send(self, queue: str, messages: Mapping[str, str], group: str, way: str, *, batch: bool) -> Asked:
        entries = []
        for token, content in messages.items():
            entry: dict[str, Any] = {"MessageBody": content}
            if group:
                entry["MessageGroupId"] = group
            if way == "dedup_id":
                entry["MessageDeduplicationId"] = token
            entries.append(entry)
        if not batch:
            return self._asked("SendMessage", queue, **entries[0])
        numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        return self._asked("SendMessageBatch", queue, Entries=numbered)

    def sent(self, answer: Answer) -> Sequence[str] | None:
        results = self._results(answer)
        return None if results is None else [each["MessageId"] for each in results]

    def receive(
        self, queue: str, limit: int | None, lease: float | None, wait: float, *, otherwise: bool
    ) -> Asked:
        return self._asked(
            "ReceiveMessage", queue, by_url=otherwise, MaxNumberOfMessages=limit, WaitTimeSeconds=round(wait),
            VisibilityTimeout=None if lease is None else round(lease),
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )  # fmt: skip

    def received(self, answer: Answer) -> Sequence[Received] | None:
        if answer.status != 200:
            return None
        return [
            Received(
                _token_of(each), each["MessageId"], int(each["Attributes"]["ApproximateReceiveCount"]),
                each["ReceiptHandle"],
            )
            for each in self.told(answer).get("Messages", [])
        ]  # fmt: skip

    def acknowledge(self, queue: str, receipt: str) -> Asked:
        return self._asked("DeleteMessage", queue, ReceiptHandle=receipt)

    def acknowledged(self, answer: Answer) -> str | None:
        return "deleted" if answer.status == 200 else None

    def acknowledge_all(self, queue: str, receipts: Sequence[str]) -> Asked:
        entries = [{"Id": str(number), "ReceiptHandle": each} for number, each in enumerate(receipts)]
        return self._asked("DeleteMessageBatch", queue, Entries=entries)

    def all_acknowledged(self, answer: Answer) -> Sequence[str] | None:
        results = self._results(answer)
        return None if results is None else ["deleted"] * len(results)

    def extend(self, queue: str, receipt: str, lease: float) -> Asked:
        return self._asked(
            "ChangeMessageVisibility", queue, ReceiptHandle=receipt, VisibilityTimeout=round(lease)
        )

    def extended(self, answer: Answer) -> str | None:
        return "extended" if answer.status == 200 else _CHANGES.get(self.fault(answer))

    def _results(self, answer: Answer) -> Sequence[Mapping[str, str]] | None:
        """What is said of each entry, in their order: of all of a batch, or of the one that was alone."""
        if answer.status != 200:
            return None
        body = self.told(answer)
        if body.get("Failed"):
            return None
        if "Successful" not in body:
            return [body]
        return sorted(body["Successful"], key=lambda each: int(each["Id"]))

    def fault(self, answer: Answer) -> str:
        said: Any = answer.json()
        return str(said["__type"]).partition("#")[2]


def _token_of(message: Mapping[str, str]) -> str:
    """The token of a message whose sum is right."""
    body = message["Body"]
    if md5(body.encode(), usedforsecurity=False).hexdigest() != message["MD5OfBody"]:
        return f"another sum: {body[:60]!r}"
    return token_of(body)
