"""Bound the time and memory of a cluster's answers, for both clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gevent
import urllib3
from urllib3.connection import HTTPConnection

from pillows.couch.http.response import BoundedResponse, read_bounded
from pillows.errors import RetryableError
from pillows.tcp_keepalive import SOCKET_OPTIONS
from pillows.transports.common.search.client import LongAnswerError

#: Limit for opening a connection. Longer than the kernel's second and third attempt (1 s and 3 s after
#: the first), far shorter than a request may take.
CONNECT_SECONDS = 5.0

#: A longer answer is given up: those of our requests are far shorter.
MAX_ANSWER_BYTES = 64 * 2**20


class _Answer(NamedTuple):
    status: int
    headers: Any
    data: bytes


class BoundedPool:
    """Changes a client's pool of connections to one node: answers are bounded, and all connections end.

    A greenlet that is killed just after urllib3 has taken a connection out of its pool leaves it open
    and unknown to the pool.

    Args:
        pool: of the client.
        product: the server's name, for messages.

    Attributes:
        connections: all that were made and are open.
    """

    def __init__(self, pool: Any, product: str) -> None:
        self._product = product
        self._make = pool.ConnectionCls
        self._urlopen = pool.urlopen
        self.connections: set[Any] = set()
        pool.conn_kw["socket_options"] = (*HTTPConnection.default_socket_options, *SOCKET_OPTIONS)
        pool.ConnectionCls = self._remember  # called, never inherited
        pool.urlopen = self._open_bounded

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections:
            connection.close()

    def _remember(self, *args: Any, **kwargs: Any) -> Any:
        connection: Any = self._make(*args, **kwargs)
        connection.response_class = BoundedResponse
        self.connections = {one for one in self.connections if one.sock is not None} | {connection}
        return connection

    def _open_bounded(self, *args: Any, **kwargs: Any) -> Any:
        response: Any = self._urlopen(*args, **kwargs | {"preload_content": False})
        try:
            data = read_bounded(response, MAX_ANSWER_BYTES)
        except BaseException:
            _give_up(response)
            raise
        if len(data) > MAX_ANSWER_BYTES:
            _give_up(response)
            raise LongAnswerError(f"The answer of {self._product} is longer than {MAX_ANSWER_BYTES} bytes.")
        response.release_conn()
        return _Answer(response.status, response.headers, data)


def _give_up(response: Any) -> None:
    """Close a response that was not read to its end, and give its closed connection back to the pool.

    The pool has a fixed number of slots. One that is not given back is lost; once all are lost, every request
    waits in vain.
    """
    response.close()
    response.release_conn()


@contextmanager
def limit_request(seconds: float, product: str) -> Iterator[urllib3.Timeout]:
    """Yield urllib3's timeouts for a request; opening the connection gets at most `CONNECT_SECONDS` of them.

    Raises:
        RetryableError: the request took longer than 2 * `seconds`. urllib3's own limits apply to each read,
            so an answer that trickles in would never end.
    """
    late = RetryableError(f"{product} did not answer within {seconds} s.")
    with gevent.Timeout(2 * seconds, late):
        yield urllib3.Timeout(total=seconds, connect=min(CONNECT_SECONDS, seconds))
