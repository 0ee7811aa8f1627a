"""What the store must do, said as plainly as can be: a list of messages, looked through again and again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from windlass.ids import PLACE_BITS
from windlass.message import Options, QueueSettings, State

EPOCH = 1_600_000_000_000
"""Where the places of a store that is spread begin, ms since 1970."""


@dataclass
class Item:
    """A living message."""

    number: int
    seq: int
    queue: str
    content: bytes
    at: int
    options: Options
    expires: int | None
    state: State = State.READY
    """READY also where it is blocked: whether it is depends on the others."""
    due: int = 0
    token: int = 0
    count: int = 0
    base: int = 0
    origin: str | None = None
    lapsed: bool = False
    home: str = ""


@dataclass
class Model:
    settings: dict[str, QueueSettings]
    now: int
    numbers: dict[str, int] | None = None
    """Numbers of the queues, where each counts places of its own; None: there is one count for all."""
    items: list[Item] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    dedup: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    ended: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """number -> how, delivery, until when it is remembered"""
    seq: int = 0
    last: dict[str, int] = field(default_factory=dict)

    # --- looking ------------------------------------------------------------------------------------

    def living(self, queue: str) -> list[Item]:
        return [item for item in self.items if item.queue == queue]

    def old(self, item: Item) -> bool:
        """Whether its ttl or its queue's retention is over."""
        keep = self.settings[item.queue].retention_seconds
        return (
            item.lapsed
            or (item.expires is not None and item.expires <= self.now)
            or (keep is not None and item.at + keep * 1000 <= self.now)
        )

    def place(self, item: Item) -> State:
        """Where a message is: one of a group is blocked while an older one of it lives in the queue."""
        group = item.options.group
        if item.state is State.READY and group is not None:
            for other in self.living(item.queue):
                same = other.options.group == group and other.state is not State.DEAD
                if same and self.place_in(other) < self.place_in(item):
                    return State.BLOCKED
        return item.state

    def member(self, item: Item) -> str:
        """What a store that is spread calls a message in the queue in which it is; it sorts by that."""
        if self.numbers is None:
            return ""
        home, place = divmod(item.number, 1 << PLACE_BITS)
        return str(place) if home == self.numbers[item.queue] else f"{home}:{place}"

    def place_in(self, item: Item) -> tuple[int, str]:
        return item.seq, self.member(item)

    def order(self, item: Item) -> tuple[int, int, str]:
        return -item.options.priority, *self.place_in(item)

    def at_place(self, queue: str, state: State) -> list[Item]:
        found = [item for item in self.living(queue) if self.place(item) is state]
        return sorted(found, key=self.order)

    def counts(self, queue: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for item in self.living(queue):
            name = self.place(item).name.lower()
            counts[name] = counts.get(name, 0) + 1
        return counts

    # --- what happens -------------------------------------------------------------------------------

    def next_seq(self, queue: str) -> int:
        """The next place: of all, or of this queue, where places rise with time."""
        if self.numbers is None:
            self.seq += 1
            return self.seq
        self.last[queue] = max(self.last.get(queue, 0) + 1, (self.now - EPOCH) * 128)
        return self.last[queue]

    def end(self, item: Item, how: str, *, outcome: bool = False) -> None:
        self.items.remove(item)
        settings = self.settings[item.queue]
        keep = max(settings.history_seconds, settings.outcome_ttl_seconds if outcome else 0)
        if keep:
            token = item.token if how == "acknowledged" else 0
            self.ended[item.number] = (how, token, self.now + round(keep * 1000))

    def known(self, queue: str, dedup_id: str | None) -> int | None:
        number, until = self.dedup.get((queue, dedup_id or ""), (0, 0))
        return number if until > self.now else None

    def room(self, queue: str, options: list[Options]) -> int | None:
        """How many of these are new; None where they have no room."""
        settings = self.settings[queue]
        fresh = [o.dedup_id for o in options if self.known(queue, o.dedup_id) is None]
        new = sum(dedup_id is None for dedup_id in fresh) + len({d for d in fresh if d is not None})
        if settings.max_length is not None and new and len(self.living(queue)) + new > settings.max_length:
            return None
        return new

    def put(self, queue: str, number: int, content: bytes, options: Options) -> None:
        expires = self.now + options.ttl if options.ttl is not None else None
        item = Item(number, self.next_seq(queue), queue, content, self.now, options, expires, home=queue)
        if options.delay:
            item.state, item.due = State.DELAYED, self.now + options.delay
        if options.dedup_id is not None:
            window = round(self.settings[queue].dedup_window_seconds * 1000)
            self.dedup[queue, options.dedup_id] = (number, self.now + window)
        self.items.append(item)

    def receive(self, queue: str, limit: int, lease: int | None, *, whole_groups: bool = False) -> list[Item]:
        taken: list[Item] = []
        while len(taken) < limit and queue not in self.paused:
            ready = [item for item in self.at_place(queue, State.READY) if not self.old(item)]
            if not ready:
                break
            together = ready[:1]
            if whole_groups and lease is not None:
                together += self._followers(ready[0])[: limit - len(taken) - 1]
            for item in together:
                item.count += 1
                if lease is None:
                    self.end(item, "received")
                else:
                    item.token += 1
                    item.state, item.due = State.LEASED, self.now + lease
            taken += together
        return taken

    def _followers(self, head: Item) -> list[Item]:
        """Those of its group that nothing else holds up."""
        group = head.options.group
        others = [each for each in self.living(head.queue) if each.options.group == group is not None]
        behind = sorted(
            (each for each in others if self.place_in(each) > self.place_in(head)), key=self.place_in
        )
        living = (each for each in behind if each.state is not State.DEAD and not self.old(each))
        return list(itertools.takewhile(lambda each: each.state is State.READY, living))

    def holder(self, queue: str, number: int, delivery: int, *, late: bool = False) -> Item | str:
        """The message that this receipt holds, or (`late`) held last; or `gone` or `stale`."""
        item = next((item for item in self.items if item.number == number), None)
        if item is None:
            return "gone"
        held = item.state is State.LEASED and item.due > self.now
        if late and not held:
            self.tick(self.now)  # a lease that ends at this moment may have been the last
            if not any(other is item for other in self.items):
                return "gone"
            held = item.state is not State.DEAD
        return item if held and item.token == delivery and item.queue == queue else "stale"

    def fail(self, item: Item, delay: int = 0) -> None:
        """A delivery is over without an acknowledgement."""
        settings = self.settings[item.queue]
        if self.old(item):
            self.end(item, "expired")
        elif settings.max_deliveries is not None and item.count - item.base >= settings.max_deliveries:
            item.expires = None
            if settings.dead_letter is None:
                item.state = State.DEAD
            else:
                item.state, item.base = State.READY, item.count
                item.origin, item.queue = item.queue, settings.dead_letter
        elif delay:
            item.state, item.due = State.DELAYED, self.now + delay
        else:
            item.state = State.READY

    def tick(self, now: int) -> None:
        """What time brings."""
        self.now = now
        for item in list(self.items):
            if item.state in (State.LEASED, State.DELAYED) and item.due <= now:
                if item.state is State.LEASED:
                    self.fail(item)
                else:
                    item.state = State.READY
        for item in list(self.items):
            if item.expires is not None and item.expires <= now:
                if item.state is State.LEASED:
                    item.lapsed, item.expires = True, None
                else:
                    self.end(item, "expired")
        self.ended = {number: end for number, end in self.ended.items() if end[2] > now}

    def redrive(self, queue: str, limit: int) -> int:
        moved = 0
        while moved < limit:
            bite = self._dead(queue)
            if not bite:
                bite = self._letters(queue, None)
            target = self.settings[queue].dead_letter
            if not bite and target is not None:
                bite = self._letters(target, queue)
            if not bite:
                break
            for item in bite[: limit - moved]:
                item.queue, item.origin = item.origin or item.queue, None
                item.seq, item.at, item.state = self.next_seq(item.queue), self.now, State.READY
                item.count = item.base = 0
                moved += 1
        return moved

    def _dead(self, queue: str) -> list[Item]:
        dead = [item for item in self.living(queue) if item.state is State.DEAD]
        return sorted(dead, key=lambda item: (item.at, self.member(item), item.number))

    def _letters(self, queue: str, origin: str | None) -> list[Item]:
        names = list(self.settings)
        letters = [
            item
            for item in self.at_place(queue, State.READY)
            if item.origin is not None and origin in (None, item.origin)
        ]
        return sorted(letters, key=lambda item: (names.index(item.origin or ""), self.place_in(item)))
