"""Slow, broken and hostile clients of the server: each harms itself only."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest

from daemon.http.listeners import listen_on_path
from daemon.http.server import handler as module
from daemon.http.server.handler import STREAM_KEY
from daemon.http.server.server import BoundedServer
from tests.support.http_listener import HttpListener

QUICK = 0.3


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """Tells the length of the body; `/slow` waits, `/stream` never ends, `/quiet` sends
    once, `/large` is large."""
    path = environ["PATH_INFO"]
    if path == "/slow":
        gevent.sleep(QUICK * 3)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/stream":
        environ[STREAM_KEY]()
        return iter(lambda: b"x" * 100_000, b"")
    if path == "/quiet":
        environ[STREAM_KEY]()
        return quiet()
    if path == "/large":
        return [b"x" * 10_000_000]
    return [str(len(environ["wsgi.input"].read())).encode()]


def quiet() -> Iterator[bytes]:
    yield b"first"
    gevent.sleep(3600)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BoundedServer]:
    monkeypatch.setattr(module, "HEAD_SECONDS", QUICK)
    monkeypatch.setattr(module, "REQUEST_SECONDS", QUICK)
    monkeypatch.setattr(module, "STREAM_SECONDS", QUICK)
    running = BoundedServer(listen_on_path(tmp_path / "s"), application, name="unix")
    running.start()
    yield running
    running.stop(1)


@pytest.fixture
def listener(server: BoundedServer, tmp_path: Path) -> HttpListener:
    return HttpListener(tmp_path / "s")


def say(listener: HttpListener, sent: bytes) -> bytes:
    """Sends bytes; returns all that comes back until the server closes the connection."""
    with listener.connect() as connection:
        with suppress(BrokenPipeError):
            connection.sendall(sent)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    try:
        while read := connection.recv(65536):
            found += read
    except ConnectionError:
        pass
    return found


def test_a_request_is_answered(listener: HttpListener) -> None:
    assert listener.ask("POST", "/", b"x" * 65536).text == "65536"


def test_a_connection_serves_several_requests(listener: HttpListener) -> None:
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
    assert say(listener, request * 3).count(b"HTTP/1.1 200 OK") == 3


def test_each_request_of_a_connection_has_its_own_head(listener: HttpListener) -> None:
    bodies = [b"abc", b"abc", b"abcde", b"", b"abc"]
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    said = say(listener, b"".join(head % len(body) + body for body in bodies))
    assert re.findall(rb"\r\n\r\n(\d)", said) == [b"3", b"3", b"5", b"0", b"3"]


def test_no_answer_waits_for_the_client_to_confirm_a_part_of_it() -> None:
    """TCP delays both: such a wait takes 40 ms."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    server = BoundedServer(listening, application, name="read")
    server.start()
    requests = 50
    try:
        with socket.create_connection(listening.getsockname()) as client, gevent.Timeout(60):
            began = time.monotonic()
            for _ in range(requests):
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                said = b""
                while not said.endswith(b"\r\n\r\n0"):
                    said += client.recv(65536)
            assert time.monotonic() - began < requests * 0.03
    finally:
        server.stop(1)


@pytest.mark.parametrize("begin", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local", b"\x16\x03\x01"])
def test_half_a_head_is_cut_off_in_time(listener: HttpListener, begin: bytes) -> None:
    with gevent.Timeout(30):
        assert b"200 OK" not in say(listener, begin)


def test_a_head_without_its_end_is_refused(listener: HttpListener) -> None:
    with listener.connect() as connection, gevent.Timeout(30):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).startswith(b"HTTP/1.1 400")


def test_half_a_body_is_cut_off_in_time(listener: HttpListener) -> None:
    with gevent.Timeout(30):
        said = say(listener, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
    assert said.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET /\r\n\r\n", b"400"),
        (b"\r\n\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(101)) + b"\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: %s\r\n" % (b"x" * 5000) * 9 + b"\r\n", b"431"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000, b"413"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: y\r\n folded\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: y\r\nno header\r\nHost: a\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef", b"400"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8000\r\n%s\r\n" % (b"x" * 32768) * 3,
            b"413",
        ),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(
    listener: HttpListener, sent: bytes, status: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with gevent.Timeout(30):
        said = say(listener, sent)
    assert said.startswith(b"HTTP/1.1 " + status), said[:200]
    assert json.loads(said.partition(b"\r\n\r\n")[2])["status"] == int(status)
    assert listener.get("/").status == 200
    assert "Traceback" not in "".join(capfd.readouterr())


def test_half_requests_do_not_keep_others_out(server: BoundedServer, listener: HttpListener) -> None:
    halves = [listener.connect() for _ in range(300)]
    for half in halves:
        with suppress(BrokenPipeError):  # it has had to go already
            half.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
        with gevent.Timeout(30):
            assert half is not halves[-1] or listener.get("/").status == 200
    assert len(server.connections) <= 48
    for half in halves:
        half.close()


def test_requests_that_are_being_answered_are_not_cut(
    server: BoundedServer, listener: HttpListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [gevent.spawn(listener.get, "/slow") for _ in range(48)]
    while sum(slot.working for slot in server.connections._slots) < 48:
        gevent.sleep(0.01)
    assert listener.get("/").status == 503
    assert {each.get(timeout=60).status for each in slow} == {200}


def test_an_answer_that_nobody_reads_is_dropped(server: BoundedServer, listener: HttpListener) -> None:
    with listener.connect() as connection, gevent.Timeout(30):
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not len(server.connections):
            gevent.sleep(0.01)
        while len(server.connections):
            gevent.sleep(0.01)


@pytest.mark.parametrize("linger", [(0, 0), (1, 0)], ids=["in good order", "with a reset"])
def test_a_stream_ends_as_soon_as_its_reader_goes_away(
    server: BoundedServer, listener: HttpListener, linger: tuple[int, int]
) -> None:
    """Else a reader that comes again would find all places taken."""
    with listener.connect() as connection, gevent.Timeout(30):
        connection.sendall(b"GET /quiet HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not server.connections.streams:
            gevent.sleep(0.01)
        assert connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", *linger))
    with gevent.Timeout(QUICK * 10):
        while server.connections.streams:
            gevent.sleep(0.01)


def test_a_stream_that_nobody_reads_is_dropped_and_others_go_on(
    server: BoundedServer, listener: HttpListener
) -> None:
    with listener.connect() as unread, listener.connect() as read, gevent.Timeout(60):
        for each in (unread, read):
            each.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while server.connections.streams < 2:
            gevent.sleep(0.01)
        taken = 0
        while server.connections.streams > 1:
            taken += len(read.recv(65536))
        assert taken
        assert len(server.connections) == 0, "streams are counted apart"
