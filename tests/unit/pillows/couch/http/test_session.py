"""What `make chaos` found, by class of what was lost or broken."""

from __future__ import annotations

import errno

import pytest
import requests

from pillows.couch.client import CouchClient
from pillows.couch.http import session as http_session
from pillows.couch.options import CouchConnection
from pillows.errors import RetryableError


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        OSError(errno.EPROTOTYPE, "Protocol wrong type for socket"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        TimeoutError("timed out"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_line_that_fails_while_it_is_connected_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """urllib3 passes over a reset while it sends, and then read from a connection that never was."""

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(http_session, "_connect", failing)
    couch = CouchClient(CouchConnection(url="http://127.0.0.1:1"))
    with pytest.raises(RetryableError):
        couch.json("GET", "/", dict)
    couch.close()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/", None),
        ("GET", "/user-%2B1%2F%28a%29/_changes?feed=normal&since=5-g1AAAA~_-&limit=200", None),
        ("POST", "/db/_bulk_get?latest=true", b'{"docs":[]}'),
        ("POST", "/_session", None),
        ("PUT", "/db", None),
        ("GET", "/db/d%C3%A9?rev=1-a", None),
        ("GET", "/db/not encoded, and \u00fcber?x=%zz", None),
    ],
)
def test_a_request_is_prepared_as_requests_prepares_it(method: str, path: str, body: bytes | None) -> None:
    ours = http_session.create_session(CouchConnection(url="http://127.0.0.1:1"))
    headers = {"Authorization": "Basic eDp5", **({"Content-Type": "application/json"} if body else {})}
    for server in ("http://127.0.0.1:5984", "https://b\u00fccher.example:6984", "http://[::1]:5984"):
        request = requests.Request(method, server + path, data=body, headers=headers)
        prepared, plain = ours.prepare_request(request), requests.Session.prepare_request(ours, request)
        assert (prepared.method, prepared.url, prepared.body) == (plain.method, plain.url, plain.body)
        assert prepared.headers == plain.headers
