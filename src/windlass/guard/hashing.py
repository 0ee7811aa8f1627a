"""Hashes of strings under a secret: the same in every process, and foreseen by nobody without it."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]  # a row of two hashes for each key

two_hashes = Struct("<QQ").unpack
"""The two hashes in a digest."""


def hashes(digests: Iterable[bytes]) -> Hashes:
    """Those of many digests."""
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


class Hasher:
    """Makes digests of 16 bytes: BLAKE2b of a key that is derived from the secret, then the string.

    BLAKE2 is not open to extension, so that is a sound keyed hash, and it takes one block where the keyed
    mode takes two. Strings are UTF-8 with lone surrogates passed through ("surrogatepass"), so different
    strings are different keys.
    """

    __slots__ = ("_keyed", "key_id")

    def __init__(self, secret: bytes) -> None:
        """Raises ValueError for a secret below 16 bytes."""
        if len(secret) < 16:
            raise ValueError("the secret must have at least 16 bytes")
        derived = blake2b(secret, digest_size=40, person=b"windlass.bloom").digest()
        self._keyed = blake2b(derived[:32], digest_size=16)
        self.key_id = derived[32:]
        """Of the secret; it tells nothing about that, or about the key."""

    def digest(self, key: str) -> bytes:
        state = self._keyed.copy()
        try:
            state.update(key.encode())
        except UnicodeEncodeError:
            state.update(key.encode("utf-8", "surrogatepass"))
        return state.digest()

    def digests(self, keys: Iterable[str]) -> list[bytes]:
        try:
            encoded = [key.encode() for key in keys]
        except UnicodeEncodeError:
            encoded = [key.encode("utf-8", "surrogatepass") for key in keys]
        copy, digests = self._keyed.copy, []
        for data in encoded:
            state = copy()
            state.update(data)
            digests.append(state.digest())
        return digests
