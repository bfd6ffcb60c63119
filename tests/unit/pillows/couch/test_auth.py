"""Credentials: renewed in time, tried seldom when refused, never shown."""

from __future__ import annotations

import ssl
import subprocess
import time
from base64 import b64encode

import certifi
import gevent
import jwt
import pytest
import requests
from gevent.pywsgi import WSGIServer
from pydantic import ValidationError

from pillows.couch.client import CouchClient
from pillows.couch.errors import ThrottledError, classify, retry_after
from pillows.couch.options import (
    BasicAuth,
    BearerAuth,
    CouchConnection,
    JwtAuth,
    SessionAuth,
)
from pillows.errors import AccessError, PillowError, RetryableError
from pillows.observer import Observer
from tests.servers.scripted import HANG, Request, ScriptedServer, chunk, head, json_reply
from tests.support.clock import FakeClock
from tests.unit.pillows.feed.wire import couchdb, feed_of, page, reply, row, taking

SECRET = "s3cr3t-pä$$:word"
REFUSED = json_reply({"error": "unauthorized", "reason": "Name or password is incorrect."}, 401)
CHANGES = ("GET", "/db/_changes")


@pytest.fixture
def server(scripted_server) -> ScriptedServer:
    return couchdb(scripted_server())


def welcome(couch: CouchClient) -> object:
    return couch.json("GET", "/", dict)


def sent(server: ScriptedServer, header: str) -> list[str | None]:
    return [request.headers.get(header) for request in server.requests]


def test_basic_sends_name_and_password_in_utf8(server, clock):
    auth = BasicAuth(username="ümit", password=SECRET)
    welcome(CouchClient(CouchConnection(url=server.url, auth=auth), clock=clock))
    assert sent(server, "authorization") == ["Basic " + b64encode(f"ümit:{SECRET}".encode()).decode()]


def test_bearer_sends_its_token(server, clock):
    auth = BearerAuth(type="bearer", token="abc.def")
    welcome(CouchClient(CouchConnection(url=server.url, auth=auth), clock=clock))
    assert sent(server, "authorization") == ["Bearer abc.def"]


def test_a_token_file_is_read_again(server, clock, tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    couch = CouchClient(
        CouchConnection(url=server.url, auth=JwtAuth(type="jwt", token_file=file)), clock=clock
    )
    welcome(couch)
    file.write_text("two\n")
    welcome(couch)
    assert sent(server, "authorization") == ["Bearer one", "Bearer two"]
    file.unlink()
    with pytest.raises(RetryableError, match="token"):
        welcome(couch)


def test_netrc_and_environment_never_lend_credentials(server, clock, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login joe password pw")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    welcome(CouchClient(CouchConnection(url=server.url), clock=clock))
    assert sent(server, "authorization") == [None]


def test_a_proxy_of_the_environment_is_used(server, clock, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.on("GET", "http://couch.invalid:5984/", json_reply({}))
    server.on("GET", "/", json_reply({}))
    welcome(CouchClient(CouchConnection(url="http://couch.invalid:5984"), clock=clock))
    assert server.requests[0].raw_target == "http://couch.invalid:5984/"


def test_the_environment_is_looked_at_once_for_each_server(server, clock, monkeypatch):
    looks, find = [], requests.sessions.get_environ_proxies
    monkeypatch.setattr(
        "requests.sessions.get_environ_proxies", lambda url, **more: (looks.append(url), find(url, **more))[1]
    )
    client = CouchClient(CouchConnection(url=server.url), clock=clock)
    for _ in range(3):
        welcome(client)
    assert len(looks) == 1


# --- sessions


def session_server(server: ScriptedServer, max_age: int = 600) -> ScriptedServer:
    count = iter(range(1, 100))

    def login(request: Request) -> bytes:
        assert request.json() == {"name": "joe", "password": SECRET}
        cookie = f"AuthSession=cookie{next(count)}; Version=1; Path=/; HttpOnly; Max-Age={max_age}"
        return json_reply({"ok": True}, Set_Cookie=cookie)

    return server.on("POST", "/_session", login)


def session(server: ScriptedServer, clock: FakeClock) -> CouchClient:
    auth = SessionAuth(type="session", username="joe", password=SECRET)
    return CouchClient(CouchConnection(url=server.url, auth=auth), clock=clock)


def test_a_session_is_renewed_before_it_ends(server, clock):
    couch = session(session_server(server), clock)
    for seconds in (0, 400, 79, 2, 0):
        clock.advance(seconds)
        welcome(couch)
    cookies = [c for c in sent(server, "cookie") if c]
    assert cookies == [f"AuthSession=cookie{n}" for n in (1, 1, 1, 2, 2)]


def test_twenty_readers_share_one_login(server, clock):
    couch = session(session_server(server), clock)
    gevent.joinall([gevent.spawn(welcome, couch) for _ in range(20)], raise_error=True)
    assert len(server.requests_of("POST", "/_session")) == 1


def test_a_session_that_the_server_forgot_is_renewed_once_and_the_request_repeated(server, clock):
    server.on("GET", "/", REFUSED, json_reply({}))
    couch = session(session_server(server), clock)
    assert welcome(couch) == {}
    assert [c for c in sent(server, "cookie") if c] == ["AuthSession=cookie1", "AuthSession=cookie2"]


def test_cookies_that_live_four_seconds_lose_no_row(server, clock):
    """Each response ends with its cookie; a stream survives its cookie's end, the next request does not."""
    session_server(server, max_age=4)

    def changes(request: Request) -> bytes:
        n = int(request.query["since"].partition("-")[0])
        clock.advance(5)
        if request.query["feed"] == "normal":
            return reply(page([row(n + 1)], f"{n + 1}-tok"))
        return head(chunked=True) + chunk(row(n + 1) + b"\n" + row(n + 2) + b"\n") + chunk(b"")

    server.on(*CHANGES, changes)
    auth = SessionAuth(type="session", username="joe", password=SECRET)
    with taking(feed_of(server.url, clock=clock, auth=auth)) as taken:
        taken.until(lambda: len(taken.ids) > 20)
    assert taken.error is None
    assert taken.ids == [f"doc-{n}" for n in range(1, len(taken.ids) + 1)]
    assert len(server.requests_of("POST", "/_session")) > 5


# --- being throttled


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("3", 3),
        ("0", 0),
        ("100000", 120),
        pytest.param("9" * 400, 120, id="c5-a-huge-number"),
        ("inf", None),
        ("1e12", None),
        ("Sun, 06 Nov 9999 08:49:40 GMT", 120),
        ("Sun, 06 Nov 1994 08:49:40 GMT", 3),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_is_capped(header, expected):
    assert retry_after({"Retry-After": header}, now=784111777.0) == expected


def test_the_next_request_comes_no_earlier_than_the_server_asked_for(server, clock):
    busy = json_reply({"error": "too_many_requests"}, 429, Retry_After="30")
    server.on(*CHANGES, busy, reply(page([row(1)], "1-x")), [head(chunked=True), HANG])
    began = clock.monotonic()
    with taking(feed_of(server.url, clock=clock)) as taken:
        taken.until(lambda: taken.ids)
    assert clock.monotonic() - began >= 30


def test_without_retry_after_it_is_a_second_at_least():
    error = classify(429, {}, b"", now=0)
    assert isinstance(error, ThrottledError)
    assert error.retry_after_seconds == 1


# --- certificates


@pytest.fixture
def tls_server(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext "
        f"subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED

    def answer(environ, start):
        start("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    server = WSGIServer(("127.0.0.1", 0), answer, ssl_context=context, log=None, error_log=None)
    server.start()
    yield f"https://127.0.0.1:{server.server_port}", certificate, key
    server.stop(timeout=0)


def test_an_unknown_certificate_is_refused_with_the_remedy_and_taken_with_its_bundle(tls_server, clock):
    url, certificate, key = tls_server
    with pytest.raises(AccessError, match="ca_bundle"):
        welcome(CouchClient(CouchConnection(url=url), clock=clock))
    trusting = CouchConnection(url=url, ca_bundle=certificate, client_cert=certificate, client_key=key)
    assert welcome(CouchClient(trusting, clock=clock)) == {}


def test_d4_the_systems_certificates_are_trusted_and_those_of_requests_are_not(
    tls_server, clock, monkeypatch
):
    url, certificate, key = tls_server
    ours = CouchConnection(url=url, client_cert=certificate, client_key=key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # as if an administrator had added it
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())  # one way to say another: `ca_bundle`
    assert welcome(CouchClient(ours, clock=clock)) == {}
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with pytest.raises(AccessError, match="ca_bundle"):
        welcome(CouchClient(ours, clock=clock))


@pytest.mark.parametrize("files", ["one", "two"])
def test_our_certificate_is_shown_to_a_server_that_wants_one(tls_server, clock, tmp_path, files):
    url, certificate, key = tls_server
    with pytest.raises(PillowError):
        welcome(CouchClient(CouchConnection(url=url, ca_bundle=certificate), clock=clock))
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    ours = {"client_cert": both} if files == "one" else {"client_cert": certificate, "client_key": key}
    assert welcome(CouchClient(CouchConnection(url=url, ca_bundle=certificate, **ours), clock=clock)) == {}


# --- nothing is shown


@pytest.mark.parametrize("url", ["http://joe:pw@couch:5984", "ftp://couch", "couch:5984", "http://couch?x=1"])
def test_a_url_with_credentials_or_without_sense_is_refused_and_not_repeated(url):
    with pytest.raises(ValidationError) as raised:
        CouchConnection(url=url)
    assert "pw@" not in str(raised.value)


KINDS = ["basic", "session", "bearer", "jwt", "iam"]


@pytest.fixture
def auth_of(server, tmp_path):
    """Every kind of `auth`, with the secrets that it sends to this server."""
    now = int(time.time())
    token = jwt.encode({"exp": now + 3600, "iat": now}, "k" * 32, algorithm="HS256")
    (tmp_path / "token").write_text(token)
    session_server(server).on("POST", "/identity/token", json_reply({"access_token": token}))
    pair = {"username": "joe", "password": SECRET}
    encoded = b64encode(f"joe:{SECRET}".encode()).decode()
    known = {
        "basic": (pair, [SECRET, encoded]),
        "session": (pair, [SECRET, "cookie1", "cookie2"]),
        "bearer": ({"token": SECRET}, [SECRET]),
        "jwt": ({"token_file": tmp_path / "token"}, [token]),
        "iam": ({"apikey": SECRET, "url": server.url}, [SECRET, token]),
    }
    assert list(known) == KINDS

    def auth(kind: str) -> tuple[dict[str, object], list[str]]:
        settings, secrets = known[kind]
        return {"type": kind, **settings}, secrets

    return auth


@pytest.mark.parametrize("kind", KINDS)
def test_no_message_holds_a_secret(server, clock, kind, auth_of):
    said: list[str] = []

    class Listener(Observer):
        def retry(self, tail, **facts):
            said.append(str(facts))

        def warning(self, tail, **facts):
            said.append(str(facts))

    echo = json_reply({"error": "unknown", "reason": "no"}, 500)
    server.on(*CHANGES, echo, REFUSED)
    auth, secrets = auth_of(kind)
    feed = feed_of(server.url, clock=clock, auth=auth, observer=Listener())
    with taking(feed) as taken:
        taken.ended()
    assert isinstance(taken.error, AccessError)
    assert said, "the first failure was told"
    said += [str(taken.error), repr(taken.error), repr(feed.__dict__), str(feed.trouble)]
    assert [secret for secret in secrets if secret in "".join(said)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_in_a_librarys_message_is_cut_out(server, clock, kind, auth_of):
    auth, secrets = auth_of(kind)
    couch = CouchClient(CouchConnection(url=server.url, auth=auth), clock=clock)
    welcome(couch)
    sent_now = [secret for secret in secrets if secret != "cookie2"]
    for secret in sent_now:
        with pytest.raises(RetryableError) as raised, couch.translate_errors():
            raise OSError(f"cannot send {secret}")
        assert secret not in str(raised.value)
        assert "***" in str(raised.value)
