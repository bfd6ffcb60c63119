"""Remote calls: a process answers them over a unix socket that only its user may open.

The process that owns a store serves; other processes call it:

    server = RpcServer("/run/crawler/store.sock", {"status": status})
    server.register("pause", pause)             # at any time, before or after start()
    server.start()                              # or: with RpcServer(...) as server:
    ...
    server.close()                              # ends every connection, removes the socket

    def pause(key: str) -> dict: ...            # called with the client's arguments by keyword;
                                                # returns what JSON can hold

    client = RpcClient("/run/crawler/store.sock")        # checkpoints.rpc.client; connects when called
    client.call("pause", key="cases")           # returns the handler's result
                                                # StoreUnavailable: no process answers

The client raises a handler's error again: `KeyError`, `ValueError`, `TypeError` and the errors of
`checkpoints.errors` as themselves, any other error as `RemoteError(message, kind=CLASS NAME)`. The server
and its other clients continue.

Each client has its own thread, which is a greenlet if the standard library is patched. A handler may block.
If it would wait for a person or another client for more than about a second, it should raise `TryAgain`
instead; the client then calls again.

Register a handler with `register_session` if it must know its client (a lock must be released when its
holder dies). Its first argument is the client's `Connection`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from checkpoints.errors import MalformedMessage, MessageTooLarge, StoreError
from checkpoints.files.fork_safety import register_for_fork
from checkpoints.rpc import framing, unix_socket

Handler = Callable[..., Any]

_CLOSE_SECONDS = 2.0  # how long close() waits for the handlers that are still answering
_ACCEPT_SECONDS = 0.1  # between attempts, where accepting fails
_TURN_CALLS = 16  # calls after which a client lets others in: a fast one never has to wait

_log = logging.getLogger(__name__)


class TryAgain(StoreError):
    """Another client holds the lock: call again."""


class Connection(ExitStack):
    """One client's connection; its callbacks (`ExitStack`) run when the connection ends."""


class RpcServer:
    """A server that answers calls on a unix socket.

    Args:
        path: of the socket, with mode 0600; the stale socket of a crashed process is replaced.
        handlers: name of a call -> its handler.
    """

    def __init__(self, path: str | Path, handlers: Mapping[str, Handler] | None = None) -> None:
        self.path = Path(path)
        self._handlers: dict[str, Handler] = {}
        self._listener: socket.socket | None = None
        self._guard = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._accepting: threading.Thread | None = None
        self._closed = threading.Event()
        for name, handler in (handlers or {}).items():
            self.register(name, handler)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def register(self, name: str, handler: Handler) -> None:
        """Answer calls of `name` with `handler(**arguments)`."""
        self._handlers[name] = lambda _session, **arguments: handler(**arguments)

    def register_session(self, name: str, handler: Handler) -> None:
        """Answer calls of `name` with `handler(connection, **arguments)`."""
        self._handlers[name] = handler

    def start(self) -> None:
        """Start to listen.

        Raises:
            StoreLocked: another process answers on this path.
            OSError: the socket cannot be created.
        """
        self._listener = unix_socket.listen(self.path)
        self._closed.clear()
        register_for_fork(self)
        self._accepting = threading.Thread(target=self._accept, name="rpc", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Close every connection and remove the socket; safe to call twice."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._closed.set()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        _shut(listener)
        if self._accepting is not None:
            self._accepting.join(_CLOSE_SECONDS)
        listener.close()
        with self._guard:
            connections = dict(self._connections)
        for connection in connections:
            _shut(connection)
        for thread in connections.values():
            if thread is not threading.current_thread():
                thread.join(_CLOSE_SECONDS)

    def abandon(self) -> None:
        """Close the parent's sockets in a forked child, so that they end with the parent."""
        listener, self._listener = self._listener, None
        for inherited in [listener, *self._connections]:
            if inherited is not None:
                os.close(inherited.detach())
        self._connections = {}

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and self._listener is listener:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._listener is not listener:
                    return
                _log.warning("remote calls cannot be accepted: %s", error)  # too many open files, say
                self._closed.wait(_ACCEPT_SECONDS)
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="client", daemon=True)
            with self._guard:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with Connection() as session:
                for count in itertools.count(1):
                    if not self._answer(session, connection):
                        return
                    if not count % _TURN_CALLS:
                        time.sleep(0)
        except OSError as error:
            _log.debug("a client went away: %s", error)
        finally:
            with self._guard:
                del self._connections[connection]
            connection.close()

    def _answer(self, session: Connection, connection: socket.socket) -> bool:
        """Answer one call. Return whether the connection continues."""
        try:
            request = framing.receive(connection)
        except MessageTooLarge as error:
            framing.send(connection, _failure(error))
            return True
        except MalformedMessage as error:
            _log.warning("a client was cut off: %s", error)
            return False
        if request is None:
            return False
        try:
            framing.send(connection, self._dispatch(session, request))
        except (
            MessageTooLarge,
            TypeError,
            ValueError,
        ) as error:  # the answer cannot be sent; the call has been carried out
            framing.send(connection, _failure(error))
        return True

    def _dispatch(self, session: Connection, request: dict[str, Any]) -> dict[str, Any]:
        try:
            name, arguments = _parse(request)
            handler = self._handlers.get(name)
            if handler is None:
                message = (
                    f"unknown call {name!r}: the owner does not share this store, or has another version"
                )
                raise StoreError(message)  # noqa: TRY301 - answered like any other
            return {"result": handler(session, **arguments)}
        except TryAgain:
            return {"busy": True}
        except Exception as error:  # noqa: BLE001 - one call's failure is that client's, not the server's
            if not isinstance(error, StoreError | LookupError | TypeError | ValueError):
                _log.exception("the call %r failed", request.get("call"))
            return _failure(error)


def _parse(request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if request.get("version") != framing.VERSION:
        raise StoreError(
            f"the caller speaks version {request.get('version')} of the protocol, the server version "
            f"{framing.VERSION}; use one version of pillowd for both"
        )
    name, arguments = request.get("call"), request.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise StoreError("a call has a name and arguments")
    return name, arguments


def _failure(error: Exception) -> dict[str, Any]:
    message = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return {"error": type(error).__name__, "message": message}


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)
