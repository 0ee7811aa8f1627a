"""One process of boto3, as its users have it: `python sqs_boto3.py OPERATION PORT SECONDS`.

`send` is send_message, `receive` is receive_message and then delete_message. Each call is made when the one
before is answered. It runs in an environment that has boto3 and not this project,
of which it imports nothing.
Prints how many messages were done in how many microseconds, after a second of warming up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import boto3
from botocore.config import Config

WARM_UP_SECONDS = 1
CONTENT = "bench ".ljust(100, "x")
LEASE = 60


def repeat(once: Callable[[], None], seconds: float) -> tuple[int, float]:
    """How often `once` was done, and in how many seconds."""
    count, started = 0, time.perf_counter()
    end = started + seconds
    while (now := time.perf_counter()) < end:
        once()
        count += 1
    return count, now - started


def main() -> None:
    operation, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    client = boto3.client(
        "sqs",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
        config=Config(retries={"total_max_attempts": 1}),
    )
    url = client.get_queue_url(QueueName="bench")["QueueUrl"]

    def send() -> None:
        client.send_message(QueueUrl=url, MessageBody=CONTENT)

    def receive() -> None:
        (message,) = client.receive_message(QueueUrl=url, VisibilityTimeout=LEASE)["Messages"]
        client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    once = send if operation == "send" else receive
    repeat(once, WARM_UP_SECONDS)
    count, took = repeat(once, seconds)
    print(f"completed={count} microseconds={round(took * 1e6)}")


if __name__ == "__main__":
    main()
