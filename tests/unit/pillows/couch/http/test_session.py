"""What `make chaos` found, by class of what was lost or broken."""

from __future__ import annotations

import errno

import pytest

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
