"""The queue store: the whole of what Windlass asks of an engine.

Every verb is one atomic step, on disk when its awaitable is done, and takes as many messages as the
caller has. The store knows nothing of HTTP, of waiting or of who is allowed what; it knows order, leases,
groups, dedup, dead letters and time. Times are in milliseconds, messages go by number (`windlass.message`).

The states of a message:

                     send with delay
      send               |
        |                v        delay over
        |            [delayed] ------------------+
        |                ^                       |
        v                | release with delay    v
     [ready] --- receive with a lease ---> [leased] --- acknowledge ---> (acknowledged)
      |  ^ ^                                 |  |
      |  | +------ release, lease over ------+  |
      |  |                                      +--- the last delivery failed ---> [dead], or the
      |  +---------------- redrive ------------------------------------------------ dead-letter queue
      |
      +--- receive without a lease ---> (received)

A message of a group waits as [blocked] while an older one of its group lives, unless both are leased
together. cancel, ttl, retention, purge and the deletion of its queue end a message too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from windlass.clock import Clock
from windlass.message import (
    Acknowledgement,
    End,
    Extension,
    Held,
    Life,
    Message,
    Once,
    Options,
    QueueInfo,
    QueueSettings,
    Sent,
    Settled,
    State,
)


class Caller(Protocol):
    """Who waits for a receive. The store asks just before it commits."""

    @property
    def disconnected(self) -> bool:
        """True once the caller is known to be gone: then nothing may be taken for it."""
        ...


class Changes(msgspec.Struct, frozen=True, gc=False):
    """What one commit brought, for those who wait."""

    ready: Mapping[str, int]
    """Queue name -> how many of its messages became ready."""
    ended: Sequence[int]
    """Numbers of messages that ended."""
    died: Sequence[int]
    """Numbers of messages that are dead, or dead letters, from now on."""
    due: int | None
    """When the next lease, delay or ttl runs out (ms), None: never."""
    registry: bool = False
    """Queues, keys or runners are others from now on: another server changed them."""
    elsewhere: bool = False
    """Another server made this commit: what follows from it is that server's to do."""


class Key(msgspec.Struct, frozen=True):
    """An API key as the store keeps it: the secret's SHA-256, never the secret."""

    id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    created_at: int


class Runner(msgspec.Struct, frozen=True):
    """A runner as the store keeps it: its token's SHA-256, never the token. Times in ms since the epoch."""

    number: int
    name: str
    digest: bytes
    labels: tuple[str, ...]
    features: tuple[str, ...]
    created_at: int
    seen_at: int


class Store(ABC):
    """Queues, durable and leased. All verbs may raise StoreUnavailable; then nothing was done."""

    secret: bytes
    """The installation's secret, 32 bytes, under which ids are signed."""

    calls: dict[str, int]
    """How often each verb was called since the start."""

    kind = ""
    """The engine's name, for people."""

    shared = False
    """Whether other servers may have it open too: then what is in memory here may be behind."""

    spread = False
    """Whether its queues may lie on several servers: then a message's number carries its queue
    (ids.PLACE_BITS)."""

    clock: Clock
    """What time it is for the store: leases and delays end by it."""

    # --- queues -----------------------------------------------------------------------------------

    @abstractmethod
    async def create_queue(self, name: str, settings: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        """Create a queue; True if it is new. An existing one is left as it is.

        Only the settings named are compared with an existing queue's. Raises QueueExists where one
        differs, Invalid for a dead letter that is not there.
        """

    @abstractmethod
    async def update_queue(
        self,
        name: str,
        settings: Mapping[str, Any],
        paused: bool | None = None,
        *,
        was: QueueSettings | None = None,
    ) -> QueueInfo:
        """Change settings, or pause and resume; with `was` only where all settings are those still.

        Raises QueueNotFound, Invalid; Conflict where somebody else has changed them.
        """

    @abstractmethod
    async def delete_queue(self, name: str) -> None:
        """Delete a queue and all in it. Raises QueueNotFound, QueueInUse."""

    @abstractmethod
    async def queues(self, prefix: str = "", after: str = "", limit: int = 100) -> list[QueueInfo]:
        """Queues by name, after `after`, with committed counts."""

    @abstractmethod
    async def queue(self, name: str) -> QueueInfo:
        """One queue with its committed counts. Raises QueueNotFound."""

    @abstractmethod
    def queue_number(self, name: str) -> int:
        """The queue's number, as ids carry it, from memory: see `learn`. Raises QueueNotFound."""

    @abstractmethod
    def has_queue_number(self, number: int) -> bool:
        """True while a queue of this number lives. From memory."""

    @abstractmethod
    def ready(self, name: str) -> int:
        """How many messages of a queue are ready, as far as is known here: a hint. From memory."""

    @abstractmethod
    async def totals(self) -> tuple[int, list[int]]:
        """How many queues there are, and how many messages in each State."""

    # --- other servers ------------------------------------------------------------------------------

    async def learn(self, queue: str) -> bool:  # noqa: ARG002
        """Look whether another server made a queue that is unknown here; True if it is known now."""
        return False

    async def refresh(self) -> bool:
        """Read anew what memory holds of queues, keys and runners, where others may have changed it.

        True if anything was different. It is called every second, so it costs next to nothing where
        nothing is. When a runner was seen last is not looked at: see `runner`.
        """
        return False

    def attend(self, queue: str) -> None:  # noqa: ARG002
        """From now on listeners hear, for a minute at least, of what other servers change in this queue."""
        return

    async def turn(self, work: str, seconds: float) -> bool:  # noqa: ARG002
        """Whether a piece of work that needs one server only is this one's to do now.

        After a True no other server is told so for `seconds`, even if the work is done or its server gone.
        """
        return True

    def settle(self, name: str, value: str, *, anew: bool = False) -> str:  # noqa: ARG002
        """What all servers go by under a name: the first value that any of them gave, for good, or (`anew`)
        this one from now on. Blocks."""
        return value

    def tell(self, topic: str, payload: bytes) -> None:  # noqa: ARG002
        """Let all other servers know something, soon, at most once. Nothing is kept, and no failure told."""
        return

    def hear(self, topic: str, listener: Callable[[bytes], None]) -> None:  # noqa: ARG002
        """Call `listener` on the event loop with whatever other servers tell of a topic, from now on."""
        return

    # --- messages in ------------------------------------------------------------------------------

    @abstractmethod
    def send(
        self,
        queue: str,
        contents: Sequence[bytes],
        options: Sequence[Options] | None = None,
        once: Once | None = None,
    ) -> Awaitable[Sent]:
        """Put messages at the end of a queue, contiguously, all or none.

        `contents` are JSON texts; `options` is parallel to it, None: all are plain. With `once` the
        same key gives the first call's answer again. Raises QueueNotFound, QueueFull, TooLarge,
        IdempotencyKeyReused, IdempotencyFull.
        """

    # --- messages out -----------------------------------------------------------------------------

    @abstractmethod
    def receive(
        self,
        queue: str,
        limit: int = 1,
        lease: int | None = None,
        holder: str = "",
        caller: Caller | None = None,
        claim: str | None = None,
        *,
        whole_groups: bool = False,
    ) -> Awaitable[list[Message]]:
        """Take up to `limit` ready messages: highest priority first, then lowest number.

        With `lease` (ms; -1: the queue's own) they stay, leased to `holder`; without they are gone.
        With a `claim` besides, the leases are tentative until they are extended: one that runs out
        before does not count, ten times at most. Where `whole_groups` are leased, a message of a group brings
        those along that are blocked behind it alone, in their order, before the next that is ready. Empty
        when nothing is ready, the queue is paused, or the caller is gone. Raises QueueNotFound.
        """

    @abstractmethod
    def acknowledge(
        self, queue: str, acknowledgements: Sequence[Acknowledgement]
    ) -> Awaitable[list[Settled]]:
        """End leased messages, and those that a late one names, each with the outcome it carries.

        Raises QueueNotFound.
        """

    @abstractmethod
    def extend(self, queue: str | None, extensions: Sequence[Extension]) -> Awaitable[list[int | Settled]]:
        """Let leases go on, in one queue or (None) wherever they are: when each ends, STALE or GONE.

        Raises QueueNotFound.
        """

    @abstractmethod
    def release(
        self,
        queue: str,
        number: int,
        delivery: int = 0,
        delay: int = 0,
        *,
        holder: str | None = None,
        reason: str = "",
        counts: bool = True,
        last: bool = False,
    ) -> Awaitable[None]:
        """Give a leased message back, ready after `delay` ms.

        `holder` as of an Acknowledgement. Without `counts` the delivery does not count, ten times at
        most; `last`: it is dead at once. Raises QueueNotFound, ReceiptStale, ReceiptGone.
        """

    @abstractmethod
    async def cancel(
        self, queue: str, number: int, *, leased: bool = False, how: str = "cancelled",
        outcome: bytes | None = None,
    ) -> None:  # fmt: skip
        """End a message; its life calls the end `how`. An `outcome` is kept until `told`.

        Raises QueueNotFound, MessageGone, and MessageLeased unless it may be `leased`.
        """

    @abstractmethod
    async def purge(self, queue: str, *, apart: float = 0) -> int:
        """End every message of a queue at once; returns how many. Raises QueueNotFound, and Conflict where
        the last purge with an `apart` is less than so many seconds ago."""

    @abstractmethod
    async def redrive(self, queue: str, limit: int) -> tuple[int, bool]:
        """Bring up to `limit` dead messages back: (how many, whether that was all).

        Those dead in the queue become ready, those dead-lettered into it go back where they came
        from, and those that its own dead-letter queue holds for it come back. Raises QueueNotFound.
        """

    # --- looking ----------------------------------------------------------------------------------

    @abstractmethod
    async def peek(self, queue: str, limit: int, state: State = State.READY) -> list[Message]:
        """Messages of one state (ready, blocked or dead) in order, without taking them."""

    @abstractmethod
    async def find(self, number: int) -> Life | None:
        """All that is known of a message, None if it has ended and no record is kept."""

    @abstractmethod
    async def held(self, holder: str | None = None) -> list[Held]:
        """All claims there are, or those of one holder; a claim that is over may still be among them.

        Those that are not tentative have a whole lease from the moment at which the store was opened, unless
        it is shared: servers come and go there while the leases run on.
        """

    @abstractmethod
    async def untold(self, limit: int = 100) -> list[End]:
        """Ends that nobody has confirmed, the lowest numbers first."""

    @abstractmethod
    async def told(self, number: int, keep: int) -> None:
        """This end is known where it has to be: forget it `keep` ms from now. Others are passed over."""

    @abstractmethod
    async def oldest(self, queue: str) -> int | None:
        """When the oldest ready message of a queue was enqueued, None if none is ready."""

    @abstractmethod
    async def ping(self) -> None:
        """One empty commit: proves that the store can still write."""

    # --- time and life ----------------------------------------------------------------------------

    @abstractmethod
    async def expire(self) -> int | None:
        """Do a step (at most 5 ms) of what is due: leases, delays, ttls, retention, old records.

        Returns when the next is due (ms since the epoch), None: nothing is. Call again at that time.
        """

    @abstractmethod
    def listen(self, listener: Callable[[Changes], None]) -> None:
        """Call `listener` on the event loop after each commit that brought a change."""

    @abstractmethod
    def durability(self) -> dict[str, Any]:
        """What an acknowledged message `survives`, by misfortune, and why; for people. From memory."""

    @abstractmethod
    def close(self) -> None:
        """Finish what is under way, then refuse everything. Blocks."""

    # --- keys -------------------------------------------------------------------------------------

    @abstractmethod
    async def add_key(self, key: Key) -> None:
        """Remember an API key."""

    @abstractmethod
    async def remove_key(self, key_id: str) -> bool:
        """Forget an API key; False if there was none."""

    @abstractmethod
    def keys(self) -> list[Key]:
        """All API keys, from memory."""

    # --- runners ----------------------------------------------------------------------------------

    @abstractmethod
    async def add_runner(self, runner: Runner) -> Runner:
        """Remember a runner, under the next number."""

    @abstractmethod
    async def seen_runner(self, number: int, at: int) -> None:
        """Note when a runner was last seen."""

    @abstractmethod
    async def remove_runner(self, number: int) -> None:
        """Forget a runner."""

    @abstractmethod
    def runners(self) -> list[Runner]:
        """All runners, from memory."""

    @abstractmethod
    async def runner(self, number: int) -> Runner | None:
        """One runner as it is on record, with when it was last seen; None: there is none."""
