"""A runner as a process: its signals, and its duties where it is process 1 of a container."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog
import uvloop

from windlass.runner.agent import Agent, Options
from windlass.runner.executors.base import Executor

log = structlog.get_logger("windlass.runner")

_FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


def run(options: Options, open_executor: Callable[[], AbstractAsyncContextManager[Executor]]) -> None:
    """Run an agent until SIGTERM or SIGINT, or the one job's end; a second signal ends the process at once.

    `open_executor` is entered on the agent's event loop. Raises StartError, and client.errors.NotSent for an
    address that is none.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(options, open_executor))


async def _run(options: Options, open_executor: Callable[[], AbstractAsyncContextManager[Executor]]) -> None:
    async with open_executor() as executor:
        agent = Agent(options, executor)
        stopped = False

        def stop(number: signal.Signals) -> None:
            nonlocal stopped
            if stopped:
                log.warning("killed", message="Told to stop a second time: ended at once.")
                os._exit(128 + number)
            stopped = True
            agent.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        await agent.run()


def go_on_in_a_child_of_process_1() -> None:
    """In process 1: return in a child, while this one passes signals on, reaps, and ends as the child does.

    So nothing in the runner has to tell its own children, whom others wait for, from orphans that process 1
    inherits. Call it before there are threads or an event loop. Does nothing in any other process.
    """
    if os.getpid() != 1:
        return
    waited_for = {signal.SIGCHLD, *_FORWARDED}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)  # what comes between here and sigwait is kept
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # Ctrl-C on a terminal goes to process 1 alone, and arrives here once
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited_for)
        return
    while True:
        number = signal.sigwait(waited_for)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        ended = _reap(child)
        if ended is not None:
            os._exit(ended)


def _reap(child: int) -> int | None:
    """Bury everybody who is dead; the exit status of `child` where it was among them."""
    ended = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            ended = code if code >= 0 else 128 - code
