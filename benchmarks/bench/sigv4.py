"""Signature Version 4 of a request, as clients of SQS sign theirs."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

REGION = "us-east-1"


@dataclass(frozen=True)
class Credentials:
    """An access key, and the secret that belongs to it."""

    key_id: str
    secret: str

    def signing_key(self, date: str, *, region: str = REGION, service: str = "sqs") -> bytes:
        """What signs on this day; `date` as in 20260101T000000Z."""
        key = f"AWS4{self.secret}".encode()
        for part in (date[:8], region, service, "aws4_request"):
            key = _hmac(key, part)
        return key

    def authorization(
        self,
        headers: Mapping[str, str],
        body: bytes,
        *,
        method: str = "POST",
        region: str = REGION,
        service: str = "sqs",
    ) -> str:
        """The header Authorization of a request for `/`, which has these headers, X-Amz-Date among them."""
        found = {name.lower(): value.strip() for name, value in headers.items()}
        signed = ";".join(sorted(found))
        lines = "".join(f"{name}:{found[name]}\n" for name in sorted(found))
        canonical = f"{method}\n/\n\n{lines}\n{signed}\n{sha256(body).hexdigest()}"
        date = found["x-amz-date"]
        scope = f"{date[:8]}/{region}/{service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = _hmac(self.signing_key(date, region=region, service=service), text).hex()
        said = f"Credential={self.key_id}/{scope}, SignedHeaders={signed}, Signature={signature}"
        return f"AWS4-HMAC-SHA256 {said}"


def now() -> str:
    """The time as signatures have it."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), sha256).digest()
