"""A submission's source as a runner gets it: one file in a zip, read without trusting it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO

from windlass.errors import Invalid, TooLarge
from windlass.judge.archive import Archive
from windlass.judge.languages import Language

MAX_SOURCE = 10 * 1024 * 1024
"""Bytes of a source file. What is in them is the compiler's business."""

_FIELD = "source"


def is_archive(data: bytes) -> bool:
    """True where `data` begins as a zip does, and no program."""
    return data[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def read_source(archive: IO[bytes] | Path, language: Language) -> bytes:
    """The source in an archive, which has to be its only file. Raises Invalid or TooLarge, saying why."""
    with Archive(
        archive,
        field=_FIELD,
        room=lambda name: MAX_SOURCE if name == language.source else 0,
        room_for_all=MAX_SOURCE,
        what="source archive",
        use=f"{language.source} alone",
    ) as opened:
        if not opened.names():
            raise Invalid(f"{language.source} is missing in the source archive.", field=_FIELD)
        return b"".join(opened.chunks(language.source))


def pack_source(source: bytes, language: Language) -> bytes:
    """An archive that read_source reads; the same source makes the same bytes. Raises TooLarge."""
    if len(source) > MAX_SOURCE:
        raise TooLarge(f"A source may have {MAX_SOURCE >> 20} MiB.", field=_FIELD)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(language.source)  # of 1980, and of no system
        member.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(member, source)
    return file.getvalue()
