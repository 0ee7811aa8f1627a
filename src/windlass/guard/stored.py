"""The stored form of a Bloom filter: sectors that a caller can write one by one.

    sector 0    header: magic, version, k, layers, n, p, m, items, id of the secret, id of the filter, the
                length of the mark, the mark; CRC-32
    sector 1..  508 bytes of bits and their CRC-32, layer after layer

n, p, m and k are those of the first layer; all others follow from them. A sector's checksum begins with the
filter's identity and the sector's number, so a sector of another filter or of another place does not pass.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import NamedTuple

from windlass.errors import FilterStateRefused

SECTOR = 512
_DATA = SECTOR - 4
SECTOR_BITS = 8 * _DATA
_SECTOR = Struct(f">{_DATA}sI")
_HEADER = Struct(">8sHHIQdQQ8s8sH")
MAX_MARK = _DATA - _HEADER.size
"""Bytes that a caller may have kept with a filter."""
_MAGIC = b"WL-BLOOM"
_VERSION = 1


class Header(NamedTuple):
    """What a filter is: k, layers, n, p, m, items, whose secret, which one, and its keeper's mark."""

    hashes: int
    layers: int
    expected_items: int
    rate: float
    size: int
    items: int
    key_id: bytes
    filter_id: bytes
    mark: bytes

    def pack(self) -> bytes:
        """The first sector."""
        *fixed, mark = self
        data = (_HEADER.pack(_MAGIC, _VERSION, *fixed, len(mark)) + mark).ljust(_DATA, b"\0")
        return _SECTOR.pack(data, zlib.crc32(data))

    def seed(self) -> int:
        """Where the checksums of its sectors begin; see `pack`."""
        return zlib.crc32(self.filter_id + self.key_id)


def read_header(state: bytes, key_id: bytes) -> Header:
    """The header of a stored form, as it was written by this version under this secret.

    Raises FilterStateRefused. Whether its numbers make sense is not looked at.
    """
    if len(state) < SECTOR:
        raise FilterStateRefused(f"It is cut off: {len(state)} bytes.")
    data, checksum = _SECTOR.unpack_from(state)
    magic, version, *fields = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise FilterStateRefused("It is no filter of Windlass.")
    if version != _VERSION:
        raise FilterStateRefused(f"It has the form {version}, and this Windlass reads {_VERSION}.")
    if zlib.crc32(data) != checksum:
        raise FilterStateRefused("It is damaged: the header's checksum does not agree.")
    *fixed, length = fields
    header = Header._make([*fixed, data[_HEADER.size : _HEADER.size + length]])
    if header.key_id != key_id:
        raise FilterStateRefused("It was written under another secret.")
    return header


def sector_count(bits: int) -> int:
    """Sectors that hold so many bits."""
    return -(-bits // SECTOR_BITS)


def pack(bits: memoryview, numbers: Iterable[int], seed: int) -> Iterator[bytes]:
    """These sectors of a layer's bits. `seed` is the filter's, and the number of the layer's first sector."""
    for number in numbers:
        piece = bytes(bits[_DATA * number : _DATA * (number + 1)])
        yield _SECTOR.pack(piece, _checksum(piece, seed + number))


def unpack(sectors: memoryview, seed: int) -> bytes:
    """The bits of all sectors of a layer. Raises FilterStateRefused."""
    pieces = []
    for number, (piece, checksum) in enumerate(_SECTOR.iter_unpack(sectors)):
        if _checksum(piece, seed + number) != checksum:
            raise FilterStateRefused("It is damaged: a sector's checksum does not agree.")
        pieces.append(piece)
    return b"".join(pieces)


def _checksum(piece: bytes, seed: int) -> int:
    return zlib.crc32(piece, seed & 0xFFFFFFFF)
