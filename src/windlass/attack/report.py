"""What an attack found: what was sent, who answered, and what it cost the database."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

Kind = Literal["real", "missing", "crafted"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Ids that exist; made up ones; and ones made to pass a filter whose hash has no key (crafting.py)."""


@dataclass
class Tally:
    """The look-ups of one kind that were answered."""

    sources: Counter[str] = field(default_factory=Counter)
    """By who knew: bloom_filter, negative_cache, cache, database."""
    failures: Counter[str] = field(default_factory=Counter)
    """Answers that are neither 200 nor 404, by what they say."""
    seconds: array[float] = field(default_factory=lambda: array("f"))
    """From sending to the whole answer, each."""

    def milliseconds(self, share: float) -> float | None:
        """What this share of the answers (0 to 1) took at most; None where there were none."""
        ordered = sorted(self.seconds)
        return 1e3 * ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


class Sample(NamedTuple):
    """A look at the counts, all of them since the beginning."""

    at: float
    """Seconds since the beginning."""
    requests: int
    """Look-ups, by the server's count."""
    roundtrips: int
    """Of the database, by the server's count."""
    without_key: int
    """Crafted ids, each counted once, that the filter stopped: one without a key would have let them pass."""


class Rates(NamedTuple):
    """Round trips of the database a second, between two looks; `at` is in the middle."""

    at: float
    guarded: float
    """As they were."""
    without_key: float
    """As they would have been behind a filter without a key: computed."""
    unguarded: float
    """As they would have been with nothing in front, one for each look-up: computed."""


@dataclass
class Report:
    """What came of it. `samples` has at least the one from before and the one from after."""

    samples: list[Sample] = field(default_factory=list)
    kinds: Mapping[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})
    denied: set[str] = field(default_factory=set)
    """Ids that were said to be real and got a 404."""

    @property
    def seconds(self) -> float:
        return self.samples[-1].at

    @property
    def sent(self) -> int:
        return sum(len(tally.seconds) for tally in self.kinds.values())

    @property
    def requests(self) -> int:
        return self.samples[-1].requests - self.samples[0].requests

    @property
    def roundtrips(self) -> int:
        return self.samples[-1].roundtrips - self.samples[0].roundtrips

    @property
    def without_key(self) -> int:
        return self.roundtrips + self.samples[-1].without_key

    @property
    def reduction(self) -> float:
        """The share of the look-ups that cost no round trip, 0 to 1."""
        return 1 - self.roundtrips / self.requests if self.requests else 0.0

    def rates(self) -> Iterator[Rates]:
        for before, after in pairwise(self.samples):
            seconds = after.at - before.at
            roundtrips = after.roundtrips - before.roundtrips
            without_key = roundtrips + after.without_key - before.without_key
            requests = after.requests - before.requests
            yield Rates(
                (before.at + after.at) / 2, roundtrips / seconds, without_key / seconds, requests / seconds
            )

    def as_json(self) -> dict[str, object]:
        return {
            "seconds": round(self.seconds, 3),
            "sent": self.sent,
            "requests": self.requests,
            "database_roundtrips": self.roundtrips,
            "database_roundtrips_saved": self.requests - self.roundtrips,
            "roundtrip_reduction": self.reduction,
            "computed": {"without_key": self.without_key, "unguarded": self.requests},
            "kinds": {
                kind: {
                    "requests": len(tally.seconds),
                    "sources": dict(tally.sources),
                    "failures": dict(tally.failures),
                    "p50_ms": tally.milliseconds(0.5),
                    "p99_ms": tally.milliseconds(0.99),
                }
                for kind, tally in self.kinds.items()
            },
            "denied": sorted(self.denied),
            "rates": [rates._asdict() for rates in self.rates()],
        }
