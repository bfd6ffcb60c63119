"""A TCP proxy that stands between a client and a server and lets the line fail as a test wishes.

It counts and keeps what passed, so that a test can say how many rows a client was really sent.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, Self

import gevent
from gevent.event import Event
from gevent.pool import Group
from gevent.server import StreamServer
from gevent.socket import create_connection
from gevent.socket import socket as GeventSocket  # noqa: N812 - it is a class

Direction = Literal["to_client", "to_server"]
CHUNK_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST instead of FIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How a line fails, from a byte of one direction on.

    Attributes:
        kind: cut (an orderly end, FIN), reset (RST), stall (silence, the connection stays).
        direction: which bytes are counted.
        after_bytes: so many pass first; the rest of what arrived with them does not.
        after_text: in place of a count: pass up to and including these bytes, once they were seen.
        times: how many connections fail; the later ones work.
    """

    kind: Literal["cut", "reset", "stall"]
    direction: Direction = "to_client"
    after_bytes: int = 0
    after_text: bytes = b""
    times: int = 1


@dataclass(slots=True, kw_only=True)
class Passed:
    """The bytes that went through one connection.

    Attributes:
        to_client: bytes that the client was sent.
        to_server: bytes that the server was sent.
        fault: how this connection ends, if it does by our doing.
    """

    to_client: bytearray = field(default_factory=bytearray)
    to_server: bytearray = field(default_factory=bytearray)
    fault: Fault | None = None


class _Broken(Exception):
    """This connection's fault has come."""


class TcpProxy:
    """A proxy on 127.0.0.1 in front of one server; a context manager.

    Args:
        target: host and port of the server.
        port: where to listen; a free port if 0.

    Attributes:
        bytes_per_second: at most so many in each direction of each connection; None is as fast as it goes.
        connections: what passed, one entry a connection, the oldest first.
    """

    def __init__(self, target: tuple[str, int], *, port: int = 0) -> None:
        self.target = target
        self.bytes_per_second: float | None = None
        self.connections: list[Passed] = []
        self._faults: list[Fault] = []
        self._left = 0
        self._open: set[GeventSocket] = set()
        self._group = Group()
        self._flowing = Event()
        self._flowing.set()
        self._port = port
        self._server: StreamServer | None = None

    # What a test says

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL for clients of an HTTP server, without a slash at its end."""
        return f"http://127.0.0.1:{self._port}"

    def fail(self, fault: Fault) -> None:
        """Lets the next `fault.times` connections fail."""
        self._faults += [fault] * fault.times

    def cut(self) -> None:
        """Ends all open connections with FIN, now."""
        self._end_all()

    def reset(self) -> None:
        """Ends all open connections with RST, now."""
        for connection in list(self._open):
            _linger_zero(connection)
        self._end_all()

    def stall(self) -> None:
        """Lets nothing pass any more, in any connection, new ones included; they stay open."""
        self._flowing.clear()

    def flow(self) -> None:
        """Ends a stall."""
        self._flowing.set()

    def refuse(self) -> None:
        """Stops listening: new connections are refused. Open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def accept(self) -> None:
        """Listens (again), on the same port."""
        if self._server is None:
            listener = GeventSocket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
            listener.listen(128)
            self._port = listener.getsockname()[1]
            self._server = StreamServer(listener, self._serve, spawn=self._group.spawn)  # type: ignore[call-overload] # any spawn
            self._server.start()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuses and drops all connections within the block, as a server does that is down."""
        self.refuse()
        self.cut()
        try:
            yield
        finally:
            self.accept()

    def received(self, direction: Direction = "to_client") -> bytes:
        """Returns all that passed in one direction, connection after connection."""
        return b"".join(bytes(getattr(passed, direction)) for passed in self.connections)

    def count(self, text: bytes, direction: Direction = "to_client") -> int:
        """Returns how often some bytes passed, e.g. ``b'"seq":'`` for rows of a changes feed."""
        return sum(bytes(getattr(passed, direction)).count(text) for passed in self.connections)

    def forget(self) -> None:
        """Forgets what passed up to now; open connections are counted on."""
        for passed in self.connections:
            passed.to_client.clear()
            passed.to_server.clear()

    def close(self) -> None:
        """Stops listening and ends all connections."""
        self.refuse()
        self._group.kill()
        self._end_all()

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # One connection

    def _serve(self, client: GeventSocket, _address: object) -> None:
        passed = Passed(fault=self._faults.pop(0) if self._faults else None)
        self.connections.append(passed)
        try:
            server = create_connection(self.target, timeout=10)
        except OSError:
            _linger_zero(client)
            client.close()
            return
        server.settimeout(None)
        self._open |= {client, server}
        pumps = [
            gevent.spawn(self._pump, client, server, passed, "to_server"),
            gevent.spawn(self._pump, server, client, passed, "to_client"),
        ]
        try:
            gevent.joinall(pumps)
        finally:
            gevent.killall(pumps)
            self._close(client, server)

    def _pump(self, source: GeventSocket, sink: GeventSocket, passed: Passed, direction: Direction) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                self._pass_on(data, sink, passed, direction)
            sink.shutdown(socket.SHUT_WR)
        except _Broken:
            self._break(source, sink, passed)
        except OSError:
            self._close(source, sink)  # one side is gone: so is the other

    def _pass_on(self, data: bytes, sink: GeventSocket, passed: Passed, direction: Direction) -> None:
        copy: bytearray = getattr(passed, direction)
        allowed, broken = _until_fault(passed.fault, direction, copy, data)
        for piece in self._paced(allowed):
            self._flowing.wait()
            sink.sendall(piece)
            copy += piece
        if broken:
            raise _Broken

    def _paced(self, data: bytes) -> Iterator[bytes]:
        while data:
            rate = self.bytes_per_second
            size = len(data) if rate is None else max(1, int(rate / 20))
            yield data[:size]
            if rate is not None:
                gevent.sleep(len(data[:size]) / rate)
            data = data[size:]

    def _break(self, source: GeventSocket, sink: GeventSocket, passed: Passed) -> None:
        kind = passed.fault.kind if passed.fault else "cut"
        if kind == "stall":
            Event().wait()  # until the connection is closed with its group
        if kind == "reset":
            _linger_zero(source)
            _linger_zero(sink)
        self._close(source, sink)

    def _end_all(self) -> None:
        self._close(*self._open)

    def _close(self, *connections: GeventSocket) -> None:
        for connection in connections:
            self._open.discard(connection)
            with suppress(OSError):
                if not _lingers_zero(connection):
                    connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _until_fault(
    fault: Fault | None, direction: Direction, copy: bytearray, data: bytes
) -> tuple[bytes, bool]:
    """Returns what of `data` may still pass, and whether the fault comes after it."""
    if fault is None or fault.direction != direction:
        return data, False
    if fault.after_text:
        end = (bytes(copy) + data).find(fault.after_text)
        stop = end + len(fault.after_text) if end >= 0 else None
    else:
        stop = fault.after_bytes
    if stop is None or stop > len(copy) + len(data):
        return data, False
    return data[: max(0, stop - len(copy))], True


def _linger_zero(connection: GeventSocket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _lingers_zero(connection: GeventSocket) -> bool:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(RESET)) == RESET
