"""A wire between a client and a Redis, which a test cuts, stalls, slows down or lets lose notifications.

It hands on whole frames of Redis' protocol, so that "in the middle of the third reply" is a place and not a
matter of luck.
"""

from __future__ import annotations

import atexit
import contextlib
import random
import re
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from tests.harness import free_port
from tests.resp import Frames

CHUNK = 1 << 16
FULL = 1 << 20
"""Bytes on their way to one side above which no more is taken from the other."""
WITHIN = 30.0
"""Seconds for what takes none."""
SUBSCRIBES = re.compile(rb"\*\d+\r\n\$\d+\r\n[SP]?SUBSCRIBE\r\n", re.IGNORECASE)
NOTIFIES = re.compile(rb"[*>]\d+\r\n\$\d+\r\n[sp]?message\r\n")

Ready = dict[object, int]
"""Sockets that may be read from or written to -> selectors.EVENT_..."""


class Way:
    """What one side says, on its way to the other."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.frames = Frames()
        self.later: deque[tuple[float, bytes]] = deque()
        """(when it may go on, frame)"""
        self.now = bytearray()
        self.ended = False

    @property
    def empty(self) -> bool:
        return not self.later and not self.now

    @property
    def full(self) -> bool:
        return len(self.now) + sum(len(frame) for _, frame in self.later) > FULL


class Link:
    """One connection of a client, and the one to Redis that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.up, self.down = Way(client, server), Way(server, client)
        self.subscribed = False
        self.cut = False
        """It ends when what is already on its way to the client is there."""

    def close(self) -> None:
        self.up.source.close()
        self.up.target.close()


def _none(_: Link) -> bool:
    return False


class FaultProxy:
    """Listens on `port` and hands on to `upstream`, another port of this machine.

    A fault is in force when its call is over, until `heal()`. Those that wait for a reply set `happened` when
    they have cut it; where it is cut is decided by `seed`, which is printed.
    """

    def __init__(self, upstream: int, seed: int | None = None) -> None:
        self.upstream = upstream
        self.port = free_port()
        self.happened = threading.Event()
        seed = random.randrange(2**32) if seed is None else seed
        print(f"fault proxy: seed {seed}")
        self._random = random.Random(seed)
        self._stalled: Callable[[Link], bool] = _none
        self._delay = 0.0
        self._losing = False
        self._replies: int | None = None
        self._at: int | None = None
        self._bytes: int | None = None
        self._links: set[Link] = set()
        self._calls: deque[Callable[[], None]] = deque()
        self._listener: socket.socket | None = None
        self._waker, self._woken = socket.socketpair()
        self._running = True
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        self._do(self._listen)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    # --- faults -----------------------------------------------------------------------------------

    def cut(self) -> None:
        """End all connections."""
        self._do(self._cut)

    def cut_in_reply(self, number: int = 1, at: int | None = None) -> None:
        """Hand on a part only of the reply of this number from now on, then end its connection.

        The part is of `at` bytes, 0: nothing, None: the seed decides. What subscribers hear does not count.
        """

        def plan() -> None:
            self.happened.clear()
            self._replies, self._at = number, at

        self._do(plan)

    def cut_after(self, size: int) -> None:
        """End the connection that hands on the last of so many bytes of replies from now on."""

        def plan() -> None:
            self.happened.clear()
            self._bytes = size

        self._do(plan)

    def stall(self, *, subscribers: bool = False) -> None:
        """Hand on nothing, with every connection open; or nothing on connections that SUBSCRIBEd."""

        def plan() -> None:
            self._stalled = lambda link: link.subscribed or not subscribers

        self._do(plan)

    def slow(self, seconds: float) -> None:
        """Hand on each chunk so much later, both ways."""

        def plan() -> None:
            self._delay = seconds

        self._do(plan)

    def lose_notifications(self) -> None:
        """Forget what is published; all else comes through, on the same connections, too."""

        def plan() -> None:
            self._losing = True

        self._do(plan)

    def refuse(self) -> None:
        """End all connections and refuse new ones."""

        def plan() -> None:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            self._cut()

        self._do(plan)

    def redirect(self, upstream: int) -> None:
        """End all connections; new ones lead to another port."""

        def plan() -> None:
            self.upstream = upstream
            self._cut()

        self._do(plan)

    def heal(self) -> None:
        """Hand everything on again, what was stalled first; listen again."""

        def plan() -> None:
            self._heal()
            if self._listener is None:
                self._listen()

        self._do(plan)

    def close(self) -> None:
        """End everything. Raises what went wrong inside, if anything did."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._do(self._end)
            self._thread.join(WITHIN)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread -------------------------------------------------------------------------------

    def _do(self, call: Callable[[], None]) -> None:
        """Have it done by the thread, and wait until it is."""
        done = threading.Event()
        self._calls.append(call)
        self._calls.append(done.set)
        self._waker.send(b"!")
        assert done.wait(WITHIN), f"the proxy is dead: {self._error!r}"

    def _heal(self) -> None:
        self._stalled, self._delay, self._losing = _none, 0.0, False
        self._replies = self._bytes = None

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._listener.setblocking(False)

    def _end(self) -> None:
        self._running = False

    def _run(self) -> None:
        try:
            while self._running:
                self._turn()
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._cut()
            for each in (self._listener, self._waker, self._woken):
                if each is not None:
                    each.close()

    def _turn(self) -> None:
        """Wait for whatever may go on, and have it go on."""
        with selectors.PollSelector() as selector:
            for each, events in self._awaited().items():
                selector.register(each, events)
            ready: Ready = {key.fileobj: events for key, events in selector.select(self._pause())}
        if self._woken in ready:
            self._woken.recv(CHUNK)
        while self._calls:
            self._calls.popleft()()
        if self._listener is not None and self._listener in ready:
            self._accept()
        for link in list(self._links):
            if not self._stalled(link):
                self._pump(link, ready)

    def _awaited(self) -> dict[socket.socket, int]:
        awaited = {self._woken: selectors.EVENT_READ}
        if self._listener is not None:
            awaited[self._listener] = selectors.EVENT_READ
        for link in self._links:
            if self._stalled(link):
                continue
            for way in (link.up, link.down):
                if not (way.ended or way.full or link.cut):
                    awaited[way.source] = awaited.get(way.source, 0) | selectors.EVENT_READ
                if way.now:
                    awaited[way.target] = awaited.get(way.target, 0) | selectors.EVENT_WRITE
        return awaited

    def _pause(self) -> float | None:
        """Seconds until something is due, None: nothing is."""
        ways = (way for link in self._links if not self._stalled(link) for way in (link.up, link.down))
        due = min((way.later[0][0] for way in ways if way.later), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.upstream), WITHIN)
            except OSError:
                client.close()
                return
            for side in (client, server):
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links.add(Link(client, server))

    def _pump(self, link: Link, ready: Ready) -> None:
        try:
            for way in (link.up, link.down):
                if ready.get(way.source, 0) & selectors.EVENT_READ and not link.cut:
                    self._read(link, way)
                while way.later and way.later[0][0] <= time.monotonic() and not link.cut:
                    self._pass(link, way, way.later.popleft()[1])
                if way.now:
                    with contextlib.suppress(BlockingIOError):
                        del way.now[: way.target.send(way.now)]
        except OSError:
            self._drop(link)
            return
        if any(way.ended and way.empty for way in (link.up, link.down)) or (link.cut and not link.down.now):
            self._drop(link)

    def _read(self, link: Link, way: Way) -> None:
        piece = way.source.recv(CHUNK)
        way.ended = not piece
        frames = way.frames.feed(piece) if piece else [way.frames.rest]
        if way is link.up:
            link.subscribed |= any(SUBSCRIBES.match(frame) for frame in frames)
        due = time.monotonic() + self._delay
        way.later.extend((due, frame) for frame in frames if frame)

    def _pass(self, link: Link, way: Way, frame: bytes) -> None:
        """Let a frame go, or what a fault leaves of it."""
        if way is link.down:
            if self._losing and NOTIFIES.match(frame):
                return
            if self._replies is not None and not link.subscribed:
                self._replies -= 1
                if not self._replies:
                    at = self._random.randrange(1, len(frame)) if self._at is None else self._at
                    frame, link.cut, self._replies = frame[:at], True, None
            if self._bytes is not None:
                frame, left = frame[: self._bytes], self._bytes - len(frame)
                link.cut, self._bytes = left <= 0, left if left > 0 else None
        way.now += frame

    def _drop(self, link: Link) -> None:
        link.close()
        self._links.discard(link)
        if link.cut:
            self.happened.set()

    def _cut(self) -> None:
        for link in self._links:
            link.close()
        self._links.clear()
