"""Every error the client raises.

WindlassError
  NotSent                   the request itself is wrong and never left: a name, a number, a content
  ConnectionFailed
    Unreachable             no connection; the server saw nothing
    AnswerLost              the connection broke before the answer; the server may have done it, or not
  BadAnswer                 something answered that is not a Windlass server, or not this version
  OutcomePending            a wait for an outcome ran out; it may still come
  NoOutcome                 the message ended, or died, without an acknowledgement
  Problem                   the server refused; it carries status, code, detail and field
    InvalidRequest          400, 422    TooLarge 413, IdempotencyKeyReused
    Unauthenticated         401
    Forbidden               403
    NotFound                404         QueueNotFound, MessageNotFound, ReceiptUnknown, ProductNotFound
    Conflict                409         QueueExists, QueueInUse, MessageLeased, LeaseLost, ProductExists
    Gone                    410         ReceiptGone, MessageGone
    TooManyRequests         429         QueueFull, IdempotencyFull
    ServerFailed            5xx         StoreUnavailable
"""

# Names as the field has them, without "Error" at each end: `except LeaseLost` reads as it is meant.
# ruff: noqa: N818

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass.client.values import Sent


class WindlassError(Exception):
    """Base of every error the client raises."""

    in_doubt: bool = False
    """Whether the server may have carried out the request all the same: an answer to it was lost."""

    sent: Sequence[Sent] = ()
    """After `send_many`: the messages that are safely in the queue all the same, in order."""

    written: int = 0
    """After an import of products: how many are there all the same, from the first on."""


class NotSent(WindlassError, ValueError):
    """The request cannot be put in words (a NaN, an empty queue name); nothing was sent."""


class ConnectionFailed(WindlassError):
    """The server could not be asked, or its answer did not arrive."""


class Unreachable(ConnectionFailed):
    """No connection to the server could be made; it has seen nothing of the request."""


class AnswerLost(ConnectionFailed):
    """The connection broke, or the time ran out, before the answer: it may have been done, or not."""


class BadAnswer(WindlassError):
    """The answer is not one that a Windlass server gives; perhaps the address is another program's."""


class OutcomePending(WindlassError, TimeoutError):
    """The wait ran out and the message has no outcome yet."""


class NoOutcome(WindlassError):
    """The message will have no outcome: it ended or died without an acknowledgement."""

    def __init__(self, message_id: str, state: str) -> None:
        super().__init__(f"message {message_id} has no outcome: it is {state}")
        self.state = state


class Problem(WindlassError):
    """The server refused the request and said why in a problem document (RFC 9457).

    `status`: the HTTP status. `code`: a stable word for the reason, such as `queue_full`. `detail`: a
    sentence for people. `field`: the part of the request that is wrong, or None. `retry_after`: seconds
    after which the server thinks another try may succeed, or None. `line`: the line of an import that is
    wrong, from 1. `source`: who knew that a product is not there.
    """

    line: int | None = None
    source: str | None = None

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{field}: {detail}" if field and field not in detail else detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after = retry_after


class InvalidRequest(Problem):
    """The server does not accept what was asked; `field` names the part that is wrong."""


class TooLarge(InvalidRequest):
    """The message or the batch is over the limit."""


class IdempotencyKeyReused(InvalidRequest):
    """The same idempotency key came before with another body."""


class Unauthenticated(Problem):
    """The server wants an API key, or does not know this one."""


class Forbidden(Problem):
    """The key, or the address the request came from, is not allowed to do this."""


class NotFound(Problem):
    """There is no such thing."""


class QueueNotFound(NotFound):
    """There is no queue of this name."""


class MessageNotFound(NotFound):
    """No message with this id was ever sent to this queue."""


class ReceiptUnknown(NotFound):
    """This receipt was never issued."""


class ProductNotFound(NotFound):
    """There is no product with this id."""


class Conflict(Problem):
    """The request does not fit the present state."""


class QueueExists(Conflict):
    """The queue exists with other settings."""


class QueueInUse(Conflict):
    """The queue is the dead-letter queue of another one."""


class ProductExists(Conflict):
    """There is a product with this id."""


class MessageLeased(Conflict):
    """The message is leased to a consumer just now."""


class LeaseLost(Conflict):
    """The lease ran out and the message lives on under another delivery: somebody else may do the work."""


class Gone(Problem):
    """It was here and has ended."""


class ReceiptGone(Gone):
    """The message behind this receipt has ended; nobody will get it again."""


class MessageGone(Gone):
    """The message has ended and its record is no longer kept."""


class TooManyRequests(Problem):
    """The server asks for patience; `retry_after` says how much."""


class QueueFull(TooManyRequests):
    """The queue is at its `max_length`."""


class IdempotencyFull(TooManyRequests):
    """The server keeps as many idempotency keys as it can; requests without one still go through."""


class ServerFailed(Problem):
    """The server, or a proxy before it, could not do its work."""


class StoreUnavailable(ServerFailed):
    """The server runs, its store does not answer."""


_BY_CODE: Mapping[str, type[Problem]] = {
    "too_large": TooLarge,
    "idempotency_key_reused": IdempotencyKeyReused,
    "queue_not_found": QueueNotFound,
    "message_not_found": MessageNotFound,
    "receipt_unknown": ReceiptUnknown,
    "product_not_found": ProductNotFound,
    "product_exists": ProductExists,
    "queue_exists": QueueExists,
    "queue_in_use": QueueInUse,
    "message_leased": MessageLeased,
    "receipt_stale": LeaseLost,
    "receipt_gone": ReceiptGone,
    "message_gone": MessageGone,
    "queue_full": QueueFull,
    "idempotency_full": IdempotencyFull,
    "store_unavailable": StoreUnavailable,
}

_BY_STATUS: Mapping[int, type[Problem]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    422: InvalidRequest,
    429: TooManyRequests,
}


def from_answer(status: int, headers: Mapping[str, str], body: bytes) -> WindlassError:
    """The error that an unsuccessful answer stands for.

    An answer without a problem document still tells its status, and that is a `Problem` when the
    status alone says enough (a 503 of a proxy, a 401); any other is `BadAnswer`.
    """
    document = _problem_document(body)
    code = str(document.get("code") or "")
    if code in _BY_CODE:
        kind = _BY_CODE[code]
    elif status >= 500:
        kind = ServerFailed
    elif code or status in (401, 403, 413, 429):
        kind = _BY_STATUS.get(status, Problem)
    else:
        return BadAnswer(f"HTTP {status} without a problem document; is this a Windlass server?")
    detail = str(document.get("detail") or document.get("title") or f"HTTP {status}")
    field = document.get("field")
    problem = kind(
        status,
        code or f"http_{status}",
        detail,
        field=str(field) if field is not None else None,
        retry_after=_seconds(headers.get("retry-after")),
    )
    line, source, written = (document.get(name) for name in ("line", "source", "written"))
    problem.line = line if isinstance(line, int) else None
    problem.source = source if isinstance(source, str) else None
    problem.written = written if isinstance(written, int) else 0
    return problem


def _problem_document(body: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, is of no use against a skewed clock and is left."""
    try:
        seconds = float(text) if text else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < float("inf") else None
