"""Two filters in the place of one, while the second is being filled."""

from __future__ import annotations

from collections.abc import Collection

from windlass.guard.guard import Filter


class Both:
    """Asks the old one, which has every key, and tells both of new ones."""

    def __init__(self, old: Filter, new: Filter) -> None:
        self._old = old
        self._new = new

    def __contains__(self, key: str, /) -> bool:
        return key in self._old

    def add(self, key: str, /) -> object:
        self._new.add(key)
        return self._old.add(key)

    def update(self, keys: Collection[str], /) -> object:
        self._new.update(keys)
        return self._old.update(keys)
