"""Ids that pass a filter whose hash has no key: others with the same MurmurHash3 as ids that exist.

Most Bloom filters (those of Guava and Cassandra, say) work out all positions of a key from the two halves of
MurmurHash3 x64 128. Its steps can be undone one by one, so whoever knows an id that exists makes others with
the same hash: after any first block of 16 bytes, there is one second block that leads to it. They pass every
such filter that holds the id, however large it is and whatever its k, and cost some milliseconds a dozen.
Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, section 7, tells of such attacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_MASK = (1 << 64) - 1
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
_ADD1, _ADD2 = 0x52DCE729, 0x38495AB5
_FINAL1, _FINAL2 = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_LENGTH = 32
"""Bytes of a crafted id."""
_BATCH = 1 << 14
_HIGH = np.uint64(0x8080808080808080)


def murmur3(data: bytes) -> tuple[int, int]:
    """The halves of MurmurHash3 x64 128 with the seed 0."""
    h1 = h2 = 0
    for start in range(0, len(data) - 15, 16):
        h1 ^= _mix1(int.from_bytes(data[start : start + 8], "little"))
        h1 = ((_left(h1, 27) + h2) * 5 + _ADD1) & _MASK
        h2 ^= _mix2(int.from_bytes(data[start + 8 : start + 16], "little"))
        h2 = ((_left(h2, 31) + h1) * 5 + _ADD2) & _MASK
    tail = data[len(data) & ~15 :]
    h1 ^= _mix1(int.from_bytes(tail[:8], "little")) ^ len(data)
    h2 ^= _mix2(int.from_bytes(tail[8:], "little")) ^ len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    h1, h2 = _final(h1), _final(h2)
    h1 = (h1 + h2) & _MASK
    return h1, (h2 + h1) & _MASK


def craft(real: Sequence[str], seed: int | None = None) -> Iterator[str]:
    """Ids without end that have the hash of one of `real`, each in its turn: 32 characters of ASCII.

    None of them is NUL or a slash. About one pair of blocks in 65,536 is ASCII alone, so a few thousand come
    a second.
    """
    random = np.random.default_rng(seed)
    targets = [_before_the_end(*murmur3(id_.encode())) for id_ in real]
    turn = 0
    while True:
        first, second = random.integers(0, 1 << 64, (2, _BATCH), np.uint64) & ~_HIGH
        h1 = (_left_each(_mix_each(first, _C1, 31, _C2), 27)) * np.uint64(5) + np.uint64(_ADD1)
        h2 = (_left_each(_mix_each(second, _C2, 33, _C1), 31) + h1) * np.uint64(5) + np.uint64(_ADD2)
        for _ in range(64):
            last1, last2 = targets[turn % len(targets)]
            turn += 1
            fourth = _unmix_each(h2 ^ np.uint64(last2), _C1, 33, _C2)
            found = np.flatnonzero(fourth & _HIGH == 0)
            before1 = _left_each((np.uint64(last1) - h2[found]), 64 - 27) ^ h1[found]
            third = _unmix_each(before1, _C2, 31, _C1)
            kept = np.flatnonzero(third & _HIGH == 0)
            chosen = found[kept]
            for words in zip(first[chosen], second[chosen], third[kept], fourth[chosen], strict=True):
                text = np.array(words, "<u8").tobytes().decode("ascii")
                if "\0" not in text and "/" not in text:
                    yield text


def _before_the_end(h1: int, h2: int) -> tuple[int, int]:
    """What the last block has to leave: (before h2 was added to h1, what its second word was mixed into)."""
    h2 = (h2 - h1) & _MASK
    h1 = (h1 - h2) & _MASK
    h1, h2 = _unfinal(h1), _unfinal(h2)
    h2 = (h2 - h1) & _MASK
    h1 = (h1 - h2) & _MASK
    h1, h2 = h1 ^ _LENGTH, h2 ^ _LENGTH
    fifth = pow(5, -1, 1 << 64)
    h2 = _left((((h2 - _ADD2) * fifth) - h1) & _MASK, 64 - 31)
    return ((h1 - _ADD1) * fifth) & _MASK, h2


def _left(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _mix1(word: int) -> int:
    return _left(word * _C1 & _MASK, 31) * _C2 & _MASK


def _mix2(word: int) -> int:
    return _left(word * _C2 & _MASK, 33) * _C1 & _MASK


def _final(value: int) -> int:
    value = (value ^ value >> 33) * _FINAL1 & _MASK
    value = (value ^ value >> 33) * _FINAL2 & _MASK
    return value ^ value >> 33


def _unfinal(value: int) -> int:
    value = (value ^ value >> 33) * pow(_FINAL2, -1, 1 << 64) & _MASK  # a shift of half is its own inverse
    value = (value ^ value >> 33) * pow(_FINAL1, -1, 1 << 64) & _MASK
    return value ^ value >> 33


def _left_each(words: Words, bits: int) -> Words:
    return words << np.uint64(bits) | words >> np.uint64(64 - bits)


def _mix_each(words: Words, before: int, bits: int, after: int) -> Words:
    return _left_each(words * np.uint64(before), bits) * np.uint64(after)


def _unmix_each(words: Words, after: int, bits: int, before: int) -> Words:
    """The words of which `_mix_each(words, before, bits, after)` makes these."""
    undone = _left_each(words * np.uint64(pow(after, -1, 1 << 64)), 64 - bits)
    return undone * np.uint64(pow(before, -1, 1 << 64))
