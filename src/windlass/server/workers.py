"""Several processes on one address, and the one that watches over them.

The supervisor opens the port, one listening socket for each worker, and forks; it serves nothing itself. The
first worker starts alone: what a start does once, tables and initial products, is done by one, and a start
that fails says so once. A worker that dies is started again, and its share of new connections goes to the
others meanwhile. What a worker tells goes through a pipe of its own; that the supervisor is gone it learns
from another, the lifeline, which ends with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import NoReturn

import msgspec
import structlog

from windlass import logs
from windlass.directory import DirectoryLock
from windlass.errors import StartError, WindlassError
from windlass.server import control, process
from windlass.server.app import Windlass
from windlass.server.listening import split
from windlass.settings import Settings

log = structlog.get_logger("windlass.server")

AT_ONCE = 10.0
"""A worker that ends sooner after its start, in seconds, has ended at once."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before the next start of one that has ended at once so often in a row. After that it is over."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Told(msgspec.Struct, omit_defaults=True):
    """What a worker tells its supervisor, one line of JSON."""

    ready: bool = False
    failed: str = ""
    """Why it cannot start."""


class Worker:
    """One place among the workers, and the process that has it now."""

    def __init__(self, number: int, listener: socket.socket) -> None:
        self.number = number
        self.listener = listener
        self.pid = 0
        """0: none runs."""
        self.told: int | None = None
        """The end of the pipe from which it is heard, None once it has said all."""
        self.ready = False
        self.failed = ""
        """Why it said that it could not start."""
        self.started = 0.0
        self.failures = 0
        """How many times in a row it ended at once."""
        self.due: float | None = None
        """When it is started again."""


def check(settings: Settings) -> None:
    """Raises StartError where one process alone may have what these settings name."""
    asked = f"--workers {settings.workers}"
    if settings.store is None:
        raise StartError(
            f"{asked} needs the queues on Redis: name one with --store. On SQLite one process owns the file:"
            " who waits, and one fsync for many, are in its memory. So leave --workers out, or bring the"
            " queues to Redis."
        )
    if not (settings.database or "").startswith(("postgresql", "postgres:")):
        raise StartError(
            f"{asked} needs PostgreSQL for the judge and the products: name one with --database. Without,"
            " they are in SQLite in the data directory, which is for one process alone."
        )
    if settings.redis is None and not settings.products_read_only and settings.products_writes == "here":
        raise StartError(
            f"{asked} needs --redis as well, by which the workers tell each other of the products they write."
            " It may be the Redis of --store."
        )


def supervise(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT; `ready` is called once all accept.

    Raises StartError where the first start fails, or workers end at once again and again.
    """
    check(settings)
    lock = DirectoryLock(settings.data_dir)  # the workers inherit it, so it outlives none of them
    clean = False
    try:
        with control.bound(settings.data_dir) as commands:
            Supervisor(settings, split(listener, settings.workers), commands, ready).run()
        clean = True
    finally:
        lock.close(clean=clean)


class Supervisor:
    """Starts workers, hears them, starts them again, and passes on that it is over."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[socket.socket],
        commands: socket.socket | None,
        ready: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._commands = commands
        self._ready = ready
        self._workers = [Worker(number, each) for number, each in enumerate(listeners, 1)]
        self._selector = selectors.DefaultSelector()
        self._lifeline, self._ours = os.pipe()
        self._complete = False
        """True from the moment at which all were ready."""
        self._stopping = False
        self._why: StartError | None = None

    def run(self) -> None:
        """Blocks. Raises StartError."""
        gc.freeze()  # what the workers inherit stays theirs in common
        with self._hearing_signals():
            try:
                self._start(self._workers[0])
                gc.enable()
                while any(each.pid for each in self._workers) or not self._stopping:
                    self._turn()
            finally:
                self._end_all(signal.SIGKILL)  # there are some left only after a fault of our own
                self._selector.close()
                os.close(self._ours)
                os.close(self._lifeline)
        if self._why is not None:
            raise self._why
        log.info("stopped")

    def _turn(self) -> None:
        """Wait for what happens next, and act on it."""
        due = [each.due for each in self._workers if each.due is not None]
        pause = max(0.0, min(due) - time.monotonic()) if due else None
        for key, _ in self._selector.select(pause):
            key.data()
        self._reap()
        for worker in self._workers:
            if worker.due is not None and worker.due <= time.monotonic():
                self._start(worker)

    # --- signals ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        def nothing(number: int, frame: FrameType | None) -> None:
            """It is read from the socket, whole, in its turn."""

        heard, self._said = socket.socketpair()
        heard.setblocking(False)
        self._said.setblocking(False)
        self._selector.register(heard, selectors.EVENT_READ, partial(self._hear, heard))
        before = {number: signal.signal(number, nothing) for number in _SIGNALS}
        signal.set_wakeup_fd(self._said.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            heard.close()
            self._said.close()

    def _hear(self, heard: socket.socket) -> None:
        for number in heard.recv(4096):
            if number == signal.SIGCHLD:
                continue
            if self._stopping:
                self._end_all(signal.SIGKILL)
            else:
                log.info("stopping", workers=sum(each.pid > 0 for each in self._workers))
                self._stop()

    def _stop(self) -> None:
        """Tell all to stop, once. The port is theirs alone from now on: closed when the last closes it."""
        self._stopping = True
        for worker in self._workers:
            worker.due = None
            worker.listener.close()
        self._end_all(signal.SIGTERM)

    def _end_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)

    # --- ends -------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Take leave of processes that have ended: as the first of a container, of others' as well."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for worker in self._workers:
                if worker.pid == pid:
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, status: int) -> None:
        self._listen_to(worker)  # its last words may not have been read
        self._hush(worker)
        was_ready, worker.pid, worker.ready = worker.ready, 0, False
        reason = worker.failed or _said_of(status)
        if self._stopping:
            if status not in (0, -signal.SIGTERM, -signal.SIGKILL):
                log.warning("worker_ended", worker=worker.number, reason=reason)
        elif not self._complete:
            self._give_up(f"Worker {worker.number} of {len(self._workers)} did not start. {reason}")
        else:
            self._start_later(worker, was_ready, reason)

    def _start_later(self, worker: Worker, was_ready: bool, reason: str) -> None:
        # Out of the kernel's choice until the next process listens on it: the others take what comes.
        with contextlib.suppress(OSError):
            worker.listener.shutdown(socket.SHUT_RDWR)
        at_once = not was_ready or time.monotonic() - worker.started < AT_ONCE
        worker.failures = worker.failures + 1 if at_once else 0
        # One that says what it lacks (Redis, say) is waited for, as long as there are others to serve.
        waits = worker.failed and any(each.ready for each in self._workers)
        if worker.failures > len(PAUSES) and not waits:
            self._give_up(
                f"Worker {worker.number} ended {worker.failures} times in a row right after its start, and is"
                f" not started again; the others are stopped. The last time: {reason}"
            )
            return
        pause = PAUSES[min(worker.failures, len(PAUSES)) - 1] if worker.failures else 0.0
        worker.due = time.monotonic() + pause
        log.error(
            "worker_ended",
            message=f"Worker {worker.number} is started again in {pause:g} s. {reason}",
            worker=worker.number,
        )

    def _give_up(self, why: str) -> None:
        self._why = StartError(why)
        self._stop()

    # --- starts -----------------------------------------------------------------------------------

    def _listen_to(self, worker: Worker) -> None:
        """Read what a worker has told, if anything."""
        if worker.told is None:
            return
        try:
            text = os.read(worker.told, 65_536)
        except BlockingIOError:
            return
        for line in text.splitlines():
            told = msgspec.json.decode(line, type=Told)
            worker.failed = told.failed
            if told.ready:
                self._is_ready(worker)
        if not text:
            self._hush(worker)

    def _hush(self, worker: Worker) -> None:
        """It has no more to say."""
        if worker.told is not None:
            self._selector.unregister(worker.told)
            os.close(worker.told)
            worker.told = None

    def _is_ready(self, worker: Worker) -> None:
        worker.ready = True
        if self._complete or self._stopping:
            return
        for other in self._workers:
            if not other.pid:
                self._start(other)
        if all(each.ready for each in self._workers):
            self._complete = True
            self._ready()

    def _start(self, worker: Worker) -> None:
        hear, tell = os.pipe()
        os.set_blocking(hear, False)
        worker.due, worker.failed = None, ""
        worker.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(hear)
            self._become(worker, tell)
        os.close(tell)
        worker.pid, worker.told = pid, hear
        self._selector.register(hear, selectors.EVENT_READ, partial(self._listen_to, worker))

    def _become(self, worker: Worker, tell: int) -> NoReturn:
        """The life of a worker, in the process that was just forked."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            logs.configure(self._settings.log_format, worker=worker.number)
            self._leave_to_the_supervisor(worker)
            _work(self._settings, worker.listener, self._commands, tell, self._lifeline)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:  # nothing may return into what the supervisor was doing
            log.exception("worker_failed")
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _leave_to_the_supervisor(self, worker: Worker) -> None:
        """Close what is not this worker's: a pipe or a port would stay open with it."""
        self._selector.close()
        os.close(self._ours)
        self._said.close()
        for other in self._workers:
            if other is not worker:
                other.listener.close()
                if other.told is not None:
                    os.close(other.told)


def _work(
    settings: Settings, listener: socket.socket, commands: socket.socket | None, tell: int, lifeline: int
) -> None:
    """Serve until told to stop; `tell` is where the supervisor listens."""

    def told(what: Told) -> None:
        os.write(tell, msgspec.json.encode(what) + b"\n")

    try:
        app = Windlass(settings, locked=True)
        app.open()
        process.run(app, listener, commands, lambda: told(Told(ready=True)), lifeline)
    except WindlassError as error:
        told(Told(failed=error.detail))
        raise SystemExit(1) from None


def _said_of(status: int) -> str:
    if status < 0:
        return f"It was ended by {signal.Signals(-status).name}."
    return f"It ended with status {status}; the log says more."
