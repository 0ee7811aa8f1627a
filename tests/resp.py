"""Where the frames of Redis' protocol (RESP 2 and 3) end."""

from __future__ import annotations

BULKS = b"$=!"
COUNTED = b"*~>"
PAIRS = b"%|"


class Frames:
    """Cuts a stream, which comes in pieces of any size, into whole commands or replies."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0  # everything before it has been looked at
        self._missing = 1  # values until this frame is whole

    @property
    def rest(self) -> bytes:
        """The beginning of a frame whose end has not come."""
        return bytes(self._data)

    def feed(self, piece: bytes) -> list[bytes]:
        """The frames that end in this piece. ValueError for what is not RESP."""
        self._data += piece
        found = []
        while self._step():
            if not self._missing:
                found.append(bytes(self._data[: self._at]))
                del self._data[: self._at]
                self._at, self._missing = 0, 1
        return found

    def _step(self) -> bool:
        """Pass by one value, or the head of one that holds others; False if it is not all there."""
        line = self._data.find(b"\r\n", self._at)
        if line < 0:
            return False
        kind, end = self._data[self._at], line + 2
        number = int(self._data[self._at + 1 : line]) if kind in BULKS + COUNTED + PAIRS else 0
        if kind in BULKS and number >= 0:
            end += number + 2
            if len(self._data) < end:
                return False
        self._at = end
        self._missing -= kind != ord("|")  # attributes stand before the value that they belong to
        self._missing += max(0, number) * ((kind in COUNTED) + 2 * (kind in PAIRS))
        return True
