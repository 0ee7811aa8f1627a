"""A worker with asyncio: python async_worker.py QUEUE

Works on a hundred messages at once, as fits work that mostly waits. SIGTERM and Ctrl-C let the work under way
finish; see worker.py for more about what happens to messages that fail.
"""

import asyncio
import signal
import sys

from windlass.client import AsyncClient, AsyncLeasedMessage


async def work(message: AsyncLeasedMessage) -> None:
    """The lease is extended for as long as this runs; raising gives the message back."""
    await asyncio.sleep(0.1)
    print("worked on", message.content, flush=True)


async def main(name: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncClient() as client:
        await client.create_queue(name)
        await client.queue(name).handle(work, concurrency=100, wait=5, stop=stop)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "work"))
