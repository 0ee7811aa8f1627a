"""Archives from strangers: a zip of plain files with known names, read without believing what it says."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from windlass.errors import Invalid, TooLarge

_CHUNK = 1024 * 1024
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)
"""What zipfile raises for what is no zip, or a damaged one."""
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """An opened zip whose every member is a file that may be there; use as a context manager.

    Raises Invalid or TooLarge, with `field` as theirs, when it is made and while it is read.
    """

    def __init__(
        self,
        file: IO[bytes] | Path,
        *,
        field: str,
        room: Callable[[str], int],
        room_for_all: int,
        what: str,
        use: str,
    ) -> None:
        """`room(name)`: the bytes that a file of this name may have, unpacked; 0 where it may not be there.
        `what` and `use` are for messages: what the archive is, and which names it may have."""
        self._field = field
        self._room = room
        self._room_for_all = room_for_all
        self._what = what
        self._use = use
        try:
            self._zip = zipfile.ZipFile(file)
        except _BROKEN as error:
            raise Invalid(f"The {what} is no zip: {error}.", field=field) from None
        try:
            self._members = self._checked()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def names(self) -> list[str]:
        """The names of its files, as the archive has them."""
        return list(self._members)

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's bytes; they are counted while they are read, whatever size the archive tells."""
        room = self._room(name)
        try:
            with self._zip.open(self._members[name]) as file:
                while chunk := file.read(_CHUNK):
                    room -= len(chunk)
                    self._left -= len(chunk)
                    if room < 0 or self._left < 0:
                        raise self._too_large(name)
                    yield chunk
        except _BROKEN as error:
            raise Invalid(f"{name} cannot be unpacked: {error}.", field=self._field) from None

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        """The members by name, each of which may be there."""
        self._left = total = self._room_for_all
        found: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            name = member.filename
            shown = repr(name[:60])
            kind = stat.S_IFMT(member.external_attr >> 16)
            room = self._room(name)
            if room == 0 or kind not in (0, stat.S_IFREG):
                raise Invalid(f"{shown} has no place in {self._what}: use {self._use}.", field=self._field)
            if name in found:
                raise Invalid(f"{shown} is there twice.", field=self._field)
            if member.header_offset < 0:
                raise Invalid(f"{shown} begins before the {self._what} does.", field=self._field)
            if member.flag_bits & 1 or member.compress_type not in _PLAIN:
                raise Invalid(f"{shown} is encrypted or packed in an unusual way.", field=self._field)
            total -= member.file_size
            if member.file_size > room or total < 0:
                raise self._too_large(name)
            found[name] = member
        return found

    def _too_large(self, name: str) -> TooLarge:
        room, whole = _shown(self._room(name)), _shown(self._room_for_all)
        return TooLarge(
            f"With {name} the {self._what} is too large: {room} for this file, {whole} in all.",
            field=self._field,
        )


def _shown(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"
