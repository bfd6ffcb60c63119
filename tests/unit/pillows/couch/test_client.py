"""What a client tells of itself: its connections, and what became of its requests."""

from __future__ import annotations

from contextlib import suppress

from pillows.couch.client import CouchClient
from pillows.couch.options import CouchConnection
from pillows.errors import PillowError
from tests.servers.scripted import json_reply


def test_requests_are_counted_by_what_became_of_them(scripted_server):
    server = scripted_server()
    couch = CouchClient(CouchConnection(url=server.url))
    answers = {
        "ok": [json_reply({})],
        "throttled": [json_reply({"error": "too many"}, 429)],
        "refused": [json_reply({}, 401), json_reply({}, 403), json_reply({}, 404)],
        "retry": [json_reply({}, 500), json_reply({}, 503)],
    }
    for replies in answers.values():
        for reply in replies:
            server.on("GET", "/db", reply)
            with suppress(PillowError):
                couch.json("GET", "/db", dict)
    assert couch.outcomes == {outcome: len(replies) for outcome, replies in answers.items()}
    couch.close()


def test_a_server_that_is_away_is_counted_too():
    couch = CouchClient(CouchConnection(url="http://127.0.0.1:9"))
    with suppress(PillowError):
        couch.json("GET", "/db", dict)
    assert couch.outcomes == {"retry": 1}
    assert couch.open_connections == 0


def test_open_connections_are_those_in_use_and_those_kept(scripted_server):
    server = scripted_server().on("GET", "/db", json_reply({}))
    couch = CouchClient(CouchConnection(url=server.url))
    assert couch.open_connections == 0
    with couch.open("GET", "/db") as one:
        assert couch.open_connections == 1
        with couch.open("GET", "/db") as other:
            assert couch.open_connections == 2
            other.read(100)
        one.read(100)
    kept = couch.open_connections
    couch.json("GET", "/db", dict)
    assert couch.open_connections == kept, "one that was kept is used again"
    couch.close()
    assert couch.open_connections == 0
    couch.json("GET", "/db", dict)
    assert couch.open_connections == 1, "a client that was closed opens another"
    couch.close()
    assert couch.open_connections == 0
