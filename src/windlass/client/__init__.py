"""The Python SDK: a queue server's client, blocking and for asyncio.

    from windlass.client import Client

    with Client() as client:
        client.create_queue("orders")
        orders = client.queue("orders")
        orders.send({"sku": 7})
        for message in orders.receive(wait=0):
            with message:
                print(message.content)

`AsyncClient` is the same with `await`, for queues and `client.products`; `client.jobs` and `client.judge` are
for blocking code alone.
Errors are in `windlass.client.errors`, all under `WindlassError`.
"""

from windlass.client.async_client import AsyncClient
from windlass.client.async_message import AsyncLeasedMessage
from windlass.client.async_queue import AsyncQueue
from windlass.client.client import Client
from windlass.client.errors import LeaseLost, WindlassError
from windlass.client.message import LeasedMessage
from windlass.client.product_values import Product
from windlass.client.queue import Queue
from windlass.client.retry import Retry
from windlass.client.values import (
    Message,
    MessageRecord,
    NewMessage,
    QueueInfo,
    QueueSettings,
    QueueStats,
    RawJson,
    Sent,
    ServerStatus,
)

__all__ = [
    "AsyncClient",
    "AsyncLeasedMessage",
    "AsyncQueue",
    "Client",
    "LeaseLost",
    "LeasedMessage",
    "Message",
    "MessageRecord",
    "NewMessage",
    "Product",
    "Queue",
    "QueueInfo",
    "QueueSettings",
    "QueueStats",
    "RawJson",
    "Retry",
    "Sent",
    "ServerStatus",
    "WindlassError",
]
