"""The SQS face: both of its protocols, at `/` and at each queue's URL, on the lean lane.

JSON 1.0 names its action in the header `x-amz-target`; the query protocol (query.py) is a form, in a body or
in the URL. Either way an action gets the same `Call`, and its `Result` is written as its protocol has it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from typing import Any

import msgspec

from windlass.errors import WindlassError
from windlass.queues import Queues
from windlass.queues.rules import check_own
from windlass.server.auth import Door
from windlass.server.lane import Answer, Begun, Client, HeaderList, Refusal, Request, fault
from windlass.server.sqs import errors, query
from windlass.server.sqs.call import Call, Hot, Result, Slow, as_it_is
from windlass.server.sqs.errors import SqsError, missing
from windlass.server.sqs.known import Knowledge
from windlass.server.sqs.moves import Moves
from windlass.server.sqs.names import name_of_url
from windlass.server.sqs.queues import QueueActions
from windlass.server.sqs.receiving import Receiving
from windlass.server.sqs.requests import ACTIONS, OfQueue, fault_of
from windlass.server.sqs.sending import Sending
from windlass.server.sqs.settling import Settling

_TARGET = "AmazonSQS."
_QUEUE = re.compile(r"/[0-9]{1,12}/[^/]+\Z")
_FORM = b"application/x-www-form-urlencoded"
_encode = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/x-amz-json-1.0")
_XML = (b"content-type", b"text/xml")
_NO_STORE = (b"cache-control", b"no-store")
_decoders = {action: msgspec.json.Decoder(shape) for action, shape in ACTIONS.items()}


class SqsRequest(Request, gc=False):
    """A request of SQS, with all its headers: any of them may be signed."""

    raw_headers: HeaderList = msgspec.field(default_factory=list)
    id: str = ""
    """What an answer calls it."""

    @property
    def raw_path(self) -> bytes:
        """As it came: what is signed."""
        raw: bytes = self.where.get("raw_path") or self.path.encode()
        return raw

    @property
    def is_query(self) -> bool:
        return b"x-amz-target" not in self.headers


class SqsApi:
    """The actions, bound to the queues, and the door in front of them."""

    def __init__(self, queues: Queues, door: Door) -> None:
        self._door = door
        knowledge = Knowledge(queues.store)
        self._hot: dict[str, Hot] = {
            **Sending(queues, knowledge).actions,
            **Receiving(queues, knowledge).actions,
            **Settling(queues).actions,
        }
        self._moves = Moves(queues)
        self._slow: dict[str, Slow] = {
            **QueueActions(queues, knowledge.forget).actions,
            **self._moves.actions,
        }
        self._prefix = str(uuid.uuid4())[:24]
        self._numbers = count(secrets.randbits(40))

    async def start(self) -> None:
        """Go on with what a former life of this server left: tasks that move messages."""
        await self._moves.start()

    async def stop(self) -> None:
        await self._moves.stop()

    # --- the lane ---------------------------------------------------------------------------------

    def find(
        self,
        method: str,
        path: str,
        query_string: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        where: Mapping[str, Any],
        client: Callable[[], Client],
    ) -> Request | None:
        """A request of SQS, or None for what is none: by its path, and by how it names its action."""
        if path != "/" and not _QUEUE.match(path):
            return None
        known = dict(headers)
        if method == "POST":
            kind = known.get(b"content-type", b"")
            if b"x-amz-target" not in known and not kind.lower().startswith(_FORM):
                return None
        elif method != "GET" or b"Action=" not in query_string:
            return None
        return SqsRequest(
            self.handle, "sqs", method, path, "", "", query_string, known, where, client(),
            refuse=self.refuse, raw_headers=[*headers], id=f"{self._prefix}{next(self._numbers):012x}",
        )  # fmt: skip

    def refuse(self, request: Request, error: Exception) -> Refusal:
        """An error, as the request's protocol has it."""
        assert isinstance(request, SqsRequest)
        if isinstance(error, WindlassError):
            error = errors.of(error)
        elif not isinstance(error, SqsError):
            error = errors.of(fault(error))
        headers = [(b"x-amzn-requestid", request.id.encode()), _NO_STORE]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after))
        if error.status == 408:  # what is still to come of the body would be taken for a request
            headers.append((b"connection", b"close"))
        if request.is_query:
            body = query.render_error(error, request.id)
            headers.append(_XML)
        else:
            body = _encode({"__type": error.type, "message": error.message})
            told = f"{error.code};{'Sender' if error.sender else 'Receiver'}"
            headers += [_JSON, (b"x-amzn-query-error", told.encode())]
        headers.append((b"content-length", b"%d" % len(body)))
        return error.status, headers, body

    def handle(self, request: Request) -> Begun:
        """Let in, take apart, call. Raises SqsError, WindlassError."""
        assert isinstance(request, SqsRequest)
        # the request keeps its body as it came: where it is tried again, it is verified again
        request.principal, text = self._door.enter_signed(
            request.method, request.raw_path, request.query, request.raw_headers, request.body, request.where
        )
        action, body = self._by_query(request, text) if request.is_query else self._by_json(request, text)
        queue = ""
        if isinstance(body, OfQueue):
            queue = request.queue = name_of_url(body.queue_url or _at(request.path))
            check_own(queue)
        call = Call(action, body, request, queue, request.is_query)
        hot = self._hot.get(action)
        if hot is None:
            return asyncio.ensure_future(self._slow[action](call)), partial(self._answer, call, as_it_is)
        future, finish = hot(call)
        return future, partial(self._answer, call, finish)

    def _by_json(self, request: SqsRequest, text: bytes) -> tuple[str, Any]:
        target = request.headers[b"x-amz-target"].decode("latin-1")
        action = target.removeprefix(_TARGET)
        decoder = _decoders.get(action) if target.startswith(_TARGET) else None
        if decoder is None:
            raise SqsError("UnknownOperationException", f"There is no operation {target[:100]!r}.")
        if not text and request.query:  # a presigned URL has the parameters in it
            return query.parse(b"Action=%b&%b" % (action.encode(), request.query))
        try:
            return action, decoder.decode(text or b"{}")
        except msgspec.ValidationError as error:
            raise fault_of(error, json=True) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise SqsError(
                "SerializationException", f"The body is no JSON that can be read: {error}."
            ) from None

    def _by_query(self, request: SqsRequest, text: bytes) -> tuple[str, Any]:
        return query.parse(request.query if request.method == "GET" else text)

    def _answer(self, call: Call, finish: Callable[[Any], Result], result: Any) -> Answer:
        request = call.request
        assert isinstance(request, SqsRequest)
        told = finish(result)
        if call.query:
            body, kind = query.render(call.action, told, request.id), _XML
        else:
            body, kind = _encode(told) if told else b"{}", _JSON
        return 200, body, [kind, (b"x-amzn-requestid", request.id.encode()), _NO_STORE]


def _at(path: str) -> str:
    """The QueueUrl of a request that goes to it."""
    if path == "/":
        raise missing("QueueUrl")
    return path
