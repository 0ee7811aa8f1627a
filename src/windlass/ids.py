"""Ids and receipts: opaque text that proves itself.

An id carries the queue that the message was sent to, the message's number, and a MAC under the
installation's secret; a receipt carries the number of one delivery besides. What does not verify was
never issued, so a look-up of it ends here and reaches no store.

Layout, big-endian, then base64url: one byte of kind, queue (4), number (7), for a receipt the delivery
(4), then the MAC (12 bytes for an id, 11 for a receipt). Both are multiples of three bytes, so the text
is 32 and 36 characters without padding, and one text means one id.

The MAC of an id is a slice of the output of SHAKE128 (FIPS 202) over the secret, kind, queue and a block of
64 numbers: neighbours share one hash, which makes a batch of ids cheap, and each slice is independent of the
others, as the output of a pseudo-random function is. A receipt has a keyed BLAKE2b (RFC 7693) of its own.

Where queues are spread over servers, a number carries the queue that it was given out in (PLACE_BITS).
An id says that queue once. A receipt of a message that lies in another one says it behind the delivery (4
bytes), and has a MAC of 13: 44 characters.

Clients of SQS know a message by a UUID: queue (4), number (7), and the first 5 bytes of the id's MAC.

What is no message has an id that says what it is: two letters, an underscore, and 24 characters of base64url
for the number (7 bytes) and a keyed BLAKE2b of letters and number (11); or 28, for a number of 10 bytes.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b, shake_128
from hmac import compare_digest

_MESSAGE = 0x98  # base64 of the first byte: an "m"
_RECEIPT = 0xAC  # an "r"
_ID = struct.Struct(">QI")  # kind << 56 | queue << 24 | high bits, low 32 bits of the number
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_+/", b"+/==")  # the standard alphabet's own two letters are refused
_LOW = 0xFFFFFFFF
_MAC = 12
PLACE_BITS = 48
"""Where queues are spread, a number is that of the queue, and behind it so many bits of a place there."""
_PLACE = (1 << PLACE_BITS) - 1

ID_LENGTH = 32
UUID_LENGTH = 36
_SHORT_MAC = 5
RECEIPT_LENGTH = 36
LETTER_RECEIPT_LENGTH = 44

SUBMISSION = "sb"
"""The kind of a submission's id."""


class Ids:
    """Makes and checks ids under one secret (32 bytes)."""

    def __init__(self, secret: bytes, *, spread: bool = False) -> None:
        """`spread`: numbers carry their queue."""
        self._spread = spread

        def block(queue: int, number: int) -> bytes:
            """The MACs of the 64 numbers from `number << 6` on."""
            return shake_128(secret + struct.pack(">BIQ", _MESSAGE, queue, number)).digest(64 * _MAC)

        # Receives and sends walk through neighbouring numbers: a short memory serves both.
        self._block = lru_cache(maxsize=256)(block)
        self._receipt_key = blake2b(b"receipt", key=secret, digest_size=32).digest()
        self._numbered_key = blake2b(b"numbered", key=secret, digest_size=32).digest()

    def message(self, queue: int, number: int) -> bytes:
        """The id of message `number` sent to queue number `queue`: 32 ASCII bytes."""
        if self._spread:
            number &= _PLACE
        raw = _ID.pack(_MESSAGE << 56 | queue << 24 | number >> 32, number & _LOW) + self._mac(queue, number)
        return _text(raw)

    def messages(self, queue: int, numbers: Sequence[int]) -> list[bytes]:
        """The ids of many messages of one queue, at less cost each than one by one."""
        count = len(numbers)
        if self._spread:
            numbers = _places(numbers)
        if isinstance(numbers, range) and numbers.step == 1 and numbers[0] >> 32 == numbers[-1] >> 32:
            # A batch just sent: its numbers are one run, so a handful of C calls makes all ids.
            first, block = numbers[0], self._block
            macs = b"".join([block(queue, n) for n in range(first >> 6, (numbers[-1] >> 6) + 1)])
            fields: list[int | bytes] = [_MESSAGE << 56 | queue << 24 | first >> 32] * (3 * count)
            fields[1::3] = range(first & _LOW, (first & _LOW) + count)
            fields[2::3] = _split(macs, _MAC, first & 63, count)
            raw = _format(">" + "QI12s" * count).pack(*fields)
        else:
            head, pack, mac = _MESSAGE << 56 | queue << 24, _ID.pack, self._mac
            raw = b"".join([pack(head | n >> 32, n & _LOW) + mac(queue, n) for n in numbers])
        return list(_split(binascii.b2a_base64(raw, newline=False).translate(_URLSAFE), ID_LENGTH, 0, count))

    def _mac(self, queue: int, number: int) -> bytes:
        at = (number & 63) * _MAC
        return self._block(queue, number >> 6)[at : at + _MAC]

    def uuid(self, queue: int, number: int) -> str:
        """The same id as a UUID, for clients that insist on one: queue, number, 5 bytes of MAC."""
        if self._spread:
            number &= _PLACE
        text = (queue.to_bytes(4) + number.to_bytes(7) + self._mac(queue, number)[:_SHORT_MAC]).hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def uuids(self, queue: int, numbers: Sequence[int]) -> list[str]:
        """The same of many messages of one queue, at less cost each than one by one."""
        if self._spread:
            numbers = _places(numbers)
        if not (isinstance(numbers, range) and numbers.step == 1 and numbers[0] >> 24 == numbers[-1] >> 24):
            return [self.uuid(queue, number) for number in numbers]
        first, block = numbers[0], self._block
        macs = b"".join([block(queue, n) for n in range(first >> 6, (numbers[-1] >> 6) + 1)]).hex()
        head = self.uuid(queue, first)[:19]  # what all of them begin with
        at, made = 2 * _MAC * (first & 63), []
        for number in numbers:
            low = f"{number & 0xFFFFFF:06x}"
            made.append(f"{head}{low[:4]}-{low[4:]}{macs[at : at + 2 * _SHORT_MAC]}")
            at += 2 * _MAC
        return made

    def _parse_uuid(self, text: str) -> tuple[int, int] | None:
        plain = text.replace("-", "")
        try:
            queue, number = int(plain[:8], 16), int(plain[8:22], 16)
        except ValueError:
            return None
        issued = self.uuid(queue, number)
        if not compare_digest(text.encode("latin-1", "replace"), issued.encode()):
            return None
        return queue, self._number(queue, number)

    def parse_message(self, text: str | bytes) -> tuple[int, int] | None:
        """(queue, number) of an id, or None where it was never issued."""
        if len(text) == UUID_LENGTH:
            return self._parse_uuid(text if isinstance(text, str) else text.decode("latin-1"))
        raw = _raw(text, ID_LENGTH)
        if raw is None or raw[0] != _MESSAGE:
            return None
        head, low = _ID.unpack_from(raw)
        queue, number = head >> 24 & _LOW, (head & 0xFFFFFF) << 32 | low
        if not compare_digest(raw[12:], self._mac(queue, number)):
            return None
        return queue, self._number(queue, number)

    def receipt(self, queue: int, number: int, delivery: int) -> bytes:
        """The receipt of one delivery of a message: 36 ASCII bytes; 44 for a letter of a spread store."""
        if self._spread:
            home, number = number >> PLACE_BITS, number & _PLACE
            if home != queue:
                raw = _receipt(queue, number, delivery) + home.to_bytes(4)
                return _text(raw + self._receipt_mac(raw, 13))
        raw = _receipt(queue, number, delivery)
        return _text(raw + self._receipt_mac(raw, 11))

    def parse_receipt(self, text: str | bytes) -> tuple[int, int, int] | None:
        """(queue, number, delivery) of a receipt, or None where it was never issued."""
        letter = self._spread and len(text) == LETTER_RECEIPT_LENGTH
        raw = _raw(text, LETTER_RECEIPT_LENGTH if letter else RECEIPT_LENGTH)
        if raw is None or raw[0] != _RECEIPT:
            return None
        signed, mac = (raw[:20], raw[20:]) if letter else (raw[:16], raw[16:])
        if not compare_digest(mac, self._receipt_mac(signed, len(mac))):
            return None
        head, low = _ID.unpack_from(raw)
        queue, number = head >> 24 & _LOW, (head & 0xFFFFFF) << 32 | low
        home = int.from_bytes(raw[16:20]) if letter else queue
        return queue, self._number(home, number), int.from_bytes(raw[12:16])

    def _receipt_mac(self, raw: bytes, size: int) -> bytes:
        return blake2b(raw, key=self._receipt_key, digest_size=size).digest()

    def _number(self, queue: int, number: int) -> int:
        return queue << PLACE_BITS | number if self._spread else number

    def sign(self, text: str) -> str:
        """A MAC of a text that this installation gives out, as 32 hexadecimal digits."""
        return blake2b(text.encode(), key=self._numbered_key, digest_size=16).hexdigest()

    def numbered(self, kind: str, number: int) -> str:
        """The id of thing `number` of a kind (two letters, SUBMISSION for one): 27 characters, or 31."""
        raw = number.to_bytes(7 if number < 1 << 56 else 10)
        return f"{kind}_{_text(raw + self._numbered_mac(kind, raw)).decode('ascii')}"

    def parse_numbered(self, kind: str, text: str) -> int | None:
        """The number in an id of this kind, or None where it was never issued."""
        if not text.startswith(f"{kind}_"):
            return None
        width = 7 if len(text) == len(kind) + 25 else 10
        raw = _raw(text[len(kind) + 1 :], (width + 11) * 4 // 3)
        if raw is None or not compare_digest(raw[width:], self._numbered_mac(kind, raw[:width])):
            return None
        return int.from_bytes(raw[:width])

    def _numbered_mac(self, kind: str, number: bytes) -> bytes:
        return blake2b(kind.encode() + number, key=self._numbered_key, digest_size=11).digest()


@lru_cache(maxsize=2048)
def _format(text: str) -> struct.Struct:
    return struct.Struct(text)


def _split(data: bytes, size: int, skip: int, count: int) -> tuple[bytes, ...]:
    """`count` pieces of `size` bytes, after leaving out `skip` pieces."""
    return _format(f"{size}s" * count).unpack_from(data, size * skip)


def _receipt(queue: int, number: int, delivery: int) -> bytes:
    return _ID.pack(_RECEIPT << 56 | queue << 24 | number >> 32, number & _LOW) + delivery.to_bytes(4)


def _text(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False).translate(_URLSAFE)


def _places(numbers: Sequence[int]) -> Sequence[int]:
    """Numbers of one queue without that."""
    if isinstance(numbers, range):
        return range(numbers[0] & _PLACE, (numbers[-1] & _PLACE) + 1)
    return [number & _PLACE for number in numbers]


def _raw(text: str | bytes, length: int) -> bytes | None:
    """The bytes behind `text`, or None where it is not base64url of `length` characters."""
    if len(text) != length:
        return None
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
        return binascii.a2b_base64(data.translate(_STANDARD), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
