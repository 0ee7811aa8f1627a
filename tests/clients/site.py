"""A server as a client of SQS sees it: where it is, and the keys to it."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.harness import ServerProcess, clean_environment, run_cli

REGION = "us-east-1"
NOWHERE = Path(os.devnull)
"""Where no client finds settings of whoever runs the tests."""


@dataclass(frozen=True)
class Site:
    url: str
    access: str
    secret: str
    bearer: str = ""
    """The same key as plain HTTP takes it, and its id."""
    key_id: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a client that is a process of its own has to know."""
        foreign = ("AWS_", "NODE_")
        kept = {name: value for name, value in clean_environment().items() if not name.startswith(foreign)}
        return kept | {
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_SQS": self.url,
            "AWS_CONFIG_FILE": str(NOWHERE),
            "AWS_SHARED_CREDENTIALS_FILE": str(NOWHERE),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _made(self, maker: Any, **config: Any) -> Any:
        return maker(
            "sqs",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self.access,
            aws_secret_access_key=self.secret,
            config=Config(
                **{"retries": {"total_max_attempts": 1}, "read_timeout": 120, "proxies": {}} | config
            ),
        )

    def client(self, **config: Any) -> Any:
        """A client of boto3, which tries everything once unless told otherwise; `config` is for botocore."""
        return self._made(boto3.session.Session().client, **config)

    def resource(self) -> Any:
        """The same as boto3's resources."""
        return self._made(boto3.session.Session().resource)


def key_of(server: ServerProcess, *scopes: str) -> Site:
    """The server, seen by whoever has a new key with these scopes."""
    wanted = [argument for scope in scopes for argument in ("--scope", scope)]
    ran = run_cli("key", "create", *wanted, "--json", "--data-dir", str(server.data_dir))
    assert ran.returncode == 0, ran.stderr
    made = json.loads(ran.stdout)
    return Site(server.url, made["access_key_id"], made["secret_access_key"], made["key"], made["id"])


def new_name(kind: str = "orders") -> str:
    """A name for a queue, which none has."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def new_queue(sqs: Any, **attributes: str) -> str:
    """The URL of a new queue, of a FIFO queue where `attributes` say so."""
    name = new_name() + (".fifo" if attributes.get("FifoQueue") else "")
    url: str = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url


def arn(sqs: Any, queue: str) -> str:
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    found: str = answer["Attributes"]["QueueArn"]
    return found


def attribute(sqs: Any, queue: str, name: str) -> str | None:
    """One attribute of a queue, None where it has none of this name."""
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])
    found: str | None = answer.get("Attributes", {}).get(name)
    return found


def receive(sqs: Any, queue: str, wait: int = 20, **more: Any) -> list[dict[str, Any]]:
    """Up to ten messages, as soon as there is one."""
    asked = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": wait} | more
    found: list[dict[str, Any]] = sqs.receive_message(QueueUrl=queue, **asked).get("Messages", [])
    return found


def take(sqs: Any, queue: str, count: int, **more: Any) -> list[dict[str, Any]]:
    """`count` messages, each deleted before the next is asked for, which is in a group's order."""
    found: list[dict[str, Any]] = []
    for _ in range(count):
        some = receive(sqs, queue, MaxNumberOfMessages=1, **more)
        assert some, f"{len(found)} of {count} messages came in time"
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=some[0]["ReceiptHandle"])
        found += some
    return found


def receive_all(sqs: Any, queue: str, count: int, **more: Any) -> list[dict[str, Any]]:
    """`count` messages, in however many answers."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        some = receive(sqs, queue, **more)
        assert some, f"{len(found)} of {count} messages came in time"
        found += some
    assert len(found) == count
    return found
