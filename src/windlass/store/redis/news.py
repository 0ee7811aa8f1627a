"""What other servers change, told by way of Redis: a channel for each queue in which somebody waits here.

A notification may get lost with its connection. So whoever begins to listen, or begins anew, looks at how
many messages are ready in each of its queues; and nothing depends on news but how soon it is known.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis
import structlog
from redis.exceptions import MovedError

from windlass.store.base import Changes
from windlass.store.redis.call import REGISTRY, TOLD, Call
from windlass.store.redis.link import Link
from windlass.store.redis.records import decode, number_of
from windlass.store.redis.topology import Node

log = structlog.get_logger("windlass.store")

ATTENDED = 120.0
"""Seconds for which one wish to hear of a queue holds."""
_TURN = 0.05
"""Seconds after which a listener looks whether it is to listen to more."""
_ALIVE = 1.0
"""Seconds of silence after which a connection is asked whether it is there."""


class News:
    """A listener for each server that has a queue somebody waits for."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._until: dict[int, float] = {}
        """Queue -> until when its changes are wanted."""
        self._listeners: dict[Node, _Listener] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._heard: dict[str, list[Callable[[bytes], None]]] = {}
        self.registry_changed = threading.Event()

    def attend(self, number: int) -> None:
        """Changes of this queue are wanted. On an event loop; cheap where they are already."""
        now = time.monotonic()
        if self._until.get(number, 0.0) - now > ATTENDED / 2:
            return
        self._until[number] = now + ATTENDED
        self._link.send_quietly("attend", number, [round(ATTENDED * 1000)])
        self.listen(number)

    def listen(self, number: int) -> None:
        """Hear what is told of a queue, or of the registry."""
        with contextlib.suppress(Exception):  # no master: the next wish finds one
            node = self._link.topology.node(self._link.key_of(number)[0].encode())
            with self._lock:
                if self._closed:
                    return
                listener = self._listeners.get(node)
                if listener is None or not listener.is_alive():
                    wanted = listener.wanted if listener is not None else set()
                    listener = self._listeners[node] = _Listener(self, self._link, node, wanted)
                    listener.start()
                listener.wanted.add(number)

    def is_wanted(self, number: int) -> bool:
        return number in (REGISTRY, TOLD) or self._until.get(number, 0.0) > time.monotonic()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            listeners = list(self._listeners.values())
        for listener in listeners:
            listener.stopping = True
        for listener in listeners:
            listener.join()

    def heard(self, number: int, data: bytes) -> None:
        """A notification."""
        if number == REGISTRY:
            self.registry_changed.set()
            return
        if number == TOLD:
            self._told(data)
            return
        server, _, ready, ended, died = decode(data)
        if server != self._link.server:
            self._tell(number, ready, _numbers(number, ended), _numbers(number, died))

    def look(self, numbers: Sequence[int]) -> None:
        """Something may have been missed: tell how many messages are ready."""
        for number in numbers:
            if number == REGISTRY:
                self.registry_changed.set()
            elif number > 0 and self._link.loop is not None and not self._link.loop.is_closed():
                tell = partial(self._tell, number)
                call = Call(self._link.loop.create_future(), "ready", number, [], tell)
                call.future.add_done_callback(lambda future: future.cancelled() or future.exception())
                self._link.submit_quietly(call)

    def _tell(self, number: int, ready: int, ended: Sequence[int] = (), died: Sequence[int] = ()) -> None:
        name, loop = self._link.memory.names.get(number), self._link.loop
        if name is not None and loop is not None and (ready or ended or died):
            self._link.answers.tell(loop, _elsewhere(name, ready, ended, died))

    def _told(self, data: bytes) -> None:
        server, topic, payload = data.split(b" ", 2)
        loop = self._link.loop
        if server.decode() == self._link.server or loop is None or loop.is_closed():
            return
        for listener in self._heard.get(topic.decode(), ()):
            with contextlib.suppress(RuntimeError):  # it was closed at this moment
                loop.call_soon_threadsafe(listener, payload)

    def hear(self, topic: str, listener: Callable[[bytes], None]) -> None:
        """Call `listener` on the event loop with what others tell of a topic."""
        self._heard.setdefault(topic, []).append(listener)
        self.listen(TOLD)


def _elsewhere(name: str, ready: int, ended: Sequence[int], died: Sequence[int]) -> Changes:
    return Changes({name: ready} if ready else {}, ended, died, None, elsewhere=True)


class _Listener(threading.Thread):
    """Listens on one server."""

    def __init__(self, news: News, link: Link, node: Node, wanted: set[int]) -> None:
        super().__init__(name=f"windlass-news-{node.name}", daemon=True)
        self._news = news
        self._link = link
        self._node = node
        self.wanted = wanted
        self.stopping = False
        self._channels: dict[bytes, int] = {}

    def run(self) -> None:
        while not self.stopping and self._node in self._link.topology.nodes():
            subscription = self._node.client.pubsub()  # type: ignore[no-untyped-call]
            try:
                self._channels.clear()
                self._listen(subscription)
            except (redis.RedisError, OSError) as error:
                log.debug("news_broke", server=self._node.name, error=str(error))
                self._hand_over(error)
                time.sleep(_TURN)
            finally:
                with contextlib.suppress(redis.RedisError, OSError):
                    subscription.close()
        for number in self.wanted if not self.stopping else ():
            if self._news.is_wanted(number):
                self._news.listen(number)  # whoever is master now

    def _hand_over(self, error: Exception) -> None:
        """What another master serves by now is heard there."""
        with contextlib.suppress(Exception):  # no master: the next try finds one
            if isinstance(error, MovedError):
                self._link.topology.refresh(error)
            for number in self.wanted.copy():
                if self._link.topology.node(self._link.key_of(number)[0].encode()) is not self._node:
                    self.wanted.discard(number)
                    self._news.listen(number)

    def _listen(self, subscription: Any) -> None:
        silent_since = time.monotonic()
        asked = False
        while not self.stopping and self._node in self._link.topology.nodes():
            self._follow(subscription)
            if not self._channels:
                time.sleep(_TURN)
                continue
            message = subscription.get_message(timeout=_TURN)
            now = time.monotonic()
            if message is None:
                if asked and now - silent_since > 2 * _ALIVE:
                    raise redis.ConnectionError("no answer to a PING")
                if not asked and now - silent_since > _ALIVE:
                    subscription.ping()
                    asked = True
                continue
            silent_since, asked = now, False
            number = self._channels.get(message["channel"])
            if number is None:
                continue  # it was on its way when its channel was let go of
            if message["type"] == "smessage":
                self._news.heard(number, message["data"])
            elif message["type"] == "ssubscribe":
                self._news.look([number])
            elif message["type"] == "sunsubscribe":
                raise redis.ConnectionError("its slot is another master's")

    def _follow(self, subscription: Any) -> None:
        """Subscribe to what is wanted, and to nothing else."""
        numbers = set(self._channels.values())
        new = {
            self._link.channel_of(number).encode(): number
            for number in self.wanted.copy()
            if number not in numbers and self._news.is_wanted(number)
        }
        for channel, number in new.items():  # one by one: in a Cluster each has a slot of its own
            self._channels[channel] = number
            subscription.ssubscribe(channel)
        over = [channel for channel, number in self._channels.items() if not self._news.is_wanted(number)]
        for channel in over:
            self.wanted.discard(self._channels.pop(channel))
            subscription.sunsubscribe(channel)


def _numbers(queue: int, members: Sequence[Any]) -> list[int]:
    return [number_of(queue, str(member).encode()) for member in members]
