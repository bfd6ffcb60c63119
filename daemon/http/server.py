"""gevent's HTTP server, with limits and deadlines for slow, broken and hostile clients.

gevent.pywsgi has no deadlines: 20 half-sent requests fill a pool of 20 forever.
"""

from __future__ import annotations

import io
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, responses
from typing import Any

import gevent
from gevent.pywsgi import WSGIHandler, WSGIServer

from daemon.http.certificate import ServerCertificate
from daemon.http.connections import Connections, Slot
from daemon.http.messages import MAX_BODY_BYTES, PROBLEM

#: Longest wait for a whole head, and longest time that a connection may be idle.
HEAD_SECONDS = 10.0
#: Longest wait for a whole body, and again for the client to take the whole answer.
REQUEST_SECONDS = 30.0
#: Longest wait for the reader of a stream, once the kernel buffers `UNREAD_BYTES` for it.
STREAM_SECONDS = 10.0
UNREAD_BYTES = 256 * 1024

MAX_HEAD_BYTES = 32 * 1024
#: Most bytes of a refused body that are read and dropped, so that the client reads the answer.
_LINGER_BYTES = 1024 * 1024
_LINGER_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")

#: gevent's stubs lack `_sendall`, and the types of a handler's attributes during a request.
_Handler: Any = WSGIHandler

#: Our WSGI keys: the listener of the request, and the uid and pid of a client on the unix socket.
LISTENER_KEY = "pillowd.listener"
PEER_KEY = "pillowd.peer"
#: WSGI key of the function that makes the answer a stream, or returns False if there are too many.
STREAM_KEY = "pillowd.become_stream"


class RefusedError(Exception):
    """A request that is refused before it reaches the application.

    Attributes:
        status: the HTTP status.
        detail: why.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class _BoundedHead:
    """Reads the lines of a head, and refuses one that is too long."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = MAX_HEAD_BYTES

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(min(self._left + 1, size if size >= 0 else self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise RefusedError(431, f"the head is larger than {MAX_HEAD_BYTES // 1024} KiB")
        return line


class BoundedHandler(_Handler):  # type: ignore[misc]
    """Serves one connection.

    Attributes:
        slot: its place among the connections.
    """

    slot: Slot
    rfile: Any
    _deadline: gevent.Timeout | None = None
    _is_stream = False

    def handle_one_request(self) -> Any:
        """Serve one request; return None or True like gevent's handler, or the bytes of a refusal."""
        self._is_stream = False
        self.server.connections.wait_for(self.slot)
        self._deadline = gevent.Timeout.start_new(HEAD_SECONDS)
        try:
            result = super().handle_one_request()
            if isinstance(result, tuple):
                # gevent's own refusal is not a problem document
                too_long = RefusedError(414, "the path and query are too long")
                self._send_and_linger(_format_refusal(too_long) if result[0] == "414" else result[1])
                result = None
        except gevent.Timeout as timeout:
            if timeout is not self._deadline:
                raise
            return None
        else:
            return result
        finally:
            self._deadline.close()

    def read_request(self, raw_requestline: str) -> Any:
        """Read the rest of the head."""
        whole, self.rfile = self.rfile, _BoundedHead(self.rfile)
        try:
            result = super().read_request(raw_requestline)
        except IndexError as error:  # gevent's, about a version without a dot, such as HTTP/1
            raise RefusedError(400, "the request line has no valid HTTP version") from error
        finally:
            self.rfile = whole
        self._check_head()
        return result

    def MessageClass(self, *args: Any) -> Any:  # noqa: N802 - gevent's name
        """Parse the headers, and keep the names: gevent forgets a length beside chunks."""
        message = super().MessageClass(*args)
        self._names = [name.lower() for name in message]
        return message

    def _check_head(self) -> None:
        names = self._names
        if self.request_version == "HTTP/0.9":
            raise RefusedError(400, "the request has no HTTP version")
        if any(names.count(name) > 1 for name in ("host", "content-length", "transfer-encoding")):
            raise RefusedError(400, "a header is given twice")
        # A proxy may see the end of such a request elsewhere: RFC 9112, sections 5.1 and 6.1.
        if self.headers.defects:
            raise RefusedError(400, "a line of the head is not a header")
        if "content-length" in names and "transfer-encoding" in names:
            raise RefusedError(400, "the body has a length and chunks as well")
        if self.headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":
            raise RefusedError(400, "the transfer encoding is not chunked, the only one accepted")
        if (self.content_length or 0) > MAX_BODY_BYTES:
            raise RefusedError(413, f"the body is larger than {MAX_BODY_BYTES // 1024} KiB")

    def handle_one_response(self) -> None:
        """Read the whole body, then have the application answer."""
        try:
            with self._within(REQUEST_SECONDS, RefusedError(408, "the body took too long")):
                body = self._read_body()
        except RefusedError as error:
            self._refuse(error)
            return
        self.environ["wsgi.input"] = io.BytesIO(body)
        self.environ["CONTENT_LENGTH"] = str(len(body))
        self.environ.pop("HTTP_TRANSFER_ENCODING", None)
        self.environ[PEER_KEY] = _find_peer(self.socket)
        self.environ[STREAM_KEY] = self._become_stream
        super().handle_one_response()

    def run_application(self) -> None:
        """Have the application answer, and send the answer."""
        try:
            self.slot.working = True
            try:
                self._cancel_deadline()
                self.result = self.application(self.environ, self.start_response)
            finally:
                if not self._is_stream:
                    self.server.connections.wait_for(self.slot)
            if self._is_stream:
                self.process_result()
            else:
                with self._within(REQUEST_SECONDS, TimeoutError("the answer is not read")):
                    self.process_result()
        finally:
            close = getattr(self.result, "close", None)
            self.result = None
            if self._is_stream:
                self.close_connection = True
            if close is not None:
                close()

    def _sendall(self, data: bytes) -> None:
        if not self._is_stream:
            super()._sendall(data)
            return
        with self._within(STREAM_SECONDS, TimeoutError("the stream is not read")):
            super()._sendall(data)

    def handle_error(self, kind: Any, value: Any, stack: Any) -> None:
        """Close the connection of a client that went away; anything else is a defect, and logged."""
        if isinstance(value, OSError | gevent.GreenletExit):
            self.close_connection = True
            return
        super().handle_error(kind, value, stack)

    def log_request(self) -> None:
        """Log nothing: the application counts requests."""

    def log_error(self, msg: str, *args: Any) -> None:
        """Log nothing: what a broken client sends is its own affair, and could fill the disk."""

    def _handle_client_error(self, ex: Exception) -> Any:
        if isinstance(ex, RefusedError):
            refused = ex
        elif isinstance(ex, HTTPException | ValueError | OSError):
            refused = RefusedError(400, "this is not HTTP/1.1")
        else:
            raise ex
        return refused.status, _format_refusal(refused)

    def _send_error_response_if_possible(self, error_code: int) -> None:
        self.close_connection = True
        if not self.response_length:
            with suppress(OSError):
                super()._sendall(_format_refusal(RefusedError(error_code, responses[error_code])))

    def _refuse(self, error: RefusedError) -> None:
        self.close_connection = True
        self._send_and_linger(_format_refusal(error))

    def _send_and_linger(self, refusal: bytes) -> None:
        """Send a refusal, and read on for a moment: a connection that is closed while data comes is reset."""
        self._cancel_deadline()
        with suppress(OSError), self._within(_LINGER_SECONDS, TimeoutError()):
            self.socket.sendall(refusal)
            self.socket.shutdown(socket.SHUT_WR)
            left = _LINGER_BYTES
            while left > 0 and (read := self.socket.recv(65536)):
                left -= len(read)

    def _read_body(self) -> bytes:
        self._cancel_deadline()
        try:
            body: bytes = self.wsgi_input.read(MAX_BODY_BYTES + 1)
        except OSError as error:
            raise RefusedError(400, "the body is cut or its chunks are broken") from error
        except ValueError as error:
            raise RefusedError(400, "the body's chunks are broken") from error
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(413, f"the body is larger than {MAX_BODY_BYTES // 1024} KiB")
        if len(body) < (self.content_length or 0):
            raise RefusedError(400, "the body is cut")
        return body

    def _become_stream(self) -> bool:
        self._is_stream = bool(self.server.connections.become_stream(self.slot))
        return self._is_stream

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    @staticmethod
    @contextmanager
    def _within(seconds: float, error: Exception) -> Iterator[None]:
        with gevent.Timeout(seconds, error):
            yield


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
                    sock.settimeout(_LINGER_SECONDS)
                    if self._tls is None:
                        sock.sendall(_format_refusal(RefusedError(503, "too many requests at once")))
                return
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
            try:
                if self._tls is not None:
                    with gevent.Timeout(HEAD_SECONDS, TimeoutError("no handshake")):
                        sock = self._tls.current.context.wrap_socket(sock, server_side=True)
            except (OSError, ValueError):
                return
            handler = self.handler_class(sock, address, self)
            handler.slot = slot
            with suppress(OSError):
                handler.handle()


def _find_peer(connection: Any) -> tuple[int, int] | None:
    """Return uid and pid of the process at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    if connection.family != socket.AF_UNIX:
        return None
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return uid, pid


def _format_refusal(error: RefusedError) -> bytes:
    reason = responses.get(error.status, "Refused")
    problem = {
        "type": "urn:pillowd:error:invalid-request",
        "title": reason,
        "status": error.status,
        "detail": error.detail,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
