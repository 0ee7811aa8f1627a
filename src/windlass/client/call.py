"""One request as a value, without any IO: what to ask, how to read the answer, whether to ask again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from windlass.client.errors import BadAnswer

T = TypeVar("T")

_CHUNK = 64 * 1024


class Answer(NamedTuple):
    """What came back, whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A body of small fields and one file (multipart/form-data, RFC 7578).

    `sent` is called with the number of bytes of the file that went out since its last call.
    """

    fields: Mapping[str, bytes]
    file: str
    """The name of the file's part."""
    content: bytes
    sent: Callable[[int], None] | None = None
    boundary: str = field(default_factory=lambda: uuid.uuid4().hex)  # in no file but by a wonder

    @property
    def media_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}"

    def _frame(self) -> tuple[bytes, bytes]:
        """What comes before the file, and what after it."""
        dash = f"--{self.boundary}\r\n".encode()
        head = b"".join(
            b'%bContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (dash, name.encode(), value)
            for name, value in self.fields.items()
        )
        name = self.file.encode()
        head += b'%bContent-Disposition: form-data; name="%b"; filename="%b"\r\n' % (dash, name, name)
        head += b"Content-Type: application/octet-stream\r\n\r\n"
        return head, f"\r\n--{self.boundary}--\r\n".encode()

    def __len__(self) -> int:
        return len(self.content) + sum(map(len, self._frame()))

    def __iter__(self) -> Iterator[bytes]:
        head, tail = self._frame()
        yield head
        for start in range(0, len(self.content), _CHUNK):
            chunk = self.content[start : start + _CHUNK]
            yield chunk
            if self.sent is not None:
                self.sent(len(chunk))
        yield tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request.

    `repeatable`: a repeat can do no harm (the table is in calls.py). `hold`: seconds the server may keep the
    request waiting on purpose. `key`: the Idempotency-Key; `spare_key` when the server may go without
    it, as the client made it up itself. `done_on`: codes of problems that mean the wish is fulfilled;
    `done_on_repeat`: those that mean it only when an earlier try may have got through.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    parse: Callable[[Answer], T]
    query: Mapping[str, str] = field(default_factory=dict)
    body: str | Form | None = None
    repeatable: bool = False
    hold: float = 0.0
    key: str | None = None
    spare_key: bool = False
    done_on: frozenset[str] = frozenset()
    done_on_repeat: frozenset[str] = frozenset()

    def without_key(self) -> Call[T]:
        """The same send without its key; from then on it must not be repeated."""
        return replace(self, key=None, spare_key=False, repeatable=False)


Plan = Generator[Call[Any], Any, T]
"""Calls to be made one after the other; each answer (or error) goes back in, the result comes at the end."""


def reader(kind: type[T]) -> Callable[[Answer], T]:
    def read(answer: Answer) -> T:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.DecodeError as error:
            raise BadAnswer(f"the server's answer is not what this client knows: {error}") from error

    return read


def nothing(answer: Answer) -> None:
    """For answers that say it all by being 204."""
    if answer.status != 204:
        raise BadAnswer(f"HTTP {answer.status} where a Windlass server says 204")
