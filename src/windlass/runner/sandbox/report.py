"""What the shim tells of a box, line by line."""

from __future__ import annotations


class Report:
    """Everything it has told so far; 0, None or "" stands for what it has not."""

    def __init__(self) -> None:
        self.started_ns = 0
        """When the program started, by CLOCK_MONOTONIC."""
        self.over: tuple[str, int] | None = None
        """How the program ended: "exit" and its status, or "signal" and its number."""
        self.over_ns = 0
        """When it did. What it left behind may still be there."""
        self.buried = False
        """Nobody is left."""
        self.spent_us = 0
        """Processor time of everybody that was waited for."""
        self.largest_kib = 0
        """Memory of the largest of them."""
        self.fetched = False
        self.unfetched = ""
        """Why not."""
        self.fault = ""

    def read(self, line: str) -> str:
        """Take a line in; what kind it is."""
        word, _, rest = line.partition(" ")
        if word == "started":
            self.started_ns = int(rest)
        elif word == "over":
            how, number, moment = rest.split()
            self.over, self.over_ns = (how, int(number)), int(moment)
        elif word == "buried":
            self.spent_us, self.largest_kib = map(int, rest.split())
            self.buried = True
        elif word == "fetched":
            self.fetched = True
        elif word == "unfetched":
            self.unfetched = rest
        elif word == "fault":
            self.fault = self.fault or rest
        return word
