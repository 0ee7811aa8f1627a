"""Something that a topology takes for a Redis."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable


class BreakingOff:
    """Something that answers like a Redis, and closes the connection when it is told `word`."""

    def __init__(self, word: bytes, answer: Callable[[bytes], bytes]) -> None:
        self.heard = 0
        """How often it was told that."""
        self._word = word
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                while asked := connection.recv(65_536):
                    if self._word in asked:
                        self.heard += 1
                        break
                    connection.sendall(self._answer(asked))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(30)
