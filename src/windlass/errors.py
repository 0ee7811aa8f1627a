"""Every error that Windlass raises on purpose: one tree, a stable code and an HTTP status each.

The first line of a class's docstring is the problem's title; the message given when it is raised is
the problem's detail (RFC 9457). A client may rely on ``code`` and ``status``; words may change.
"""

from __future__ import annotations


class WindlassError(Exception):
    """Windlass could not do what was asked."""

    code = "internal"
    status = 500

    def __init__(self, detail: str = "", *, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail or self.title())
        self.field = field
        self.retry_after = retry_after
        self.members: dict[str, str | int] = {}
        """What the problem document says besides."""

    @classmethod
    def title(cls) -> str:
        """The problem's title: the first line of the docstring, without its full stop."""
        return (cls.__doc__ or cls.__name__).splitlines()[0].rstrip(".")

    @property
    def detail(self) -> str:
        return str(self)


# --- the request is wrong -------------------------------------------------------------------------


class BadRequest(WindlassError):
    """The request is malformed."""

    code = "bad_request"
    status = 400


class BrokenJson(BadRequest):
    """The body is not JSON."""

    code = "broken_json"


class ResultMalformed(BadRequest):
    """The result is not one of this job."""

    code = "result_malformed"


class Invalid(WindlassError):
    """A value is out of range, of the wrong type or unknown."""

    code = "invalid"
    status = 422


class IdempotencyKeyReused(Invalid):
    """This Idempotency-Key was used before with another body."""

    code = "idempotency_key_reused"


class TooLarge(WindlassError):
    """The content is too large."""

    code = "too_large"
    status = 413


class RequestTimeout(WindlassError):
    """The body did not arrive in time."""

    code = "request_timeout"
    status = 408


# --- who is asking --------------------------------------------------------------------------------


class Unauthenticated(WindlassError):
    """A valid API key is needed."""

    code = "unauthenticated"
    status = 401


class RegistrationDenied(Unauthenticated):
    """The registration token is not the one."""

    code = "registration_denied"


class RunnerUnknown(Unauthenticated):
    """This runner token is not valid, or no longer."""

    code = "runner_unknown"


class Forbidden(WindlassError):
    """This is not allowed."""

    code = "forbidden"
    status = 403


class CatalogueReadOnly(Forbidden):
    """The products of this server can only be read."""

    code = "catalogue_read_only"


class ForeignOrigin(Forbidden):
    """A web page of another origin may not use this server."""

    code = "foreign_origin"


# --- what was asked for is not there --------------------------------------------------------------


class CodeLinkInvalid(Forbidden):
    """This link to a source is not valid, or no longer."""

    code = "code_link_invalid"


class NotFound(WindlassError):
    """There is nothing here."""

    code = "not_found"
    status = 404


class QueueNotFound(NotFound):
    """There is no such queue."""

    code = "queue_not_found"


class MessageNotFound(NotFound):
    """There is no such message."""

    code = "message_not_found"


class ReceiptUnknown(NotFound):
    """There is no such receipt."""

    code = "receipt_unknown"


class JobNotFound(NotFound):
    """There is no such job."""

    code = "job_not_found"


class ProblemNotFound(NotFound):
    """There is no such problem."""

    code = "problem_not_found"


class SubmissionNotFound(NotFound):
    """There is no such submission."""

    code = "submission_not_found"


class ProductNotFound(NotFound):
    """There is no such product."""

    code = "product_not_found"

    def __init__(self, source: str | None = None) -> None:
        """`source`: who knew, as the guard calls them."""
        super().__init__()
        if source is not None:
            self.members["source"] = source


class MethodNotAllowed(WindlassError):
    """This method is not allowed here."""

    code = "method_not_allowed"
    status = 405


class Gone(WindlassError):
    """It is over."""

    code = "gone"
    status = 410


class MessageGone(Gone):
    """The message has ended and its record is no longer kept."""

    code = "message_gone"


class ReceiptGone(Gone):
    """The message has ended; nobody will get it again."""

    code = "receipt_gone"


# --- the state of things forbids it ---------------------------------------------------------------


class Conflict(WindlassError):
    """The state of things forbids this."""

    code = "conflict"
    status = 409


class QueueExists(Conflict):
    """The queue exists with other settings."""

    code = "queue_exists"


class QueueInUse(Conflict):
    """Another queue names this one as its dead letter."""

    code = "queue_in_use"


class ProductExists(Conflict):
    """There is a product with this id."""

    code = "product_exists"


class ReceiptStale(Conflict):
    """The lease is over and the message lives on without it."""

    code = "receipt_stale"


class JobLost(Conflict):
    """The job is not this runner's any more."""

    code = "job_lost"


class MessageLeased(Conflict):
    """The message is leased."""

    code = "message_leased"


# --- a limit is reached ---------------------------------------------------------------------------


class QueueFull(WindlassError):
    """The queue is full."""

    code = "queue_full"
    status = 429


class IdempotencyFull(WindlassError):
    """No more Idempotency-Keys can be remembered."""

    code = "idempotency_full"
    status = 429


# --- the store ------------------------------------------------------------------------------------


class StoreUnavailable(WindlassError):
    """The store cannot do this now."""

    code = "store_unavailable"
    status = 503


class OutcomeUnknown(StoreUnavailable):
    """The store may have done this, or not."""

    code = "outcome_unknown"


class StoreFull(StoreUnavailable):
    """The disk is full."""

    code = "store_full"


class StoreClosed(StoreUnavailable):
    """The server is stopping."""

    code = "store_closed"


class StartError(WindlassError):
    """Windlass cannot start."""

    code = "cannot_start"
    status = 503


class StoreLocked(StartError):
    """Another process uses this data directory."""

    code = "store_locked"


class StoreTooNew(StartError):
    """The data directory was written by a newer Windlass."""

    code = "store_too_new"


class JudgeElsewhere(StartError):
    """The judge is elsewhere."""

    code = "judge_elsewhere"


class StoreDamaged(StartError):
    """The database is damaged."""

    code = "store_damaged"


class FilterStateRefused(StartError):
    """The stored state of the filter cannot be used."""

    code = "filter_state_refused"


class PositionUnknown(StartError):
    """The record of keys does not reach back to this position."""

    code = "position_unknown"


class RegistrationRefused(StartError):
    """The server does not take this runner."""

    code = "registration_refused"


class RunnerDirLocked(StartError):
    """Another runner uses this directory."""

    code = "runner_dir_locked"


class SandboxUnavailable(StartError):
    """There is no sandbox on this host."""

    code = "sandbox_unavailable"


class SandboxWeak(StartError):
    """This host cannot keep all that the sandbox promises."""

    code = "sandbox_weak"


def tree() -> list[type[WindlassError]]:
    """Every class of this tree, the root first."""
    found: list[type[WindlassError]] = [WindlassError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return found
