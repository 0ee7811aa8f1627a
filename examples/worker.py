"""A worker to run as a service: python worker.py QUEUE

Works on four messages at once. A message that fails comes back after ten seconds; one that failed five times
goes to QUEUE-dead, where `windlass queue peek` shows it and `windlass queue redrive` gives it another chance.
SIGTERM and Ctrl-C let the work under way finish.
"""

import logging
import signal
import sys
import threading

from windlass.client import Client, LeasedMessage, Retry


def work(message: LeasedMessage) -> None:
    """The lease is extended for as long as this runs; raising gives the message back."""
    print("working on", message.content, flush=True)


def main(name: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Client(retry=Retry(limit=float("inf"))) as client:  # waits for a server that is away, however long
        client.create_queue(f"{name}-dead")
        client.create_queue(name, max_deliveries=5, dead_letter=f"{name}-dead")
        client.queue(name).handle(work, concurrency=4, retry_delay=10, wait=5, stop=stop)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "work")
