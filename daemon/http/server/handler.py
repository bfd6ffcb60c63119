"""Serve one connection.

gevent.pywsgi has no deadlines: 20 half-sent requests fill a pool of 20 forever. Its parsing of heads took
most of the time of a small request.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http.client import responses
from typing import Any

import gevent
from gevent.pywsgi import Input, WSGIHandler

from daemon.http.messages import MAX_BODY_BYTES
from daemon.http.server.connections import Slot
from daemon.http.server.head import RequestHead, parse_head
from daemon.http.server.refusals import RefusedError, format_refusal

#: Longest wait for a whole head, and longest time that a connection may be idle.
HEAD_SECONDS = 10.0
#: Longest wait for a whole body, and again for the client to take the whole answer.
REQUEST_SECONDS = 30.0
#: Longest wait for the reader of a stream, once the kernel buffers `UNREAD_BYTES` for it.
STREAM_SECONDS = 10.0

MAX_HEAD_BYTES = 32 * 1024
#: Most bytes of a refused body that are read and dropped, so that the client reads the answer.
_LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 1.0

#: gevent's stubs lack `_sendall`, and the types of a handler's attributes during a request.
_Handler: Any = WSGIHandler

#: Our WSGI keys: the listener of the request, and the uid and pid of a client on the unix socket.
LISTENER_KEY = "pillowd.listener"
PEER_KEY = "pillowd.peer"
#: WSGI key of the function that makes the answer a stream, or returns False if there are too many.
STREAM_KEY = "pillowd.become_stream"


class BoundedHandler(_Handler):  # type: ignore[misc]
    """Serves one connection.

    Attributes:
        slot: its place among the connections.
        peer: uid and pid of the client on the unix socket; None on another one.
    """

    slot: Slot
    peer: tuple[int, int] | None = None
    rfile: Any
    _sent: Sequence[bytes] = ()
    _head: RequestHead
    _known: Mapping[str, str]
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
                self._send_and_linger(format_refusal(too_long) if result[0] == "414" else result[1])
                result = None
        except gevent.Timeout as timeout:
            if timeout is not self._deadline:
                raise
            return None
        else:
            return result
        finally:
            self._deadline.close()

    def read_request(self, raw_requestline: str) -> bool:
        """Read the rest of the head."""
        sent = [raw_requestline.encode("latin-1"), *self._read_lines()]
        if sent != self._sent:  # who asks again and again sends the same head
            self._sent, self._head = sent, parse_head(sent[0], sent[1:])
            self._known = dict(self._head.to_environ())
        head = self._head
        self.command, self.path, self.request_version = head.method, head.target, head.version
        self.content_length = head.content_length
        self.close_connection = head.closes
        return True

    def _read_lines(self) -> Iterator[bytes]:
        left = MAX_HEAD_BYTES
        while (line := self.rfile.readline(left + 1)) not in {b"\r\n", b"\n"}:
            left -= len(line)
            if left < 0:
                raise RefusedError(431, f"the head is larger than {MAX_HEAD_BYTES // 1024} KiB")
            if not line:
                raise RefusedError(400, "the head is cut")
            yield line

    def get_environ(self) -> dict[str, Any]:
        """Return the WSGI environment of the request."""
        environ: dict[str, Any] = self.server.get_environ()
        environ.update(self._known)
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = map(str, self.client_address[:2])
        continues = self.socket if self._head.headers.get("expect") == "100-continue" else None
        self.wsgi_input = Input(
            self.rfile, self.content_length, socket=continues, chunked_input=self._head.is_chunked
        )
        return environ

    def handle_one_response(self) -> None:
        """Read the whole body, then have the application answer."""
        try:
            body = self._read_body() if self._head.is_chunked or self.content_length else b""
        except RefusedError as error:
            self._refuse(error)
            return
        self.environ["wsgi.input"] = io.BytesIO(body)
        self.environ["wsgi.input_terminated"] = True
        self.environ["CONTENT_LENGTH"] = str(len(body))
        self.environ.pop("HTTP_TRANSFER_ENCODING", None)
        self.environ[PEER_KEY] = self.peer
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
                self._send_stream()
            else:
                with gevent.Timeout(REQUEST_SECONDS, TimeoutError("the answer is not read")):
                    self.process_result()
        finally:
            close = getattr(self.result, "close", None)
            self.result = None
            if self._is_stream:
                self.close_connection = True
            if close is not None:
                close()

    def _send_stream(self) -> None:
        """Send a stream until it ends, or its reader goes away: that frees the place of a stream at once."""
        watching = gevent.spawn(self._wait_for_end, gevent.getcurrent())
        try:
            self.process_result()
        finally:
            watching.kill(block=False)

    def _wait_for_end(self, sending: Any) -> None:
        """End a stream when its reader has gone, whether in good order or with a reset."""
        gone = True
        with suppress(OSError):
            gone = not self.socket.recv(1)  # it has nothing more to ask for
        if gone:
            sending.kill(block=False)

    def _write_with_headers(self, data: bytes) -> None:
        """Send the head and the first part of the body at once: two packets wake the client twice."""
        self.headers_sent = True
        self.finalize_headers()
        if data and self.response_use_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        head = [b"%b: %b\r\n" % each for each in self.response_headers]
        self._sendall(b"".join([b"HTTP/1.1 ", self.status, b"\r\n", *head, b"\r\n", data]))

    def _sendall(self, data: bytes) -> None:
        if not self._is_stream:
            super()._sendall(data)
            return
        with gevent.Timeout(STREAM_SECONDS, TimeoutError("the stream is not read")):
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
        """Log nothing: a broken client could fill the disk."""

    def _handle_client_error(self, ex: Exception) -> Any:
        if isinstance(ex, RefusedError):
            refused = ex
        elif isinstance(ex, OSError):
            refused = RefusedError(400, "this is not HTTP/1.1")
        else:
            raise ex
        return refused.status, format_refusal(refused)

    def _send_error_response_if_possible(self, error_code: int) -> None:
        self.close_connection = True
        if not self.response_length:
            with suppress(OSError):
                super()._sendall(format_refusal(RefusedError(error_code, responses[error_code])))

    def _refuse(self, error: RefusedError) -> None:
        self.close_connection = True
        self._send_and_linger(format_refusal(error))

    def _send_and_linger(self, refusal: bytes) -> None:
        """Send a refusal, and read on for a moment: a connection that is closed while data comes is reset."""
        self._cancel_deadline()
        with suppress(OSError), gevent.Timeout(LINGER_SECONDS, TimeoutError()):
            self.socket.sendall(refusal)
            self.socket.shutdown(socket.SHUT_WR)
            left = _LINGER_BYTES
            while left > 0 and (read := self.socket.recv(65536)):
                left -= len(read)

    def _read_body(self) -> bytes:
        self._cancel_deadline()
        try:
            with gevent.Timeout(REQUEST_SECONDS, RefusedError(408, "the body took too long")):
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
