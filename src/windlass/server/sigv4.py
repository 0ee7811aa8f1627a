"""AWS Signature Version 4, as clients of SQS sign their requests with it: in a header, or presigned.

A signature is an HMAC over what arrives here too: method, path, query, some headers, the body's SHA-256 and
a time. So a secret is never sent, and a request that was overheard is good for 15 minutes, unchanged. Of a
body in signed chunks (signed_chunks.py) each chunk has a signature of its own instead.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from windlass.server import signed_chunks
from windlass.server.signed_chunks import HASHED
from windlass.server.sqs.errors import SqsError

SKEW = 15 * 60
"""Seconds that a client's clock may be off."""
LONGEST = 7 * 86_400
"""Seconds that a presigned URL may be good for."""

_ALGORITHM = b"AWS4-HMAC-SHA256"
_SERVICE, _END = b"sqs", b"aws4_request"
_STAMP = re.compile(rb"\d{8}T\d{6}Z\Z")
_REGION = re.compile(rb"[A-Za-z0-9-]{1,64}\Z")
_HASH = re.compile(rb"[0-9a-f]{64}\Z")
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+/?\Z")
"""A path that is its own canonical form."""
_HOST, _TARGET = b"host", b"x-amz-target"
_IN_HEADER = (b"Credential", b"SignedHeaders", b"Signature")
_IN_QUERY = (b"X-Amz-Credential", b"X-Amz-SignedHeaders", b"X-Amz-Signature", b"X-Amz-Date", b"X-Amz-Expires")
_PRESIGNED = re.compile(rb"(?:^|&)X-Amz-(?:Algorithm|Credential|Signature)=")

Pairs = list[tuple[bytes, bytes]]
"""Names and values."""


class AccessKeyUnknown(SqsError):  # noqa: N818 - what happened, said as it is
    """No secret is known for the access key id that a request is signed with."""

    def __init__(self, access_key: str) -> None:
        super().__init__(
            "InvalidClientTokenId",
            f"There is no access key {access_key[:64]!a} here, or it was revoked."
            " Make one with `windlass key create`, which shows its id and its secret.",
        )
        self.access_key = access_key


class _Signed(NamedTuple):
    """What a request says of its signature."""

    credential: bytes
    names: bytes
    """Of the headers that it is over, with semicolons between them."""
    signature: bytes
    stamp: bytes
    """When it was made, as 20260102T030405Z."""
    lifetime: int
    """Seconds that it is good for afterwards."""


def verify(
    method: str,
    path: bytes,
    query: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    now: float,
    secret_of: Callable[[str], str | None],
) -> tuple[str, bytes]:
    """The access key id of whoever signed this request, and the body, out of its chunks where it came in
    signed ones. Raises SqsError, AccessKeyUnknown among them.

    `path` and `query` are as they came, the names of `headers` in lower case, `now` in seconds since the
    epoch. `secret_of` gives the secret of an access key id.
    """
    values = _by_name(headers)
    pairs: Pairs = _pairs_of(query) if query else []
    authorization = values.get(b"authorization")
    if authorization is not None:
        signed = _from_header(authorization, values)
    elif _PRESIGNED.search(query):
        signed = _from_query(pairs)
        pairs = [pair for pair in pairs if pair[0] != b"X-Amz-Signature"]
    else:
        raise SqsError(
            "MissingAuthenticationToken",
            "This request is not signed. Give the client the access key id and the secret that"
            " `windlass key create` shows, or send an API key as `Authorization: Bearer wk_...`.",
        )

    access_key, _, scope = signed.credential.partition(b"/")
    date, region = _check_scope(scope, signed.stamp)
    named = access_key.decode("latin-1")
    secret = secret_of(named)
    if secret is None:
        raise AccessKeyUnknown(named)
    _check_time(signed, now)

    said = values.get(HASHED)
    chunks = said if said in signed_chunks.FORMS else None
    canonical = b"\n".join(
        (
            method.encode(),
            path if _PLAIN.match(path) else _canonical_path(path),
            _canonical_query(pairs) if pairs else b"",
            _canonical_headers(signed.names, values),
            b"",
            signed.names,
            chunks or _hash_of(body, said),
        )
    )
    text = b"\n".join((_ALGORITHM, signed.stamp, scope, sha256(canonical).hexdigest().encode()))
    begun = _begun(secret, date, region)
    mac = begun.copy()
    mac.update(text)
    if not compare_digest(mac.hexdigest().encode(), signed.signature):
        raise _mismatch(
            "The request signature we calculated does not match the signature you provided. Check the secret"
            " access key, and that nothing on the way changes the Host header, the path or the body."
        )
    if chunks is not None:
        seed = signed_chunks.Seed(begun, signed.stamp, scope, signed.signature)
        body = signed_chunks.decode(body, values, seed)
    return named, body


@lru_cache(maxsize=1000)
def _begun(secret: str, date: bytes, region: bytes) -> hmac.HMAC:
    """An HMAC under the signing key of that day: to be copied, which costs less than to begin one."""
    key = b"AWS4" + secret.encode()
    for part in (date, region, _SERVICE, _END):
        key = hmac.digest(key, part, "sha256")
    return hmac.new(key, digestmod="sha256")


# --- what a request says of its signature ---------------------------------------------------------------


def _by_name(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Each header's value; those of one name with commas between them."""
    values = dict(headers)
    if len(values) == len(headers):
        return values
    values.clear()
    for name, value in headers:
        before = values.get(name)
        values[name] = value if before is None else _trimmed(before) + b"," + _trimmed(value)
    return values


def _from_header(authorization: bytes, values: dict[bytes, bytes]) -> _Signed:
    stamp = values.get(b"x-amz-date")
    if stamp is None:
        stamp = _stamp_of(values.get(b"date", b""))
    return _Signed(*_parts_of(authorization), stamp, SKEW)


def _parts_of(authorization: bytes) -> tuple[bytes, bytes, bytes]:
    """Credential, SignedHeaders and Signature."""
    algorithm, _, rest = authorization.partition(b" ")
    if algorithm != _ALGORITHM:
        raise _incomplete("The Authorization header must begin with AWS4-HMAC-SHA256 or Bearer.")
    found: dict[bytes, bytes] = {}
    for part in rest.split(b","):
        name, equals, value = part.strip().partition(b"=")
        if not equals or name in found:
            raise _incomplete(f"The Authorization header cannot be read at {_shown(part)}.")
        found[name] = value
    for name in _IN_HEADER:
        if not found.get(name):
            raise _incomplete(f"The Authorization header requires the parameter {name.decode()}.")
    return found[b"Credential"], found[b"SignedHeaders"], found[b"Signature"]


def _stamp_of(date: bytes) -> bytes:
    """The Date header's time, as it stands in what is signed."""
    if _STAMP.match(date):
        return date
    try:
        moment = parsedate_to_datetime(date.decode("latin-1"))
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
        return b"%04d%02d%02dT%02d%02d%02dZ" % moment.timetuple()[:6]
    except (ValueError, TypeError, IndexError, OverflowError):
        raise _incomplete("A signed request requires a valid X-Amz-Date or Date header.") from None


def _from_query(pairs: Pairs) -> _Signed:
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name.startswith(b"X-Amz-"):
            if name in found:
                raise _incomplete(f"The parameter {_shown(name)} is there twice.")
            found[name] = value
    if found.get(b"X-Amz-Algorithm") != _ALGORITHM:
        raise _incomplete("X-Amz-Algorithm must be AWS4-HMAC-SHA256.")
    for name in _IN_QUERY:
        if not found.get(name):
            raise _incomplete(f"A presigned URL requires the parameter {name.decode()}.")
    credential, names, signature, stamp, lifetime = (found[name] for name in _IN_QUERY)
    if not lifetime.isdigit() or len(lifetime) > 6 or not 1 <= int(lifetime) <= LONGEST:
        raise _incomplete(f"X-Amz-Expires must be a number of seconds from 1 to {LONGEST} (7 days).")
    return _Signed(credential, names, signature, stamp, int(lifetime))


def _check_scope(scope: bytes, stamp: bytes) -> tuple[bytes, bytes]:
    """Date and region of a credential's scope. Raises SqsError for what is not of here and now."""
    parts = scope.split(b"/")
    if len(parts) != 4 or not _REGION.match(parts[1]):
        raise _incomplete(
            "The credential must be ACCESS_KEY_ID/DATE/REGION/sqs/aws4_request;"
            f" what comes after the id is {_shown(scope)}."
        )
    date, region, service, end = parts
    if service != _SERVICE or end != _END:
        raise _mismatch(
            f"The credential must be scoped to sqs/aws4_request, not to {_shown(service + b'/' + end)}."
        )
    if date != stamp[:8]:
        raise _mismatch(
            f"The date in the credential, {_shown(date)}, is not that of the request's time, {_shown(stamp)}."
        )
    return date, region


def _check_time(signed: _Signed, now: float) -> None:
    made = _moment(signed.stamp) if len(signed.stamp) == 16 else None
    if made is None:
        raise _incomplete(f"The time {_shown(signed.stamp)} must be as in 20260102T030405Z.")
    if now - made > signed.lifetime:
        raise SqsError(
            "RequestExpired",
            f"Signature expired: it was made at {signed.stamp.decode()} for {signed.lifetime} s,"
            f" and here it is {_written(now)}. Sign anew, and set the clock that is wrong.",
        )
    if made - now > SKEW:
        raise SqsError(
            "RequestExpired",
            f"Signature not yet current: it was made at {signed.stamp.decode()}, and here it is"
            f" {_written(now)}. Set the clock that is wrong.",
        )


@lru_cache(maxsize=1000)
def _moment(stamp: bytes) -> float | None:
    """Seconds since the epoch; None where `stamp` is no time."""
    if not _STAMP.match(stamp):
        return None
    try:
        return datetime.strptime(stamp.decode(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _written(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")


# --- the canonical request ------------------------------------------------------------------------------


def _canonical_path(path: bytes) -> bytes:
    """Without dots and doubled slashes, and encoded once more than it came."""
    kept: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del kept[-1:]
        elif part not in (b"", b"."):
            kept.append(part)
    tail = b"/" if kept and path.endswith(b"/") else b""
    return quote_from_bytes(b"/" + b"/".join(kept) + tail, safe="/~").encode()


def _pairs_of(query: bytes) -> Pairs:
    """Decoded as a form is, `+` as a space too: what is signed is what is read."""
    pairs = []
    for part in query.replace(b"+", b" ").split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return pairs


def _canonical_query(pairs: Pairs) -> bytes:
    encoded = [(quote_from_bytes(name, safe="~"), quote_from_bytes(value, safe="~")) for name, value in pairs]
    encoded.sort()  # by name, then by value: `a` is before `a-b`, though `a=` is not before `a-b=`
    return "&".join([f"{name}={value}" for name, value in encoded]).encode()


def _canonical_headers(names: bytes, values: dict[bytes, bytes]) -> bytes:
    wanted = names.split(b";")
    if _HOST not in wanted:
        raise _incomplete("The header host must be among the signed headers.")
    if len(set(wanted)) < len(wanted):  # each may be long, and there is room for thousands of names
        raise _incomplete("A header may be named once among the signed headers.")
    if _TARGET in values and _TARGET not in wanted:  # it says what is to be done
        raise _incomplete("The header x-amz-target must be among the signed headers.")
    try:
        return b"\n".join([name + b":" + b" ".join(values[name].split()) for name in wanted])
    except KeyError as error:
        name = _shown(error.args[0])
        raise _mismatch(
            f"The header {name} is signed but did not arrive: does a proxy on the way remove it?"
        ) from None


def _trimmed(value: bytes) -> bytes:
    return b" ".join(value.split())


def _hash_of(body: bytes, said: bytes | None) -> bytes:
    """The body's SHA-256 in hexadecimal digits; where the client says one, it must be that."""
    hashed = sha256(body).hexdigest().encode()
    if said is not None and said != hashed:
        if not _HASH.match(said):
            raise signed_chunks.unsigned(said)
        raise _mismatch(
            "The header x-amz-content-sha256 is not the SHA-256 of the body that arrived."
            " Sign the body that is sent, and see that nothing on the way changes it."
        )
    return hashed


# --- errors ---------------------------------------------------------------------------------------------


def _incomplete(message: str) -> SqsError:
    return SqsError("IncompleteSignature", message)


def _mismatch(message: str) -> SqsError:
    return SqsError("SignatureDoesNotMatch", message)


def _shown(text: bytes) -> str:
    """What others sent, for a message that XML carries too."""
    return ascii(text[:100].decode("latin-1"))
