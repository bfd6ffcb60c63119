"""The server of one listener."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer

from daemon.http.certificate import ServerCertificate
from daemon.http.server.connections import Connections
from daemon.http.server.handler import HEAD_SECONDS, LINGER_SECONDS, LISTENER_KEY, BoundedHandler
from daemon.http.server.refusals import RefusedError, format_refusal

#: Bytes that the kernel buffers for a client; see `STREAM_SECONDS`.
UNREAD_BYTES = 256 * 1024

_CREDENTIALS = struct.Struct("3i")


class BoundedServer(WSGIServer):
    """Serves one listener.

    Args:
        listening: a socket that listens.
        application: the WSGI application.
        name: what the application finds under `LISTENER_KEY`.
        tls: for a listener with TLS.

    Attributes:
        connections: the open ones.
    """

    handler_class = BoundedHandler

    def __init__(
        self,
        listening: Any,
        application: Callable[..., Any],
        *,
        name: str,
        tls: ServerCertificate | None = None,
    ) -> None:
        environ = {LISTENER_KEY: name, "wsgi.url_scheme": "https" if tls else "http"}
        super().__init__(listening, application, log=None, error_log=None, environ=environ)
        self.connections = Connections()
        self._tls = tls

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection."""
        with self.connections.admit() as slot:
            if slot is None:
                with suppress(OSError):
                    sock.settimeout(LINGER_SECONDS)
                    if self._tls is None:
                        sock.sendall(format_refusal(RefusedError(503, "too many requests at once")))
                return
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
            if sock.family != socket.AF_UNIX:
                # Else the second part of an answer waits for the client to confirm the first one: for 40 ms.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                if self._tls is not None:
                    with gevent.Timeout(HEAD_SECONDS, TimeoutError("no handshake")):
                        sock = self._tls.current.context.wrap_socket(sock, server_side=True)
            except (OSError, ValueError):
                return
            handler = self.handler_class(sock, address, self)
            handler.slot, handler.peer = slot, _find_peer(sock)
            with suppress(OSError):
                handler.handle()


def _find_peer(connection: Any) -> tuple[int, int] | None:
    """Return uid and pid of the process at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    if connection.family != socket.AF_UNIX:
        return None
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return uid, pid
