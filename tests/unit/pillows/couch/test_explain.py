"""What an operator reads when the server is not what was expected."""

from __future__ import annotations

import pytest
from gevent.server import StreamServer

from pillows.couch.client import CouchClient
from pillows.couch.errors import retry_after
from pillows.couch.options import CouchConnection
from pillows.errors import RetryableError
from pillows.retry.backoff import MAX_RETRY_AFTER_SECONDS, Backoff
from tests.servers.scripted import CLOSE, head


def failure(url: str) -> str:
    couch = CouchClient(CouchConnection(url=url, timeouts={"silence": "200ms"}))
    with pytest.raises(RetryableError) as error:
        couch.json("GET", "/db", dict)
    couch.close()
    assert "urllib3" not in str(error.value)
    assert "HTTPConnectionPool" not in str(error.value)
    return str(error.value)


def test_f4_a_redirection_says_where_it_leads(scripted_server):
    server = scripted_server().on("GET", "/db", head(301, length=0, Location="https://login.example/"))
    text = failure(server.url)
    assert "301" in text
    assert f"{server.url}/db to https://login.example/" in text
    assert "`url`" in text


def test_f4_a_page_to_log_in_at_is_named(scripted_server):
    page = head(length=6, content_type="text/html; charset=utf-8") + b"<html>"
    server = scripted_server().on("GET", "/db", page)
    text = failure(server.url)
    assert f"{server.url}/db is an HTML page" in text
    assert "proxy" in text


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b""])
def test_f4_https_at_a_port_of_http_is_named(answer):
    def serve(connection, _):
        connection.recv(4096)
        connection.sendall(answer)

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    text = failure(f"https://127.0.0.1:{server.server_port}")
    server.stop()
    assert "does not speak TLS: write `http://`" in text


def test_f4_a_refused_connection_is_named():
    assert failure("http://127.0.0.1:9").startswith("Connection refused by 127.0.0.1:9: start the server")


def test_f4_a_name_that_does_not_exist_is_named():
    assert "The name of nowhere.invalid:5984 cannot be resolved" in failure("http://nowhere.invalid:5984")


def test_f4_a_server_that_hangs_up_is_named(scripted_server):
    server = scripted_server().on("GET", "/db", [CLOSE])
    assert "`https://`" in failure(server.url)


@pytest.mark.parametrize("asked", ["inf", "1e12", "9" * 400, "nan", "-5", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_c5_no_server_keeps_us_away_for_good(asked):
    waited = retry_after({"Retry-After": asked}, now=0.0)
    assert waited is None or 0 <= waited <= MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("seconds", [float("inf"), 1e12, float("nan"), -5.0])
def test_c5_whatever_an_error_asks_for_is_capped(seconds):
    delay_seconds = Backoff().after(RetryableError("x", retry_after_seconds=seconds))
    assert 0 <= delay_seconds <= MAX_RETRY_AFTER_SECONDS
