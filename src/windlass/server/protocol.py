"""uvicorn's HTTP protocol, with a short road for hot routes and plain words for broken requests.

A request of a hot route that arrives whole, with its body, goes straight to the lean lane (lane.py), and its
answer straight to the transport: no scope, no task, no events. Everything else (a body that trickles, a
pipelined request, FastAPI's routes) takes uvicorn's own road through ASGI. There, the head of an answer waits
for the first part of its body: uvicorn writes both apart, which is two system calls and two TCP segments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from windlass.errors import BadRequest, RequestTimeout, TooLarge, WindlassError
from windlass.server import problems
from windlass.server.joined import Joined
from windlass.server.lane import Answer, Request, head_of

if TYPE_CHECKING:
    from windlass.server.app import Windlass

MAX_HEAD = 64 * 1024
"""Bytes of a request's head, beyond its first read."""

LAST_WORDS = 0.5
"""Seconds that a server which stops waits for the head of a request."""

MAX_SHORT = 256 * 1024
"""Bytes of a body that may take the short road. Larger ones need uvicorn's flow control."""


_HOT = (b"/queues/", b"/products/", b"/runners/", b"/jobs")
"""How the paths of hot routes begin; those of SQS are / and, of a queue, an account's number and a name."""


class Cycle:
    """A request on the short road and its answer, with what uvicorn asks of its own cycles."""

    __slots__ = ("_gone", "disconnected", "keep_alive", "response_complete")

    more_body = False
    response_started = False  # head and body are written together

    def __init__(self) -> None:
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False
        self._gone: asyncio.Future[None] | None = None

    def gone(self) -> asyncio.Future[None]:
        if self._gone is None:
            self._gone = asyncio.get_running_loop().create_future()
        return self._gone

    def forget(self) -> None:
        """Nothing watches: uvicorn tells."""

    @property
    def message_event(self) -> Cycle:
        """uvicorn sets this when the connection is lost."""
        return self

    def set(self) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)


class Protocol(HttpToolsProtocol):
    """One connection. What is no HTTP, ends too soon or does not end is answered with a problem too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joined = Joined(transport)
        self._wire = transport
        super().connection_made(cast("asyncio.Transport", self._joined))
        self._app = cast("Windlass", self.config.app)
        self._where = {"server": self.server, "client": self.client}
        self._in_head = False
        self._head = 0
        self._late: asyncio.TimerHandle | None = self.loop.call_later(
            self._app.settings.body_timeout, self._head_is_late
        )
        self._idle_since = 0.0
        self._idle: asyncio.TimerHandle | None = None
        """One timer over many requests: it looks when it fires whether the connection was idle."""
        self._held: Request | None = None
        """A request that may take the short road."""
        self._body = bytearray()
        self._offered = False
        """True from the head of a request that offers another protocol until it is declined."""
        self._running: Cycle | RequestResponseCycle | None = None
        """The request under way. `cycle` is the newest, which may wait in the pipeline."""
        if self._app.stopping:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch_no_more()
        if self._idle is not None:
            self._idle.cancel()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        rest: bytes | None = data
        while rest is not None:
            rest = self._feed(rest)
        if self._held is not None:
            try:
                self._take_the_long_road()
            except httptools.HttpParserError:
                self._refuse(BadRequest("The URL is none."))
        if self._in_head:
            self._head_grows(len(data))

    def _feed(self, data: bytes) -> bytes | None:
        """Let the parser read; what it has to be given next, if anything."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self._offered:
                return self._declined() + data[offer.args[0] :]
        except httptools.HttpParserError:
            self._refuse(BadRequest("Invalid HTTP request received."))
        return None

    def _declined(self) -> bytes:
        """A client offered another protocol, as Java's does by default, and the parser stopped before the
        body. A new one reads the same head without the offer."""
        self._offered = False
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"".join([b"%b %b HTTP/%b\r\n" % (method, self.url, version), *lines, b"\r\n"])

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def eof_received(self) -> None:
        if self._body_is_coming():
            self._refuse(BadRequest("The body ended before its end."))

    # --- the short road -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_head = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._watch_no_more()  # the next head has its own time and size
        url, parser, cycle = self.url, self.parser, self.cycle
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            self._offered = True
            return
        if (
            (url.startswith(_HOT) or url[1:2].isdigit() or url == b"/")
            and b"%" not in url
            and b"#" not in url
            and (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and parser.get_http_version() == "1.1"
            and self._app.opened
        ):
            path, _, query = url.partition(b"?")
            self._held = self._app.lane.find(
                parser.get_method().decode("ascii"),
                path.decode("ascii"),
                query,
                self.headers,
                self._where,
                Cycle,
            )
        if self._held is None:
            self._begin_cycle()

    def _begin_cycle(self) -> None:
        """uvicorn's own way with a request whose head is complete."""
        url, expect, headers = self.url, self.expect_100_continue, self.headers
        super().on_message_begin()  # it makes the scope, which the short road does without
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._app.draining:
            self.cycle.keep_alive = False

    def _take_the_long_road(self) -> None:
        """The body is large, or not all there yet."""
        self._held = None
        self._begin_cycle()
        if self._body:
            super().on_body(bytes(self._body))
            self._body.clear()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._body += body
            if len(self._body) > MAX_SHORT:
                self._take_the_long_road()

    def on_message_complete(self) -> None:
        request = self._held
        if request is None:
            if not self._offered:
                super().on_message_complete()
            return
        self._held = None
        request.body = bytes(self._body)
        self._body.clear()
        cycle = self._running = cast("Cycle", request.client)
        self.cycle = cast("RequestResponseCycle", cycle)
        cycle.keep_alive = self.parser.should_keep_alive() and not self._app.draining
        try:
            self._app.lane.enter(request)
            awaited, answer_of = request.begin()
            answer = answer_of(None) if awaited is None else None
        except Exception as error:  # noqa: BLE001 - what fails here is answered, never the parser's affair
            self._failed(cycle, request, error)
            return
        if awaited is None:
            assert answer is not None
            self._answer(cycle, answer[0], head_of(request.method, answer), answer[1])
            return

        def settled(future: asyncio.Future[Any]) -> None:
            self._settle(cycle, request, answer_of, future)

        awaited.add_done_callback(settled)

    def _settle(
        self,
        cycle: Cycle,
        request: Request,
        answer_of: Callable[[Any], Answer],
        future: asyncio.Future[Any],
    ) -> None:
        if future.cancelled():  # the server ends without waiting for its clients
            self.transport.close()
            return
        try:
            answer = answer_of(future.result())
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(cycle, request, error)
            return
        self._answer(cycle, answer[0], head_of(request.method, answer), answer[1])

    def _failed(self, cycle: Cycle, request: Request, error: Exception) -> None:
        again = self._app.lane.again(request, error)
        if again is None:
            self._answer(cycle, *request.refuse(request, error))
        else:
            again.add_done_callback(lambda future: self._settle(cycle, request, _as_it_is, future))

    def _answer(self, cycle: Cycle, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if cycle.disconnected or self._wire.is_closing():
            return
        self._write(status, headers, body, last=not cycle.keep_alive)
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _write(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, *, last: bool) -> None:
        """A whole answer, and whether it is the connection's last."""
        parts = [STATUS_LINE[status], _usual(self.server_state)]
        for name, value in headers:
            if name != b"connection":
                parts += (name, b": ", value, b"\r\n")
        parts += (b"connection: close\r\n\r\n", body) if last else (b"\r\n", body)
        self._wire.write(b"".join(parts))

    # --- the server's stop -------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """As uvicorn's, but who has just come, or begun to ask, is given a moment: it is on its way."""
        if self._in_head or self.cycle is None:
            self.loop.call_later(LAST_WORDS, self._hang_up)
        else:
            super().shutdown()

    def _hang_up(self) -> None:
        if not self._wire.is_closing():
            super().shutdown()

    # --- idle connections -----------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer, which there is set and cancelled for each request."""
        self._joined.flush()  # an answer to HEAD has no body
        self.server_state.total_requests += 1
        if self._wire.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self._idle = None
        if self._in_head or not self.cycle.response_complete:
            return  # the end of its answer sets the timer again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle = self.loop.call_later(left, self._look_whether_idle)
        else:
            self._wire.close()

    # --- broken requests ------------------------------------------------------------------------------

    def _head_grows(self, size: int) -> None:
        """The parser takes a head of any size, at any pace."""
        if self._late is None:  # its first part; what came with it may be of another request
            self._head = 0
            timeout = self._app.settings.body_timeout
            self._late = self.loop.call_later(timeout, self._head_is_late)
            return
        self._head += size
        if self._head > MAX_HEAD:
            self._refuse(TooLarge(f"A request's head may have {MAX_HEAD:,} bytes."))

    def _head_is_late(self) -> None:
        self._late = None
        if self.flow.read_paused:  # we do not read on: it is not the client that is late
            self._late = self.loop.call_later(self._app.settings.body_timeout, self._head_is_late)
        elif self._in_head:
            self._refuse(RequestTimeout("The head of the request did not arrive in time."))
        else:
            self.transport.close()

    def _watch_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, error: WindlassError) -> None:
        """Answer and hang up; only hang up where the next answer would be another request's."""
        self._watch_no_more()
        self._held = None
        if not self.transport.is_closing() and self._next_answer_is_of_what_came_last():
            self._write(*problems.response(error), last=True)
        self.transport.close()

    def _next_answer_is_of_what_came_last(self) -> bool:
        """True where no request before it waits for an answer, and its own has not begun."""
        return self.cycle is None or self.cycle.response_complete or self._body_is_coming()

    def _body_is_coming(self) -> bool:
        """True while the one request under way is not all there."""
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline


def _as_it_is(answer: Answer) -> Answer:
    return answer


_usual_headers: tuple[object, bytes] = (None, b"")


def _usual(state: ServerState) -> bytes:
    """The headers of every answer: uvicorn makes a new list of them once a second, for the date."""
    global _usual_headers
    of, text = _usual_headers
    if of is not state.default_headers:
        of = state.default_headers
        text = b"".join([b"%b: %b\r\n" % header for header in of])
        _usual_headers = (of, text)
    return text
