"""What the server promised, and whether it kept it.

The storm writes down every request and every answer with its time; the ledger says what is wrong. It does no
I/O and reads no clock, so its own tests can plant every kind of broken promise.

Times are seconds of the storm's monotonic clock. A server did what it answered at some moment between the
request's beginning and its answer's end, so a promise counts as broken only if it is broken whichever
moments those were: the ledger never accuses an innocent server, and under load it catches a guilty one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf

from windlass.torture.records import Delivery, Kind, Message, Received, Send, Take, Violation

EVIDENCE = 5  # messages named for each kind of violation; the rest are counted


class Ledger:
    """All sends, receives and acknowledgements of one storm.

    `tolerance` (seconds) is what a lease may be shorter than promised, for rounding to milliseconds. With
    `whole_groups` several messages of a group may be leased in one answer, where they stand together.
    """

    def __init__(self, tolerance: float = 0.05, *, whole_groups: bool = False) -> None:
        self.tolerance = tolerance
        self._whole_groups = whole_groups
        self.violations: list[Violation] = []
        self.messages: dict[str, Message] = {}
        self.sends: list[Send] = []
        self.takes: list[Take] = []
        self.vanished = 0  # messages taken by plain receives without an answer; known after the verdict
        self._waiting: dict[str, int] = defaultdict(int)
        self._groups: dict[tuple[str, str], list[Message]] = defaultdict(list)
        self._counts: dict[tuple[Kind, str], int] = defaultdict(int)

    # -- sending

    def send(self, queue: str, tokens: Sequence[str], now: float, group: str = "") -> Send:
        """A send begins; until it is said to be stored or refused, all of it or nothing may be there."""
        send = Send(queue, tuple(tokens), now, group)
        self.sends.append(send)
        for token in tokens:
            self.messages[token] = Message(token, send)
            if group:
                self._groups[queue, group].append(self.messages[token])
        return send

    def stored(self, send: Send, ids: Sequence[str], now: float) -> None:
        """The send was answered 201 with these ids, one for each message in order."""
        send.stored, send.ended = True, now
        self._waiting[send.queue] += len(send.tokens)
        if len(ids) != len(send.tokens):
            self._accuse(Kind.FAILED, send.queue, f"{len(send.tokens)} sent, {len(ids)} ids answered")
        for token, identity in zip(send.tokens, ids, strict=False):
            self._identify(self.messages[token], identity)

    def refused(self, send: Send, now: float) -> None:
        """The send was answered 4xx: it must not have been stored."""
        send.refused, send.ended = True, now
        for token in send.tokens:
            if self.messages[token].deliveries:
                self._accuse(Kind.INVENTED, send.queue, f"{token} was refused, and had been received")

    def given_up(self, send: Send, now: float) -> None:
        """The answer is lost and will not be asked for again; the server that took it is dead."""
        send.ended = now

    # -- receiving

    def take(self, queue: str, limit: int, lease: float | None, now: float) -> Take:
        take = Take(queue, limit, lease, now)
        self.takes.append(take)
        return take

    def unanswered(self, take: Take, now: float) -> None:
        """The server was killed while this request was under way."""
        take.unanswered, take.ended = True, now

    def answered(self, take: Take, received: Sequence[Received], now: float) -> list[Delivery]:
        """The receive was answered with these messages; returns a delivery for each that was ever sent."""
        take.ended = now
        if len(received) > take.limit:
            self._accuse(Kind.FAILED, take.queue, f"{len(received)} messages for max={take.limit}")
        if any(each.deliveries < 1 for each in received):
            self._accuse(Kind.FAILED, take.queue, "a message whose deliveries are not counted from 1")
        deliveries = []
        for each in received:
            message = self.messages.get(each.token)
            if message is None or message.send.queue != take.queue or message.send.refused:
                why = "never sent" if message is None else f"sent to {message.send.queue}, or refused"
                self._accuse(Kind.INVENTED, take.queue, f"{each.token} received, {why}")
                continue
            lease = 0.0 if take.lease is None else take.lease
            delivery = Delivery(each.token, each.id, each.deliveries, each.receipt, take, take.began + lease)
            self._identify(message, each.id)
            self._waiting[take.queue] -= not message.deliveries
            for other in message.deliveries:
                self._compare(other, delivery)
            if message.send.group:
                self._check_group(message, take)
            message.deliveries.append(delivery)
            deliveries.append(delivery)
        self._check_answer(deliveries)
        return deliveries

    # -- leases

    def extended(self, delivery: Delivery, began: float, lease: float) -> None:
        """An extension that began at `began` was answered 200: `lease` seconds counted from then."""
        delivery.held_until = began + lease

    def giving_back(self, delivery: Delivery, now: float) -> None:
        """From now on the message may be given to another."""
        delivery.held_until = min(delivery.held_until, now)

    def acknowledging(self, delivery: Delivery) -> None:
        """An acknowledgement is about to be sent: the message may be gone whether it is answered or not."""
        delivery.attempts += 1

    def acknowledged(self, delivery: Delivery, now: float) -> None:
        """It was answered 204: this delivery was the last."""
        delivery.acknowledged = min(delivery.acknowledged, now)
        for other in self.messages[delivery.token].deliveries:
            if other.number > delivery.number:
                evidence = f"{delivery.token}: delivery {delivery.number} was acknowledged"
                self._accuse(Kind.UNFENCED, delivery.take.queue, f"{evidence} after delivery {other.number}")

    def gone(self, delivery: Delivery, now: float) -> None:
        """It was answered 410: somebody has consumed the message, and nobody gets it again."""
        delivery.acknowledged = min(delivery.acknowledged, now)
        if sum(each.attempts for each in self.messages[delivery.token].deliveries) < 2:
            evidence = f"{delivery.token}: gone, and nobody had acknowledged it"
            self._accuse(Kind.LOST, delivery.take.queue, evidence)

    def stale(self, delivery: Delivery, now: float) -> None:
        """It was answered 409: the message lives on under another delivery, so this one consumed nothing."""
        if delivery.acknowledged < inf:
            evidence = f"{delivery.token}: acknowledged, and stale when acknowledged again"
            self._accuse(Kind.RESURRECTED, delivery.take.queue, evidence)
        elif now < delivery.held_until - self.tolerance:
            self._accuse(Kind.UNFENCED, delivery.take.queue, f"{delivery.token}: stale inside its lease")
        delivery.attempts = 0

    def deleted(self, delivery: Delivery, now: float) -> None:
        """It was answered as SQS does, in the same words whatever became of it.

        While the lease is certainly running that is a promise, and else it is none. Where another delivery
        has followed, this one can have consumed nothing.
        """
        deliveries = self.messages[delivery.token].deliveries
        if now < delivery.held_until - self.tolerance:
            self.acknowledged(delivery, now)
        elif any(each.number > delivery.number for each in deliveries):
            delivery.attempts = 0

    def not_held(self, delivery: Delivery, now: float) -> None:
        """A change of its lease was refused: the message lives on, and this delivery has it no more."""
        if now < delivery.held_until - self.tolerance:
            evidence = f"{delivery.token}: not held inside its lease"
            self._accuse(Kind.UNFENCED, delivery.take.queue, evidence)

    def not_there(self, delivery: Delivery) -> None:
        """A change of its lease was refused: the message is gone. An earlier delivery cannot have done it."""
        deliveries = self.messages[delivery.token].deliveries
        if not any(each.attempts for each in deliveries if each.number >= delivery.number):
            evidence = f"{delivery.token}: gone, and nobody had acknowledged delivery {delivery.number}"
            self._accuse(Kind.LOST, delivery.take.queue, f"{evidence} or a later one")

    def failed(self, queue: str, evidence: str) -> None:
        """Something no client has earned: a 5xx, a connection dropped by a living server."""
        self._accuse(Kind.FAILED, queue, evidence)

    # -- the end

    def waiting(self, queue: str) -> int:
        """How many stored messages nobody has received yet: senders wait when they are too many."""
        return self._waiting[queue]

    def verdict(self) -> list[Violation]:
        """All violations. Call it once, when every queue has been drained and answers empty."""
        for queue in sorted({send.queue for send in self.sends}):
            messages = list(self._of(queue))
            self._check_losses(queue, messages)
            # A message given out again, or held up by its group, may leave later than younger ones.
            ungrouped = (each for each in messages if not each.send.group)
            first = {d.token: d for each in ungrouped for d in each.deliveries if d.number == 1}
            self._check_order(queue, messages, first)
            self._check_batches(queue, first)
        for (kind, queue), count in self._counts.items():
            if count > EVIDENCE:
                self.violations.append(Violation(kind, queue, f"and {count - EVIDENCE} more"))
        return self.violations

    # -- the checks

    def _of(self, queue: str) -> Iterator[Message]:
        return (each for each in self.messages.values() if each.send.queue == queue)

    def _accuse(self, kind: Kind, queue: str, evidence: str) -> None:
        self._counts[kind, queue] += 1
        if self._counts[kind, queue] <= EVIDENCE:
            self.violations.append(Violation(kind, queue, evidence))

    def _identify(self, message: Message, identity: str) -> None:
        if message.id and message.id != identity:
            evidence = f"{message.token} has the ids {message.id} and {identity}"
            self._accuse(Kind.DUPLICATED, message.send.queue, evidence)
        message.id = message.id or identity

    def _compare(self, old: Delivery, new: Delivery) -> None:
        """Two deliveries of one message, in the order their answers came."""
        queue, token = new.take.queue, new.token
        if old.take.lease is None or new.take.lease is None:
            self._accuse(Kind.DUPLICATED, queue, f"{token} was given to two plain receives")
            return
        if old.number == new.number:
            self._accuse(Kind.SHARED, queue, f"{token}: two deliveries with the number {new.number}")
            return
        first, second = (old, new) if old.number < new.number else (new, old)
        if first.acknowledged < inf or new.take.began > old.acknowledged:
            self._accuse(
                Kind.RESURRECTED,
                queue,
                f"{token}: acknowledged, then delivery {second.number} was handed out",
            )
        elif second.take.ended < first.held_until - self.tolerance:
            left = first.held_until - second.take.ended
            self._accuse(Kind.SHARED, queue, f"{token}: handed out again {left:.3f} s before its lease ends")

    def _check_group(self, message: Message, take: Take) -> None:
        """Nothing of a group leaves before an older one, or while that may still be acknowledged."""
        group = self._groups[message.send.queue, message.send.group]
        while group and any(each.acknowledged < inf for each in group[0].deliveries):
            group.pop(0)
        for other in group:
            if other is message:
                break
            older = other.send is message.send or other.send.ended < message.send.began
            there = other.send.stored or other.deliveries
            together = self._whole_groups and any(each.take is take for each in other.deliveries)
            if older and there and not other.consumed and not together:
                evidence = f"{message.token} left while {other.token}, older in its group, was there"
                self._accuse(Kind.REORDERED, message.send.queue, evidence)
                break

    def _check_answer(self, deliveries: Sequence[Delivery]) -> None:
        """Inside one answer the older message comes first, and a batch stays together in its order."""
        sends = [self.messages[each.token].send for each in deliveries]
        oldest: dict[str, float] = {}  # the earliest end of a send that stands further back
        for send, delivery in zip(reversed(sends), reversed(deliveries), strict=True):
            among = send.group if self._whole_groups else ""
            if oldest.get(among, inf) < send.began:
                evidence = f"{delivery.token} stands before an older one in an answer"
                self._accuse(Kind.REORDERED, send.queue, evidence)
            oldest[among] = min(oldest.get(among, inf), send.ended)
        places: dict[Send, tuple[int, int]] = {}  # where its last message stood, and which one it was
        for at, (send, delivery) in enumerate(zip(sends, deliveries, strict=True)):
            index = send.tokens.index(delivery.token)
            before, previous = places.get(send, (at - 1, -1))
            if before != at - 1:
                evidence = f"{delivery.token} stands apart from its batch in an answer"
                self._accuse(Kind.SPLIT, send.queue, evidence)
            if index < previous:
                evidence = f"{delivery.token} stands after a later one of its batch in an answer"
                self._accuse(Kind.REORDERED, send.queue, evidence)
            places[send] = at, index

    def _check_losses(self, queue: str, messages: Iterable[Message]) -> None:
        """Every message of a send that was acknowledged, or seen in part, is accounted for."""
        seen = {each.send for each in messages if each.deliveries}
        missing = [each for each in messages if (each.send.stored or each.send in seen) and not each.consumed]
        # A plain receive that a kill left unanswered may have taken messages with it, but only such as
        # were sent before the kill: going back in time, what is missing never exceeds what was at stake.
        allowed = sorted(
            ((take.ended, take.limit) for take in self.takes
             if take.queue == queue and take.unanswered and take.lease is None), reverse=True
        )  # fmt: skip
        budget, at = 0, 0
        for message in sorted(missing, key=lambda each: -each.send.began):
            while at < len(allowed) and allowed[at][0] >= message.send.began:
                budget, at = budget + allowed[at][1], at + 1
            budget -= 1
            if budget >= 0:
                self.vanished += 1
                continue
            where = f"{message.token} ({message.id or 'no id'}), last sent at {message.send.ended:.3f} s"
            if not message.send.stored:
                self._accuse(Kind.SPLIT, queue, f"{where}: the rest of its batch is there")
            elif message.deliveries:
                self._accuse(Kind.LOST, queue, f"{where}: received, never acknowledged, and not there again")
            else:
                self._accuse(Kind.LOST, queue, f"{where}: acknowledged by 201, and never received")

    def _check_order(self, queue: str, messages: Sequence[Message], first: dict[str, Delivery]) -> None:
        """If a send was answered before another began, its messages left first; likewise inside a batch."""
        taken = sorted((each for each in messages if each.token in first), key=lambda each: each.send.began)
        # For each place in that order, the earliest answer that gave out a message sent from there on.
        answers = [first[each.token].take.ended for each in taken]
        earliest = [*accumulate(reversed(answers), min)][::-1]
        began = [each.send.began for each in taken]
        for message in taken:
            younger = bisect_right(began, message.send.ended)
            left = first[message.token].take
            if younger < len(taken) and earliest[younger] < left.began:
                evidence = f"{message.token} was asked for at {left.began:.3f} s, when a younger one had left"
                self._accuse(Kind.REORDERED, queue, evidence)

    def _check_batches(self, queue: str, first: dict[str, Delivery]) -> None:
        """A batch leaves in its own order, and nothing leaves between its messages."""
        strangers = sorted(((each.take.began, each.take.ended, token) for token, each in first.items()))
        starts = [began for began, _, _ in strangers]
        for send in self.sends:
            if send.queue != queue or len(send.tokens) < 2:
                continue
            left = [first[token] for token in send.tokens if token in first]
            earliest = inf
            for delivery in reversed(left):
                if earliest < delivery.take.began:
                    evidence = f"{delivery.token} left after a later one of its batch"
                    self._accuse(Kind.REORDERED, queue, evidence)
                earliest = min(earliest, delivery.take.ended)
            if not left:
                continue
            opened = min(each.take.ended for each in left)
            closed = max(each.take.began for each in left)
            for at in range(bisect_left(starts, opened), bisect_right(starts, closed)):
                began, ended, token = strangers[at]
                if opened < began and ended < closed and self.messages[token].send is not send:
                    self._accuse(
                        Kind.SPLIT, queue, f"{token} left in the middle of the batch of {send.tokens[0]}"
                    )
