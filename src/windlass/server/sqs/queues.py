"""The actions about queues: made, found, listed, changed, emptied and deleted; their attributes and tags."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from windlass.errors import (
    Conflict,
    Forbidden,
    Invalid,
    QueueExists,
    QueueInUse,
    QueueNotFound,
)
from windlass.message import RESERVED, QueueInfo
from windlass.queues import Queues
from windlass.queues.rules import check_own
from windlass.server.auth import ADMIN, RECEIVE, SEND, Principal
from windlass.server.sqs import attributes, names, permissions, tags
from windlass.server.sqs.call import Call, Result, Slow
from windlass.server.sqs.errors import NO_QUEUE, SqsError, invalid, missing
from windlass.server.sqs.known import info_of
from windlass.server.sqs.requests import (
    AddPermission,
    CreateQueue,
    GetQueueAttributes,
    GetQueueUrl,
    ListDeadLetterSourceQueues,
    ListQueues,
    RemovePermission,
    SetQueueAttributes,
    TagQueue,
    UntagQueue,
)

MAX_LISTED = 1000
PURGE_EVERY = 60
"""Seconds that have to pass between two purges of a queue."""
_TRIES = 20
"""How often a change is begun anew because another server changed the same queue."""

Decide = Callable[[QueueInfo], Awaitable[Mapping[str, Any]]]
"""The settings that a queue is to have, as it is now."""


class QueueActions:
    """The actions, bound to one service."""

    def __init__(self, queues: Queues, changed: Callable[[str], None] = lambda _: None) -> None:
        """`changed` is called with the name of each queue whose settings are others now."""
        self._queues = queues
        self._store = queues.store
        self._changed = changed
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.actions: dict[str, Slow] = {
            "AddPermission": self.add_permission,
            "CreateQueue": self.create,
            "DeleteQueue": self.delete,
            "GetQueueAttributes": self.get_attributes,
            "GetQueueUrl": self.get_url,
            "ListDeadLetterSourceQueues": self.list_sources,
            "ListQueues": self.list,
            "ListQueueTags": self.list_tags,
            "PurgeQueue": self.purge,
            "RemovePermission": self.remove_permission,
            "SetQueueAttributes": self.set_attributes,
            "TagQueue": self.tag,
            "UntagQueue": self.untag,
        }
        """Action -> handler."""

    # --- made, found, listed ----------------------------------------------------------------------

    async def create(self, call: Call) -> Result:
        """One that exists is left as it is; only attributes given here are compared, and no tags."""
        body: CreateQueue = call.body
        name, given = body.queue_name, body.attributes or {}
        fifo = attributes.is_fifo(given)
        names.check_new(name, fifo=fifo)
        call.request.principal.demand(ADMIN, name)
        checked = attributes.check(given, fifo=fifo)
        tagged = tags.add(name, {}, body.tags or {})
        for _ in range(_TRIES):
            try:
                info = await self._info(name)
            except QueueNotFound:
                settings = attributes.NEW | attributes.changes(attributes.NOTHING, checked)
                settings["sqs"] = tags.kept(settings["sqs"], tagged)
                await self._check_letters(name, given, checked)
                try:
                    info, created = await self._queues.create(name, settings)
                except QueueExists:  # made by another at this moment: it is compared as any that exists
                    continue
                except Invalid as error:
                    _refuse_letters(error, given)
                    raise
                if created:
                    self._changed(name)
                    break
            different = attributes.differing(info, checked)
            if different is not None:
                raise SqsError(
                    "QueueNameExists",
                    "A queue already exists with the same name and a different value for attribute"
                    f" {different}",
                )
            break
        else:
            raise _busy()
        return {"QueueUrl": names.url_of(call.request.origin, name)}

    async def get_url(self, call: Call) -> Result:
        """The URL of a queue that the caller may do anything with."""
        body: GetQueueUrl = call.body
        name = body.queue_name
        if names.name_of_url(name) != name:  # a URL is no name
            raise SqsError("QueueDoesNotExist", NO_QUEUE)
        _demand_any(call.request.principal, name, SEND, RECEIVE, ADMIN)
        await self._info(name)
        return {"QueueUrl": names.url_of(call.request.origin, name)}

    async def list(self, call: Call) -> Result:
        """Queues by name, a page at a time: those that the caller may administer or receive from."""
        body: ListQueues = call.body
        prefix = body.queue_name_prefix or ""
        page = await self._page(call, prefix, body.next_token, body.max_results, prefix, lambda _: True)
        return {("QueueUrls" if key == "urls" else key): value for key, value in page.items() if value}

    async def list_sources(self, call: Call) -> Result:
        """Queues whose dead letters come to this one, as they are listed by `list`."""
        body: ListDeadLetterSourceQueues = call.body
        name = call.queue
        _demand_any(call.request.principal, name, RECEIVE, ADMIN)
        await self._info(name)

        def is_source(info: QueueInfo) -> bool:
            return info.settings.dead_letter == name and info.settings.max_deliveries is not None

        page = await self._page(call, "", body.next_token, body.max_results, f"to {name}", is_source)
        return {("queueUrls" if key == "urls" else key): value for key, value in page.items()}

    async def _page(
        self,
        call: Call,
        prefix: str,
        token: str | None,
        most: int | None,
        question: str,
        wanted: Callable[[QueueInfo], bool],
    ) -> Result:
        """The `urls` of a page, and a NextToken where there are more and the caller wants pages."""
        limit = MAX_LISTED if most is None else most
        if not 1 <= limit <= MAX_LISTED:
            raise SqsError(
                "InvalidParameterValue",
                "Value for parameter MaxResults is invalid. Reason: MaxResults must be an integer between 1"
                f" and {MAX_LISTED}.",
            )
        base, after = call.request.origin, _after(token, question) if token else ""
        found: list[str] = []
        step = limit + 1
        while True:
            infos = await self._store.queues(prefix, after, step)
            for info in infos:
                after = info.name
                if _sees(call.request.principal, info.name) and wanted(info):
                    if len(found) == limit:  # one more than the page holds: there is a next
                        more = {"NextToken": _token(question, found[-1])} if most is not None else {}
                        return {"urls": [names.url_of(base, each) for each in found]} | more
                    found.append(info.name)
            if len(infos) < step:
                return {"urls": [names.url_of(base, each) for each in found]}
            step = min(2 * step, MAX_LISTED + 1)  # who sees few of very many is not to ask for each
            await asyncio.sleep(0)

    # --- attributes -------------------------------------------------------------------------------

    async def get_attributes(self, call: Call) -> Result:
        body: GetQueueAttributes = call.body
        _demand_any(call.request.principal, call.queue, RECEIVE, ADMIN)
        info = await self._info(call.queue)
        found = attributes.selected(info, body.attribute_names or [])
        return {"Attributes": found} if found else {}

    async def set_attributes(self, call: Call) -> Result:
        body: SetQueueAttributes = call.body
        name, given = call.queue, body.attributes
        if not given:
            raise missing("Attributes")
        checked = attributes.check(given, fifo=name.endswith(names.FIFO))

        async def decide(info: QueueInfo) -> Mapping[str, Any]:
            await self._check_letters(name, given, checked)
            return attributes.changes(info.settings, checked)

        try:
            await self._change(call, decide, modified=True)
        except Invalid as error:
            _refuse_letters(error, given)
            raise
        return {}

    async def _check_letters(self, name: str, given: Mapping[str, str], checked: Mapping[str, str]) -> None:
        """Raise SqsError unless the dead-letter queue of a RedrivePolicy is there, alike, and willing."""
        if not checked.get("RedrivePolicy"):
            return
        letters, _ = attributes.letters_of(checked["RedrivePolicy"])
        check_own(letters)
        why = None
        if letters.endswith(names.FIFO) != name.endswith(names.FIFO):
            why = "Dead-letter queue must be same type of queue as the source."
        else:
            try:
                target = await self._info(letters)
            except QueueNotFound:
                why = _NO_LETTERS
            else:
                if not attributes.allows(target.settings, name):
                    why = "The redrive allow policy of the dead-letter queue does not allow this queue."
        if why is not None:
            raise invalid("RedrivePolicy", given["RedrivePolicy"], why)

    # --- policy and tags --------------------------------------------------------------------------

    async def add_permission(self, call: Call) -> Result:
        body: AddPermission = call.body

        def add(policy: str) -> str:
            return permissions.add(policy, call.queue, body.label, body.aws_account_ids, body.actions)

        return await self._edit_policy(call, add)

    async def remove_permission(self, call: Call) -> Result:
        body: RemovePermission = call.body
        return await self._edit_policy(
            call, lambda policy: permissions.remove(policy, call.queue, body.label)
        )

    async def _edit_policy(self, call: Call, edit: Callable[[str], str]) -> Result:
        async def decide(info: QueueInfo) -> Mapping[str, Any]:
            policy = edit(info.settings.sqs.get("Policy", ""))
            return attributes.changes(info.settings, {"Policy": policy})

        await self._change(call, decide, modified=True)
        return {}

    async def tag(self, call: Call) -> Result:
        body: TagQueue = call.body
        return await self._edit_tags(call, lambda old: tags.add_some(call.queue, old, body.tags))

    async def untag(self, call: Call) -> Result:
        body: UntagQueue = call.body
        return await self._edit_tags(call, lambda old: tags.remove(old, body.tag_keys))

    async def _edit_tags(self, call: Call, edit: Callable[[dict[str, str]], dict[str, str]]) -> Result:
        async def decide(info: QueueInfo) -> Mapping[str, Any]:
            return {"sqs": tags.kept(info.settings.sqs, edit(tags.of(info.settings)))}

        await self._change(call, decide)
        return {}

    async def list_tags(self, call: Call) -> Result:
        _demand_any(call.request.principal, call.queue, RECEIVE, ADMIN)
        return {"Tags": tags.of((await self._info(call.queue)).settings)}

    # --- the end of it ----------------------------------------------------------------------------

    async def purge(self, call: Call) -> Result:
        """Messages in flight end as well."""
        name = call.queue
        call.request.principal.demand(ADMIN, name)
        check_own(name)
        await self._info(name)
        try:
            await self._queues.purge(name, apart=PURGE_EVERY)
        except Conflict as error:
            raise SqsError(
                "PurgeQueueInProgress",
                f"Only one PurgeQueue operation on {name} is allowed every {PURGE_EVERY} seconds.",
            ) from error
        return {}

    async def delete(self, call: Call) -> Result:
        """Its name is free at once. SQS deletes a dead-letter queue that is in use as well; here it stays."""
        call.request.principal.demand(ADMIN, call.queue)
        await self._info(call.queue)
        try:
            await self._queues.delete(call.queue)
        except QueueInUse as error:
            raise SqsError("UnsupportedOperation", error.detail) from error
        self._changed(call.queue)
        return {}

    # --- how --------------------------------------------------------------------------------------

    async def _info(self, name: str) -> QueueInfo:
        """Raises QueueNotFound."""
        return await info_of(self._store, name)

    async def _change(self, call: Call, decide: Decide, *, modified: bool = False) -> None:
        """Give a queue the settings that `decide` says; nothing that others change meanwhile is lost.

        Changes made here are made one after the other. One of another server, or over HTTP, that comes
        between look and change makes `decide` look again.
        """
        name = call.queue
        call.request.principal.demand(ADMIN, name)
        check_own(name)
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            for _ in range(_TRIES):
                info = await self._info(name)
                settings = dict(await decide(info))
                if modified:
                    at = str(self._queues.clock.now() // 1000)
                    settings["sqs"] = {**settings["sqs"], "LastModifiedTimestamp": at}
                try:
                    await self._queues.update(name, settings, was=info.settings)
                except Conflict:
                    continue
                self._changed(name)
                return
        raise _busy()


_NO_LETTERS = "Dead letter target does not exist."


def _refuse_letters(error: Invalid, given: Mapping[str, str]) -> None:
    """Raise SqsError where it is a dead-letter queue that the store will not have."""
    if error.field == "dead_letter" and "RedrivePolicy" in given:
        raise invalid("RedrivePolicy", given["RedrivePolicy"], error.detail) from error


def _busy() -> SqsError:
    return SqsError("ServiceUnavailable", "The queue is changed by others all the time.", retry_after=1)


def _demand_any(principal: Principal, queue: str, *actions: str) -> None:
    if not any(principal.may(action, queue) for action in actions):
        raise Forbidden(f"This key's scopes cover none of {', '.join(actions)} on {queue}.")


def _sees(principal: Principal, queue: str) -> bool:
    """Whether a list shows it; the product's own queues are in none."""
    return not queue.startswith(RESERVED) and (principal.may(ADMIN, queue) or principal.may(RECEIVE, queue))


def _token(question: str, last: str) -> str:
    return base64.urlsafe_b64encode(f"{last}\n{question}".encode()).decode()


def _after(token: str, question: str) -> str:
    """The name behind which a page begins. Raises SqsError."""
    try:
        last, _, asked = base64.b64decode(token.encode(), b"-_", validate=True).decode().partition("\n")
    except (binascii.Error, ValueError):
        raise SqsError("InvalidParameterValue", "Invalid or expired next token.") from None
    if asked != question:
        raise SqsError(
            "InvalidParameterValue",
            "Invalid NextToken value. If you are passing in NextToken, you must not change the other request"
            " parameters.",
        )
    return last
