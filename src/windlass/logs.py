"""Structured logs: lines for people on a console, JSON for machines. Always on stderr."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(log_format: str, *, quiet: bool = False, worker: int | None = None) -> None:
    """Send all records to stderr in one shape, the standard library's too; `quiet`: only what goes wrong.

    `worker`: which of several processes this is; each line says so.
    """

    def tell_worker(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if worker is not None:
            event["worker"] = worker
        return event

    shared: list[structlog.typing.Processor] = [
        tell_worker,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        final: list[structlog.typing.Processor] = [
            # Without the values of variables, which may be keys and tokens.
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(),
        ]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        final = [_message_first, console]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
        # A line in one piece, or those of several workers would mix.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *final,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def _message_first(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """On a console the sentence stands where the event's name would."""
    message = event.pop("message", None)
    if message is not None:
        event["event"] = message
        event.pop("url", None)
    return event
