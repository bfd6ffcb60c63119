"""IBM Cloud IAM: asked once for a token, seldom when it refuses, again at once when it has failed."""

from __future__ import annotations

import time
from types import SimpleNamespace

import gevent
import jwt
import pytest
from ibm_cloud_sdk_core.token_managers import token_manager

from pillows.couch.client import CouchClient
from pillows.couch.options import CouchConnection, IamAuth
from pillows.errors import AccessError, RetryableError
from tests.servers.scripted import HANG, RESET, ScriptedServer, json_reply
from tests.support.clock import FakeClock
from tests.unit.pillows.feed.wire import couchdb

TOKEN = ("POST", "/identity/token")
BUSY = json_reply({"errorMessage": "busy"}, 503)
REFUSED = json_reply({"errorMessage": "Provided API key could not be found."}, 400)


@pytest.fixture
def server(scripted_server) -> ScriptedServer:
    return couchdb(scripted_server())


@pytest.fixture(autouse=True)
def never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits, up to a minute, for a request that it believes to be under way."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s")

    monkeypatch.setattr(token_manager, "time", SimpleNamespace(time=time.time, sleep=sleep))


def fresh_token() -> str:
    now = int(time.time())
    return jwt.encode({"exp": now + 3600, "iat": now}, "k" * 32, algorithm="HS256")


def given(token: str) -> bytes:
    return json_reply({"access_token": token, "token_type": "Bearer"})


def couch_of(server: ScriptedServer, clock: FakeClock) -> CouchClient:
    auth = IamAuth(type="iam", apikey="key", url=server.url)
    return CouchClient(CouchConnection(url=server.url, auth=auth), clock=clock)


def welcome(couch: CouchClient) -> object:
    return couch.json("GET", "/", dict)


def test_iam_is_asked_once_for_a_token(server, clock):
    token = fresh_token()
    server.on(*TOKEN, given(token))
    couch = couch_of(server, clock)
    welcome(couch)
    welcome(couch)
    assert [r.headers["authorization"] for r in server.requests_of("GET", "/")] == [f"Bearer {token}"] * 2
    assert len(server.requests_of(*TOKEN)) == 1


@pytest.mark.parametrize(
    "failure",
    [BUSY, [RESET], json_reply({}), json_reply([]), given("no token")],
    ids=["busy", "reset", "no token", "no object", "not a token"],
)
def test_iam_that_failed_is_asked_again_without_delay(server, clock, failure):
    server.on(*TOKEN, failure, given(fresh_token()))
    couch = couch_of(server, clock)
    with pytest.raises(RetryableError, match="IAM"):
        welcome(couch)
    welcome(couch)
    assert len(server.requests_of(*TOKEN)) == 2


def test_iam_is_asked_again_after_a_reader_was_stopped_while_it_asked(server, clock):
    server.on(*TOKEN, [HANG], given(fresh_token()))
    couch = couch_of(server, clock)
    reader = gevent.spawn(welcome, couch)
    with gevent.Timeout(60):
        while not server.requests_of(*TOKEN):
            gevent.sleep(0.01)
    reader.kill()
    welcome(couch)


def test_an_api_key_that_iam_refuses_is_tried_twice_in_five_minutes(server, clock):
    server.on(*TOKEN, REFUSED)
    couch = couch_of(server, clock)

    def is_refused() -> None:
        with pytest.raises(AccessError, match=r"API key|no further try"):
            welcome(couch)

    gevent.joinall([gevent.spawn(is_refused) for _ in range(20)], raise_error=True)
    assert len(server.requests_of(*TOKEN)) == 2
    clock.advance(301)
    is_refused()
    assert len(server.requests_of(*TOKEN)) == 3


def test_an_api_key_that_is_revoked_under_twenty_readers_is_tried_twice_together(server, clock):
    """Their token ends at one moment, while the server itself still took it just now."""
    server.on(*TOKEN, given(fresh_token()), REFUSED)
    couch = couch_of(server, clock)
    welcome(couch)
    couch._authenticator.invalidate()

    def is_refused() -> None:
        with pytest.raises(AccessError):
            welcome(couch)

    gevent.joinall([gevent.spawn(is_refused) for _ in range(20)], raise_error=True)
    assert len(server.requests_of(*TOKEN)) == 1 + 2
