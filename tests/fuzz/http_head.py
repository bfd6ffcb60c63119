"""The HTTP server of the daemon: whatever a client sends, it gets a whole answer or none, and never a 500."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from gevent import Timeout, socket

from daemon.http.server.server import BoundedServer

ANSWER_SECONDS = 20.0
SEEDS = [
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nIf-Match: *\r\n\r\n",
]


def parse_request(data: bytes) -> None:
    """Send the bytes and their end; read all answers."""
    answer = ask(data)
    assert answer.startswith(b"HTTP/1.") or not answer, answer
    assert b"HTTP/1.1 500" not in answer, answer


def ask(data: bytes) -> bytes:
    """Return all answers to some bytes; nothing if they are refused before all are sent."""
    with Timeout(ANSWER_SECONDS), socket.create_connection(_address()) as client:
        answer = b""
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while block := client.recv(65536):
                answer += block
        except ConnectionError:
            return b""
    return answer


@cache
def _address() -> tuple[str, int]:
    """Start the server of this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    BoundedServer(listening, _application, name="read").start()
    address: tuple[str, int] = listening.getsockname()
    return address


def _application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Read the body, as the API does."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
