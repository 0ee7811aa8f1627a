"""Ask a question through a queue and wait for the answer: python ask.py 6 7

The asker sends a message and waits for its outcome; whoever works on it acknowledges with one. Both may be
restarted meanwhile, and so may the server: the question and the answer are on its disk.
"""

import sys
import threading

from windlass.client import Client


def answer_one() -> None:
    """In real life this runs elsewhere."""
    with Client() as client:
        for message in client.queue("questions").receive(max=1):
            with message:
                left, right = message.content["multiply"]
                message.acknowledge(outcome={"product": left * right})


def main(left: int, right: int) -> None:
    with Client() as client:
        client.create_queue("questions")
        questions = client.queue("questions")
        sent = questions.send({"multiply": [left, right]})
        worker = threading.Thread(target=answer_one)
        worker.start()
        print(questions.outcome(sent.id, wait=60)["product"])
        worker.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3] or (6, 7)))
