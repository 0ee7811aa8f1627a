"""DeleteMessage and ChangeMessageVisibility, one by one and in batches."""

from __future__ import annotations

import asyncio

from windlass.errors import QueueNotFound, ReceiptGone, ReceiptStale
from windlass.message import Acknowledgement, Extension, Settled
from windlass.queues import Queues
from windlass.server.auth import RECEIVE
from windlass.server.sqs.batches import check_entries, failed
from windlass.server.sqs.call import Begun, Call, Hot, Result, as_it_is
from windlass.server.sqs.errors import SqsError, invalid, missing
from windlass.server.sqs.names import FIFO
from windlass.server.sqs.receiving import MAX_LEASE, check_timeout
from windlass.server.sqs.requests import VisibilityEntry

_Receipt = tuple[int, int] | None
"""(number, delivery); None: of a queue that is gone."""
_LONGEST = MAX_LEASE * 1000
"""How long a message may be invisible from its receipt on, ms."""


class Settling:
    """The actions, bound to the queues."""

    def __init__(self, queues: Queues) -> None:
        self._store = queues.store
        self._ids = queues.ids
        self.actions: dict[str, Hot] = {
            "DeleteMessage": self.delete,
            "DeleteMessageBatch": self.delete_batch,
            "ChangeMessageVisibility": self.change,
            "ChangeMessageVisibilityBatch": self.change_batch,
        }

    # --- delete -----------------------------------------------------------------------------------

    def delete(self, call: Call) -> Begun:
        call.request.principal.demand(RECEIVE, call.queue)
        receipt = self._parse(call, call.body.receipt_handle)
        given = [] if receipt is None else [_deletion(call.queue, *receipt)]
        # Whatever became of it, it is not there any more or somebody else's: both are a success.
        return asyncio.ensure_future(self._store.acknowledge(call.queue, given)), _nothing

    def delete_batch(self, call: Call) -> Begun:
        call.request.principal.demand(RECEIVE, call.queue)
        check_entries(call.body.entries)
        done: list[Result] = []
        bad: list[Result] = []
        given: list[Acknowledgement] = []
        for entry in call.body.entries:
            try:
                receipt = self._parse(call, entry.receipt_handle)
            except SqsError as error:
                bad.append(failed(entry.id, error))
                continue
            done.append({"Id": entry.id})
            if receipt is not None:
                given.append(_deletion(call.queue, *receipt))

        def finish(_: object) -> Result:
            return {"Successful": done, "Failed": bad}

        return asyncio.ensure_future(self._store.acknowledge(call.queue, given)), finish

    # --- visibility -------------------------------------------------------------------------------

    def change(self, call: Call) -> Begun:
        call.request.principal.demand(RECEIVE, call.queue)
        timeout = check_timeout(call.body.visibility_timeout)
        handle = call.body.receipt_handle
        receipt = self._parse(call, handle)
        return asyncio.ensure_future(self._change(call, handle, receipt, timeout)), _nothing

    def change_batch(self, call: Call) -> Begun:
        call.request.principal.demand(RECEIVE, call.queue)
        check_entries(call.body.entries)
        return asyncio.ensure_future(self._change_all(call)), as_it_is

    async def _change_all(self, call: Call) -> Result:
        entries = call.body.entries
        # A receipt that may have this request tried again is met here, before anything is changed.
        receipts = [self._read(call, each.receipt_handle) for each in entries]
        results = await asyncio.gather(
            *(self._change_one(call, *each) for each in zip(entries, receipts, strict=True)),
            return_exceptions=True,
        )
        done: list[Result] = []
        bad: list[Result] = []
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, SqsError):
                bad.append(failed(entry.id, result))
            elif isinstance(result, BaseException):
                raise result
            else:
                done.append({"Id": entry.id})
        return {"Successful": done, "Failed": bad}

    async def _change_one(self, call: Call, entry: VisibilityEntry, receipt: _Receipt | SqsError) -> None:
        if entry.visibility_timeout is None:
            raise missing("VisibilityTimeout")
        timeout = check_timeout(entry.visibility_timeout)
        if isinstance(receipt, SqsError):
            raise receipt
        await self._change(call, entry.receipt_handle, receipt, timeout)

    async def _change(self, call: Call, handle: str, receipt: _Receipt, seconds: int) -> None:
        if receipt is None:
            raise _ended(handle)
        number, delivery = receipt
        if not seconds:
            try:
                await self._store.release(call.queue, number, delivery)
            except ReceiptStale:
                raise _not_in_flight(handle) from None
            except ReceiptGone:
                raise _ended(handle) from None
            return
        extension = Extension(number, seconds * 1000, delivery, longest=_LONGEST)
        (until,) = await self._store.extend(call.queue, [extension])
        if until is Settled.STALE:
            raise _not_in_flight(handle)
        if until is Settled.GONE:
            raise _ended(handle)

    # --- receipts ---------------------------------------------------------------------------------

    def _read(self, call: Call, handle: str) -> _Receipt | SqsError:
        """As `_parse`, of one in a batch. Raises QueueNotFound."""
        try:
            return self._parse(call, handle)
        except SqsError as error:
            return error

    def _parse(self, call: Call, handle: str) -> _Receipt:
        """What a receipt says. Raises SqsError, QueueNotFound."""
        parsed = self._ids.parse_receipt(handle)
        number = self._store.queue_number(call.queue)
        if parsed is None:
            raise SqsError(
                "ReceiptHandleIsInvalid",
                f'The input receipt handle "{handle[:200]}" is not a valid receipt handle.',
            )
        if parsed[0] == number:
            return parsed[1], parsed[2]
        if self._store.has_queue_number(parsed[0]):
            raise SqsError("ReceiptHandleIsInvalid", "The input receipt handle is of another queue.")
        if self._store.shared and not call.request.tried:
            raise QueueNotFound  # unknown here; the queue may have been made anew under its name
        return None


def _deletion(queue: str, number: int, delivery: int) -> Acknowledgement:
    """In a standard queue the receipt of the latest receive deletes after its lease too, as in SQS."""
    return Acknowledgement(number, delivery, late=not queue.endswith(FIFO))


def _ended(handle: str) -> SqsError:
    return invalid(
        "ReceiptHandle", handle, "Message does not exist or is not available for visibility timeout change."
    )


def _not_in_flight(handle: str) -> SqsError:
    return SqsError("MessageNotInflight", f"The message referred to by {handle[:200]} isn't in flight.")


def _nothing(_: object) -> Result:
    return {}
