"""StartMessageMoveTask, ListMessageMoveTasks, CancelMessageMoveTask: messages out of dead-letter queues."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hmac import compare_digest

import msgspec

from windlass.errors import QueueNotFound
from windlass.message import QueueInfo
from windlass.queues import Queues
from windlass.queues.rules import check_own
from windlass.server.auth import ADMIN, SEND
from windlass.server.sqs.call import Call, Result, Slow
from windlass.server.sqs.errors import SqsError, invalid
from windlass.server.sqs.known import info_of, queues_of
from windlass.server.sqs.move_tasks import CANCELLING, FAILED, RUNNING, Running, Task
from windlass.server.sqs.moving import TURN, Moving
from windlass.server.sqs.names import FIFO, arn_of, name_of_arn

MAX_RATE = 500
MAX_RESULTS = 10
_SIGNED = "sqs move task "


class Moves:
    """The actions, bound to the queues, and the work that they begin."""

    def __init__(self, queues: Queues, turn: float = TURN) -> None:
        """`turn`: see moving.TURN."""
        self._store = queues.store
        self._ids = queues.ids
        self.moving = Moving(queues, turn)
        self.actions: dict[str, Slow] = {
            "StartMessageMoveTask": self.begin,
            "ListMessageMoveTasks": self.list,
            "CancelMessageMoveTask": self.cancel,
        }

    async def start(self) -> None:
        """Go on with the tasks that a former life of this server, or another one, left."""
        self.moving.start()

    async def stop(self) -> None:
        await self.moving.stop()

    # --- the actions ------------------------------------------------------------------------------

    async def begin(self, call: Call) -> Result:
        source = name_of_arn(call.body.source_arn, "SourceArn")
        call.request.principal.demand(ADMIN, source)
        check_own(source)
        given = call.body.destination_arn
        destination = None if given is None else name_of_arn(given, "DestinationArn")
        rate = call.body.max_number_of_messages_per_second
        if rate is not None and not 1 <= rate <= MAX_RATE:
            raise invalid(
                "MaxNumberOfMessagesPerSecond", rate, f"Must be between 1 and {MAX_RATE}, if provided."
            )
        await self._find(source, "SourceArn")
        if destination is not None:
            call.request.principal.demand(SEND, destination)
            await self._check_destination(source, destination)
        if not await self._is_dead_letter(source):
            raise SqsError("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")

        def task(info: QueueInfo, number: int) -> Task:
            return Task(
                id=secrets.token_hex(8),
                queue=number,
                started=self._store.clock.now(),
                total=info.ready + info.blocked + (info.dead if destination is None else 0),
                destination=destination,
                rate=rate,
            )

        try:
            begun = await self.moving.records.begin(source, task)
        except Running:
            raise SqsError(
                "InvalidParameterValue",
                "There is already a task running. Only one active task is allowed for a source queue arn at"
                " a given time.",
            ) from None
        except QueueNotFound:
            raise _not_there("SourceArn") from None
        self.moving.begin(source, begun)
        return {"TaskHandle": self._handle(source, begun)}

    async def list(self, call: Call) -> Result:
        source = name_of_arn(call.body.source_arn, "SourceArn")
        call.request.principal.demand(ADMIN, source)
        most = 1 if call.body.max_results is None else call.body.max_results
        if not 1 <= most <= MAX_RESULTS:
            raise invalid("MaxResults", most, f"Must be between 1 and {MAX_RESULTS}, if provided.")
        tasks = self.moving.records.of(await self._find(source, "SourceArn"))
        return {"Results": [self._entry(source, task) for task in tasks[:most]]}

    async def cancel(self, call: Call) -> Result:
        source, task_id = self._parse_handle(call.body.task_handle)
        call.request.principal.demand(ADMIN, source)
        await self._find(source, "SourceArn")

        def cancelled(task: Task | None) -> Task:
            if task is None:
                raise SqsError("ResourceNotFoundException", "Task does not exist.")
            if task.status != RUNNING:
                raise SqsError(
                    "UnsupportedOperation",
                    f"Only a task that is RUNNING can be cancelled: it is {task.status}.",
                )
            return msgspec.structs.replace(task, status=CANCELLING)

        try:
            task = await self.moving.records.change(source, task_id, cancelled)
        except QueueNotFound:
            raise _not_there("SourceArn") from None
        assert task is not None
        self.moving.changed(source)
        return {"ApproximateNumberOfMessagesMoved": self.moving.moved(source, task)}

    # --- what they need ---------------------------------------------------------------------------

    async def _find(self, name: str, parameter: str) -> QueueInfo:
        """A queue that a parameter names. Raises SqsError."""
        try:
            return await info_of(self._store, name)
        except QueueNotFound:
            raise _not_there(parameter) from None

    async def _check_destination(self, source: str, destination: str) -> None:
        check_own(destination)
        await self._find(destination, "DestinationArn")
        if destination == source:
            raise SqsError("InvalidParameterValue", "Source and destination cannot be the same queue.")
        if destination.endswith(FIFO) != source.endswith(FIFO):
            raise SqsError(
                "InvalidParameterValue",
                "Source and destination have to be of the same type, both FIFO or both standard.",
            )

    async def _is_dead_letter(self, name: str) -> bool:
        """Whether any queue names this one as its dead-letter queue."""
        async for info in queues_of(self._store):
            if info.settings.dead_letter == name:
                return True
        return False

    def _entry(self, source: str, task: Task) -> Result:
        entry: Result = {
            "Status": task.status,
            "SourceArn": arn_of(source),
            "ApproximateNumberOfMessagesMoved": self.moving.moved(source, task),
            "ApproximateNumberOfMessagesToMove": task.total,
            "StartedTimestamp": task.started,
        }
        if task.status == RUNNING:
            entry["TaskHandle"] = self._handle(source, task)
        if task.destination is not None:
            entry["DestinationArn"] = arn_of(task.destination)
        if task.rate is not None:
            entry["MaxNumberOfMessagesPerSecond"] = task.rate
        if task.status == FAILED and task.reason is not None:
            entry["FailureReason"] = task.reason
        return entry

    def _handle(self, source: str, task: Task) -> str:
        text = f"{task.id} {source}"
        return urlsafe_b64encode(f"{self._ids.sign(_SIGNED + text)} {text}".encode()).decode()

    def _parse_handle(self, handle: str) -> tuple[str, str]:
        """(queue, id of a task). Raises SqsError for what was never given out."""
        try:
            sign, _, text = urlsafe_b64decode(handle.encode()).decode().partition(" ")
        except ValueError:
            sign = text = ""
        if not compare_digest(sign.encode(), self._ids.sign(_SIGNED + text).encode()):
            raise SqsError("InvalidParameterValue", "Value for parameter TaskHandle is invalid.")
        task_id, _, source = text.partition(" ")
        return source, task_id


def _not_there(parameter: str) -> SqsError:
    return SqsError(
        "ResourceNotFoundException",
        f"The resource that you specified for the {parameter} parameter doesn't exist.",
    )
