"""A cluster whose nodes come and go, without a balancer."""

from __future__ import annotations

import pytest

from pillows.couch.client import CouchClient
from pillows.couch.errors import ServerError
from pillows.couch.nodes import AVOID_SECONDS, CHECK_SECONDS
from pillows.couch.options import CouchConnection
from pillows.errors import AwayError
from pillows.transports.couchdb.options import CouchdbOutput
from tests.servers.scripted import json_reply
from tests.support.clock import FakeClock

UP = json_reply({"status": "ok"})
MAINTENANCE = json_reply({"status": "maintenance_mode"}, 404)
AWAY = "http://127.0.0.1:9"


@pytest.fixture
def clock():
    return FakeClock(auto=False)


def node(scripted_server, name: str, up: bytes = UP):
    return scripted_server().on("GET", "/_up", up).on("GET", "/db", json_reply({"node": name}))


def ask(couch: CouchClient) -> str:
    return couch.json("GET", "/db", dict)["node"]


def test_f8_nodes_are_tried_in_turn_and_a_dead_one_is_left_alone(scripted_server, clock):
    one, two = node(scripted_server, "one"), node(scripted_server, "two")
    couch = CouchClient(CouchConnection(url=[AWAY, one.url, two.url]), clock=clock)
    assert [ask(couch) for _ in range(3)] == ["one"] * 3
    clock.advance(AVOID_SECONDS + 1)
    assert ask(couch) == "one"
    couch.close()


def test_f8_a_node_in_maintenance_is_left_alone_until_it_is_back(scripted_server, clock):
    one, two = node(scripted_server, "one", MAINTENANCE), node(scripted_server, "two")
    couch = CouchClient(CouchConnection(url=[one.url, two.url]), clock=clock)
    assert [ask(couch) for _ in range(3)] == ["two"] * 3
    assert one.requests_of("GET", "/db") == []
    one.on("GET", "/_up", UP)
    clock.advance(max(AVOID_SECONDS, CHECK_SECONDS) + 1)
    assert ask(couch) == "one"
    couch.close()


def test_f8_a_node_that_fails_is_not_asked_again_at_once(scripted_server, clock):
    """The failed request may have been applied, so its sender decides whether to repeat it."""
    one, two = node(scripted_server, "one"), node(scripted_server, "two")
    one.on("GET", "/db", json_reply({"error": "nodedown"}, 503))
    couch = CouchClient(CouchConnection(url=[one.url, two.url]), clock=clock)
    with pytest.raises(ServerError):
        ask(couch)
    assert ask(couch) == "two"
    couch.close()


def test_f8_without_any_node_the_failure_of_the_last_is_raised(clock):
    couch = CouchClient(CouchConnection(url=[AWAY, "http://127.0.0.1:10"]), clock=clock)
    with pytest.raises(AwayError, match="refused by"):
        ask(couch)
    couch.close()


def test_f8_a_single_server_is_never_asked_for_maintenance(scripted_server, clock):
    one = node(scripted_server, "one")
    couch = CouchClient(CouchConnection(url=one.url), clock=clock)
    assert ask(couch) == "one"
    assert one.requests_of("GET", "/_up") == []
    couch.close()


def test_f8_a_database_has_an_address_on_every_node():
    cluster = CouchConnection(url=["http://a:1", "http://b:2"])
    found = CouchdbOutput(database="db").addresses(cluster)
    assert found & CouchdbOutput(database="db").addresses(CouchConnection(url="http://b:2"))


@pytest.mark.parametrize("urls", [[], ["http://a:1", "ftp://b"], ["http://a:1", "http://u:p@b:1"]])
def test_f8_every_node_needs_a_plain_url(urls):
    with pytest.raises(ValueError, match="url"):
        CouchConnection(url=urls)
