"""How seldom credentials are sent that a server refuses: it locks accounts that fail too often."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

from pillows.couch import login_throttle
from pillows.couch.client import CouchClient
from pillows.couch.errors import ForbiddenError, RefusedError, classify
from pillows.couch.options import BasicAuth, CouchConnection, SessionAuth, Timeouts
from pillows.errors import AccessError, RetryableError
from tests.servers.scripted import HANG, RESET, Pause, Request, ScriptedServer, chunk, head, json_reply
from tests.support.clock import FakeClock
from tests.unit.pillows.feed.wire import couchdb, feed_of, taking

REFUSED = json_reply({"error": "unauthorized", "reason": "Name or password is incorrect."}, 401)
LOCK = "Account is temporarily locked due to multiple authentication failures"
LOCKED = json_reply({"error": "forbidden", "reason": LOCK}, 403)
NOT_ALLOWED = json_reply({"error": "forbidden", "reason": "You are not allowed to access this db."}, 403)
CHANGES = ("GET", "/db/_changes")
READERS = 20


@pytest.fixture
def server(scripted_server) -> ScriptedServer:
    return couchdb(scripted_server())


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes for an answer, it is waited for."""
    monkeypatch.setattr(login_throttle, "UNANSWERED_SECONDS", 600.0)


def basic(server: ScriptedServer, clock: FakeClock) -> CouchClient:
    auth, timeouts = BasicAuth(username="j", password="x"), Timeouts(silence=600.0)
    return CouchClient(CouchConnection(url=server.url, auth=auth, timeouts=timeouts), clock=clock)


def ask(couch: CouchClient, path: str = "/") -> object:
    return couch.json("GET", path, dict)


def is_refused(couch: CouchClient) -> None:
    with pytest.raises(AccessError):
        ask(couch)


def together(work, *arguments: object) -> None:
    gevent.joinall([gevent.spawn(work, *arguments) for _ in range(READERS)], raise_error=True)


# --- a wrong password


@pytest.mark.parametrize("kind", ["basic", "session"])
@pytest.mark.parametrize("refusal", [REFUSED, LOCKED])
def test_a_wrong_password_is_tried_twice_in_five_minutes(server, clock, kind, refusal):
    server.on("GET", "/", refusal).on("POST", "/_session", refusal)
    auth = {"type": kind, "username": "joe", "password": "x"}
    couch = CouchClient(CouchConnection(url=server.url, auth=auth), clock=clock)
    for _ in range(100):
        is_refused(couch)
        clock.advance(2.9)
    assert len(server.requests) == 2
    clock.advance(20)
    is_refused(couch)
    assert len(server.requests) == 3


def test_twenty_readers_with_a_wrong_password_try_it_twice_together(server, clock):
    server.on("GET", "/", REFUSED)
    together(is_refused, basic(server, clock))
    assert len(server.requests) == 2


def test_readers_that_come_back_after_a_cut_try_a_changed_password_twice_together(server, clock):
    """The server was restarted, and its streams broke at one moment: nobody knows any more who we are."""
    end = Event()
    server.on("GET", "/stream", [head(chunked=True), chunk(b"\n"), Pause(end), RESET])
    couch = basic(server, clock)
    reading = set[int]()

    def read_on(number: int) -> None:
        with couch.open("GET", "/stream") as answer:
            blocks = answer.blocks()
            next(blocks)
            reading.add(number)
            with pytest.raises(RetryableError):
                next(blocks)
        is_refused(couch)

    readers = [gevent.spawn(read_on, number) for number in range(READERS)]
    with gevent.Timeout(60):
        while len(reading) < READERS:
            gevent.sleep(0.01)
    server.on("GET", "/", REFUSED)
    end.set()
    gevent.joinall(readers, raise_error=True)
    assert len(server.requests_of("GET", "/")) == 2


def test_a_failed_connection_counts_as_a_cut(server, clock):
    server.on("GET", "/", json_reply({}), [RESET], REFUSED)
    couch = basic(server, clock)
    ask(couch)
    with pytest.raises(RetryableError):
        ask(couch)
    together(is_refused, couch)
    assert len(server.requests) == 2 + 2


def test_a_session_that_ends_under_twenty_readers_tries_a_changed_password_twice(server, clock):
    cookie = "AuthSession=c1; Version=1; Max-Age=600"
    server.on("POST", "/_session", json_reply({"ok": True}, Set_Cookie=cookie), [Pause(0.05), REFUSED])
    auth = SessionAuth(type="session", username="joe", password="x")
    couch = CouchClient(CouchConnection(url=server.url, auth=auth), clock=clock)
    ask(couch)
    clock.advance(600)
    together(is_refused, couch)
    assert len(server.requests_of("POST", "/_session")) == 1 + 2


def test_readers_that_waited_for_the_first_one_go_on_all_at_once(server, clock):
    """Readers that waited while the credentials were tried do not hold up one another."""
    rest = Event()

    def answer(request: Request) -> object:
        if len(server.requests) == READERS:
            rest.set()
        first = len(server.requests) == 1
        return json_reply({}) if first else [Pause(rest), json_reply({})]

    server.on("GET", "/", answer)
    with gevent.Timeout(60):
        together(ask, basic(server, clock))


def test_a_server_that_says_nothing_to_one_reader_holds_up_the_others_for_a_moment_only(
    server, clock, monkeypatch
):
    """A password is checked before anything else, so silence is no refusal."""
    monkeypatch.setattr(login_throttle, "UNANSWERED_SECONDS", 0.01)
    server.on("GET", "/silent", [HANG])
    couch = basic(server, clock)
    held_up = gevent.spawn(ask, couch, "/silent")
    with gevent.Timeout(60):
        while not server.requests:
            gevent.sleep(0.01)
        ask(couch)
    assert not held_up.ready()
    held_up.kill()


def test_a_feed_that_is_refused_ends_with_the_reason(server, clock):
    server.on(*CHANGES, REFUSED)
    with taking(feed_of(server.url, clock=clock, auth=BasicAuth(username="j", password="x"))) as taken:
        taken.ended()
    assert isinstance(taken.error, AccessError)
    assert "Name or password is incorrect" in str(taken.error)
    assert len(server.requests_of(*CHANGES)) == 1


def test_a_server_that_is_away_is_no_refusal(clock):
    couch = CouchClient(
        CouchConnection(url="http://127.0.0.1:9", auth=BasicAuth(username="j", password="x")), clock=clock
    )
    for _ in range(5):
        with pytest.raises(RetryableError):
            ask(couch)


# --- a right password that is not enough


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (401, "Name or password is incorrect.", RefusedError),
        (401, "You are not authorized to access this db.", RefusedError),
        (403, LOCK, RefusedError),
        (403, "You are not allowed to access this db.", ForbiddenError),
        (401, "You are not a server admin.", ForbiddenError),
        (403, None, ForbiddenError),
    ],
)
def test_what_a_user_may_not_do_says_nothing_against_the_password(status, reason, kind):
    body = b"<html>" if reason is None else json_reply({"error": "e", "reason": reason}).split(b"\r\n\r\n")[1]
    error: Any = classify(status, {}, body, now=0)
    assert type(error) is kind
    assert str(status) in str(error)
    assert error.remedy


@pytest.mark.parametrize("kind", ["basic", "session"])
def test_a_forbidden_database_leaves_the_others_alone(server, clock, kind):
    cookie = "AuthSession=c1; Version=1; Max-Age=600000"
    server.on("POST", "/_session", json_reply({"ok": True}, Set_Cookie=cookie))
    server.on("GET", "/good", json_reply({})).on("GET", "/bad", NOT_ALLOWED)
    auth = {"type": kind, "username": "joe", "password": "x"}
    couch = CouchClient(CouchConnection(url=server.url, auth=auth), clock=clock)
    for _ in range(5):
        with pytest.raises(ForbiddenError, match=r"not allowed to access this db.*Remedy: .*_security"):
            ask(couch, "/bad")
        assert ask(couch, "/good") == {}
    assert len(server.requests_of("POST", "/_session")) == (kind == "session")


def test_a_private_database_leaves_the_others_alone_where_no_credentials_are_sent(server, clock):
    private = json_reply(
        {"error": "unauthorized", "reason": "You are not authorized to access this db."}, 401
    )
    server.on("GET", "/bad", private)
    couch = CouchClient(CouchConnection(url=server.url), clock=clock)
    for _ in range(5):
        with pytest.raises(AccessError, match="not authorized"):
            ask(couch, "/bad")
    ask(couch)


def test_readers_without_credentials_wait_for_nobody(server, clock):
    """They wait neither for a first reader nor after a cut: there are no credentials to test."""
    all_there = Event()

    def answer(request: Request) -> object:
        if len(server.requests) == READERS:
            all_there.set()
        return [Pause(all_there), json_reply({})]

    server.on("GET", "/", answer)
    with gevent.Timeout(60):
        together(ask, CouchClient(CouchConnection(url=server.url), clock=clock))
