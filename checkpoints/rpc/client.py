"""Call a process that serves remote calls (`checkpoints.rpc.server`)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from checkpoints import errors
from checkpoints.errors import MalformedMessage, RemoteError, StoreClosed, StoreError, StoreUnavailable
from checkpoints.files.fork_safety import register_for_fork
from checkpoints.rpc import framing
from checkpoints.rpc.unix_socket import open_address

_RAISED: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        ZeroDivisionError,
        *(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StoreError)),
    )
}


class RpcClient:
    """A server's address, and a connection that opens at the first call.

    A client can be pickled, and used after a fork: each process opens its own connection. Threads and
    greenlets take turns.

    Args:
        path: the server's socket.
        timeout_seconds: the longest wait for an answer; after that, the server counts as gone.

    Attributes:
        turn: held during each call. Hold it over several calls to keep other threads out.
        pinned: never reconnect, because the server holds a lock for the present connection.
    """

    def __init__(self, path: str | Path, *, timeout_seconds: float = 30.0) -> None:
        self.path = Path(path)
        self.timeout_seconds = timeout_seconds
        self.turn = threading.RLock()
        self.pinned = False
        self._connection: socket.socket | None = None
        self._closed = False
        register_for_fork(self)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _client, (str(self.path), self.timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._drop()  # an address that is handed around has nobody who closes it

    def call(self, name: str, /, **arguments: Any) -> Any:
        """Call the server's handler of `name` and return its result.

        Raises:
            StoreUnavailable: no answer came; the call may have been carried out or not.
            StoreClosed: this client was closed.
            MessageTooLarge: the request or the answer is over 1 MiB.
            RemoteError: the handler raised an error of a class that this client does not know.
            Exception: the handler's error, if its class is known here.
        """
        request = {"version": framing.VERSION, "call": name, "arguments": arguments}
        while True:
            with self.turn:
                answer = self._exchange(request)
            if "result" in answer:
                return answer["result"]
            if not answer.get("busy"):
                raise _error(answer)

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._closed = True
        self._drop()

    def abandon(self) -> None:
        """Close the parent's connection, in a forked child; the next call makes its own."""
        connection, self._connection = self._connection, None
        if connection is not None:
            os.close(connection.detach())
        self.turn, self.pinned = threading.RLock(), False
        register_for_fork(self)

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._closed:
            raise StoreClosed(f"the client of {self.path} is closed")
        try:
            connection = self._connect()
            framing.send(connection, request)
            answer = framing.receive(connection)
        except (OSError, MalformedMessage) as error:
            self._drop()
            raise StoreUnavailable(f"nobody answers on {self.path}: {error}") from error
        except (errors.MessageTooLarge, TypeError, ValueError):
            raise  # nothing was sent, or the answer was read to its end: the connection is in order
        except BaseException:  # a kill or a timeout half-way: an answer that comes yet is nobody's
            self._drop()
            raise
        if answer is None:
            self._drop()
            raise StoreUnavailable(f"the process behind {self.path} went away")
        return answer

    def _connect(self) -> socket.socket:
        if self._connection is None:
            if self.pinned:
                raise ConnectionError("the connection has ended, and the lock with it")
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self.timeout_seconds)
            try:
                with open_address(self.path) as address:
                    connection.connect(address)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _client(path: str, timeout_seconds: float) -> RpcClient:
    return RpcClient(path, timeout_seconds=timeout_seconds)


def _error(answer: dict[str, Any]) -> Exception:
    kind, message = str(answer.get("error")), str(answer.get("message"))
    known = _RAISED.get(kind)
    return RemoteError(f"{kind}: {message}", kind=kind) if known is None else known(message)
