"""What runners told other servers of jobs, for whoever watches here; and what they told here, for the others.

Nobody is told of what nobody watches. A server with watchers of a job asks all others, and says what it has
heard of each; one that has more answers at once, or when it hears more within `PATIENCE`. Each answer is to
the last question, and questions are repeated, so a word that gets lost costs a second and nothing else.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec

from windlass.dispatch.progress import Numbered, Progress
from windlass.store import Store

PATIENCE = 3.0
"""Seconds for which a question stands: whoever still watches has asked again by then."""
MOST = 256 * 1024
"""Bytes of events in one answer, about; one event is told in any case."""
_ASKED, _TOLD = "progress.asked", "progress.told"


class _Question(msgspec.Struct, frozen=True):
    server: str
    job: int
    heard: dict[str, int]
    """Server -> the number that it gave to the last event that was heard of it."""


class _Answer(msgspec.Struct, frozen=True):
    to: str
    server: str
    job: int
    events: list[tuple[int, dict[str, Any]]]
    over: bool


_encode = msgspec.msgpack.Encoder().encode
_question = msgspec.msgpack.Decoder(_Question).decode
_answer = msgspec.msgpack.Decoder(_Answer).decode


class Relay:
    """Between this server's progress and that of all others. On a store of its own, nobody hears it."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._name = secrets.token_hex(8)
        self._open: dict[int, dict[str, tuple[int, float]]] = {}
        """Job -> server -> (what it has heard of here, until when its question stands)."""
        store.hear(_ASKED, self._asked)
        store.hear(_TOLD, self._told)
        if store.shared:
            progress.listen(self._happened)

    def ask(self, job: int) -> None:
        """Ask the other servers what they were told of a job."""
        question = _Question(self._name, job, self._progress.heard(job))
        self._store.tell(_ASKED, _encode(question))

    def _asked(self, payload: bytes) -> None:
        try:
            question = _question(payload)
        except msgspec.DecodeError:  # of another version
            return
        heard = question.heard.get(self._name, 0)
        if not self._answer(question.server, question.job, heard):
            now = time.monotonic()
            servers = self._open.setdefault(question.job, {})
            servers[question.server] = (heard, now + PATIENCE)
            self._forget_over(now)

    def _happened(self, job: int) -> None:
        now = time.monotonic()
        for server, (heard, until) in self._open.pop(job, {}).items():
            if until > now:
                self._answer(server, job, heard)

    def _answer(self, server: str, job: int, heard: int) -> bool:
        """Tell a server what is new to it; False where nothing is."""
        events: list[Numbered] = []
        size = 0
        new, over = self._progress.told_here(job, heard)
        for event in new:
            events.append(event)
            size += len(_encode(event[1]))
            if size > MOST:
                break
        if events:
            over = over and len(events) == len(new)
            self._store.tell(_TOLD, _encode(_Answer(server, self._name, job, events, over)))
        return bool(events)

    def _told(self, payload: bytes) -> None:
        try:
            answer = _answer(payload)
        except msgspec.DecodeError:
            return
        if answer.to == self._name:
            self._progress.hear(answer.job, answer.server, answer.events, over=answer.over)

    def _forget_over(self, now: float) -> None:
        """The questions that stand no more; the oldest are first, or nearly so."""
        for job in list(self._open):
            if any(until > now for _, until in self._open[job].values()):
                return
            del self._open[job]
