"""A server in a process of its own that sends given bytes over and over, as fast as the socket takes them.

In the tests' own process it would give way whenever its client does, and nobody would be held up.
"""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

#: What is sent, and how often.
Repeated = tuple[bytes, int]

#: As good as for ever.
ENDLESS = 10**12


class FloodingServer:
    """The server; a context manager.

    Args:
        routes: path -> what a request for it is answered with; the connection is closed then.

    Attributes:
        url: its address.
    """

    def __init__(self, routes: dict[str, Sequence[Repeated]]) -> None:
        self.url = ""
        self._routes = routes

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.flooding"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(self._routes, self._process.stdin)
        self._process.stdin.flush()
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Serve until killed."""
    routes = pickle.load(sys.stdin.buffer)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, routes), daemon=True).start()


def _serve(connection: socket.socket, routes: dict[str, Sequence[Repeated]]) -> None:
    with connection, suppress(OSError):
        request = b""
        while b"\r\n\r\n" not in request:
            if not (received := connection.recv(65536)):
                return
            request += received
        path = request.split()[1].decode().partition("?")[0]
        for text, times in routes.get(path, [(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 1)]):
            if not text:
                continue
            many = max(1, 65536 // len(text))
            whole, rest = divmod(times, many)
            block = text * many
            for _ in range(whole):
                connection.sendall(block)
            connection.sendall(text * rest)


if __name__ == "__main__":
    main()
