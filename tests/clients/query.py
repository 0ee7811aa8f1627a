"""The query protocol as clients of before 2023 speak it: a form in, XML out, signed by botocore."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.clients.site import REGION, Site

SPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"
VERSION = "2012-11-05"


@dataclass(frozen=True)
class Told:
    """An answer of the query protocol."""

    status: int
    root: ElementTree.Element

    def all(self, name: str) -> list[str]:
        """The text of all elements of this name."""
        return [element.text or "" for element in self.root.iter(SPACE + name)]

    def one(self, name: str) -> str:
        [text] = self.all(name)
        return text


def call(site: Site, action: str, url: str = "", parameters: Mapping[str, str | int] | None = None) -> Told:
    """POST an action to a queue's URL, or to `/`."""
    form = urlencode({"Action": action, "Version": VERSION, **(parameters or {})})
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = AWSRequest("POST", url or site.url + "/", headers=headers, data=form)
    SigV4Auth(Credentials(site.access, site.secret), "sqs", REGION).add_auth(request)
    signed = request.prepare()
    return told(httpx.post(signed.url, headers=dict(signed.headers), content=form))


def presigned(site: Site, action: str, url: str, seconds: int = 60, **parameters: str | int) -> str:
    """A URL that whoever has it may GET, for so many seconds."""
    asked = {"Action": action, "Version": VERSION, **parameters}
    request = AWSRequest("GET", f"{url}?{urlencode(asked)}")
    SigV4QueryAuth(Credentials(site.access, site.secret), "sqs", REGION, expires=seconds).add_auth(request)
    signed: str = request.prepare().url
    return signed


def told(response: httpx.Response) -> Told:
    assert response.headers["content-type"].startswith("text/xml"), response.text
    return Told(response.status_code, ElementTree.fromstring(response.content))
