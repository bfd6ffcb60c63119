"""BulkPusher against a CouchDB server: what it answers, and what a line does to it."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import gevent
import msgspec
import pytest

from pillows import BulkOptions, BulkPusher
from pillows.errors import AccessError, ConfigError, RetryableError
from pillows.standalone.bulk_couch import ConflictError, MissingDatabaseError, connection_of
from tests.servers.scripted import json_reply
from tests.support.clock import FakeClock


def url_of(couch, name):
    parts = urlsplit(couch.url)
    user = "{}:{}@".format(*couch.auth) if couch.auth else ""
    return urlunsplit(parts._replace(netloc=user + parts.netloc, path=f"/{name}"))


def people(count):
    return [{"_id": f"p{n:04}", "n": n} for n in range(count)]


def stored(couch_db):
    rows = couch_db.request("GET", "/_all_docs?include_docs=true").json()["rows"]
    return {row["id"]: row["doc"]["n"] for row in rows}


@pytest.fixture
def pusher(couch, couch_db):
    opened = []

    def make(**settings):
        opened.append(BulkPusher(url_of(couch, couch_db.name), BulkOptions(**settings)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.mark.parametrize("partitions", [1, 4])
def test_everything_pushed_is_stored(couch_db, pusher, partitions):
    with pusher(threshold=100, max_in_flight=partitions) as pushing:
        for person in people(1050):
            pushing.push(person)
    assert pushing.counts.ok == 1050
    assert stored(couch_db) == {person["_id"]: person["n"] for person in people(1050)}


def test_e2_a_missing_database_is_said_at_once(couch):
    pusher = BulkPusher(url_of(couch, "is-missing"))
    pusher.push({"_id": "a"})
    with gevent.Timeout(10), pytest.raises(MissingDatabaseError, match="create=True"):
        pusher.finish()


def test_a_conflict_is_listed_and_the_others_are_written(couch_db, pusher):
    couch_db.request("PUT", "/p0003", json={"n": "theirs"})
    with pusher(threshold=10) as pushing:
        for person in people(10):
            pushing.push(person)
    assert list(pushing.counts.conflicts) == ["p0003"]
    assert (pushing.counts.ok, pushing.counts.conflict) == (9, 1)
    assert stored(couch_db)["p0003"] == "theirs"


def test_a_conflict_can_be_overwritten(couch_db, pusher):
    couch_db.request("PUT", "/p0003", json={"n": "theirs"})
    with pusher(threshold=10, on_conflict="overwrite") as pushing:
        for person in people(10):
            pushing.push(person)
    assert pushing.counts.ok == 10
    assert stored(couch_db)["p0003"] == 3


def test_a_conflict_can_be_an_error(couch_db, pusher):
    couch_db.request("PUT", "/p0003", json={"n": "theirs"})
    pushing = pusher(threshold=10, on_conflict="fail")
    for person in people(10):
        pushing.push(person)
    with pytest.raises(ConflictError, match="'p0003'"):
        pushing.finish()


def test_of_several_documents_of_one_id_each_counts(couch_db, pusher):
    """One bulk writes one of them: what was not written is never told as written."""
    with pusher(threshold=10) as pushing:
        for n in range(3):
            pushing.push({"_id": "same", "n": n})
    assert (pushing.counts.ok, pushing.counts.conflict) == (1, 2)
    assert list(pushing.counts.conflicts) == ["same"]
    assert stored(couch_db) == {"same": 0}


def test_of_several_documents_of_one_id_the_last_is_there_when_they_overwrite(couch_db, pusher):
    couch_db.request("PUT", "/same", json={"n": "theirs"})
    with pusher(threshold=10, on_conflict="overwrite") as pushing:
        for n in range(3):
            pushing.push({"_id": "same", "n": n})
    assert (pushing.counts.ok, pushing.counts.conflict) == (3, 0)
    assert stored(couch_db) == {"same": 2}


def test_what_a_validation_function_forbids_is_listed_with_its_reason(scripted_server):
    server = scripted_server()
    answer = [
        {"ok": True, "id": "a", "rev": "1-x"},
        {"id": "b", "error": "forbidden", "reason": "no names"},
    ]
    server.on("POST", "/people/_bulk_docs", json_reply(answer, 201))
    with BulkPusher(f"{server.url}/people") as pushing:
        pushing.push({"_id": "a"})
        pushing.push({"_id": "b"})
    assert pushing.counts.failures == {"b": "forbidden: no names"}
    assert pushing.counts.ok == 1


def test_a_bulk_that_is_too_large_is_halved_down_to_one_document(scripted_server):
    server = scripted_server()

    def play(request):
        docs = msgspec.json.decode(request.body)["docs"]
        if len(docs) > 2 or any(doc.get("huge") for doc in docs):
            return json_reply({"error": "too_large", "reason": "the request entity is too large"}, 413)
        return json_reply([{"ok": True, "id": doc["_id"], "rev": "1-x"} for doc in docs], 201)

    server.on("POST", "/people/_bulk_docs", play)
    with BulkPusher(f"{server.url}/people", BulkOptions(threshold=8)) as pushing:
        for n in range(8):
            pushing.push({"_id": str(n), "huge": n == 5})
    assert (pushing.counts.ok, list(pushing.counts.failures)) == (7, ["5"])


@pytest.mark.parametrize("status", [400, 413])
def test_documents_without_an_id_that_are_refused_are_all_counted(scripted_server, status):
    server = scripted_server()
    server.on("POST", "/people/_bulk_docs", lambda _: json_reply({"error": "no", "reason": "no"}, status))
    with BulkPusher(f"{server.url}/people") as pushing:
        for n in range(4):
            pushing.push({"n": n})
    assert (pushing.counts.ok, pushing.counts.failed) == (0, 4)


def test_documents_without_an_id_are_counted_by_their_place(scripted_server):
    server = scripted_server()
    bad = {"id": "", "error": "forbidden", "reason": "no"}
    answer = [bad, {"ok": True, "id": "made", "rev": "1-x"}, bad]
    server.on("POST", "/people/_bulk_docs", json_reply(answer, 201))
    with BulkPusher(f"{server.url}/people") as pushing:
        for n in range(3):
            pushing.push({"n": n})
    assert (pushing.counts.ok, pushing.counts.failed) == (1, 2)


def test_an_answer_to_fewer_documents_is_no_answer(scripted_server):
    server = scripted_server()
    row = {"ok": True, "id": "a", "rev": "1-x"}
    server.on("POST", "/people/_bulk_docs", json_reply([row], 201), json_reply([row, row], 201))
    with BulkPusher(f"{server.url}/people", clock=FakeClock()) as pushing:
        pushing.push({"_id": "a"})
        pushing.push({"_id": "b"})
    assert pushing.counts.ok == 2
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "headers"), [(500, {}), (503, {}), (429, {"Retry_After": "7"}), (429, {})]
)
def test_a_server_in_trouble_is_asked_again(scripted_server, status, headers):
    server = scripted_server()
    bad = json_reply({"error": "x", "reason": "y"}, status, **headers)
    server.on("POST", "/people/_bulk_docs", bad, bad, json_reply([{"ok": True, "id": "a"}], 201))
    clock = FakeClock()
    with BulkPusher(f"{server.url}/people", clock=clock) as pushing:
        pushing.push({"_id": "a"})
    assert pushing.counts.ok == 1
    assert len(server.requests) == 3
    if headers:
        assert clock.waited.count(7.0) == 2


def test_a_refused_connection_reaches_the_caller_after_the_last_try(couch, couch_db, tcp_proxy):
    proxy = tcp_proxy(couch)
    url = url_of(couch, couch_db.name).replace(urlsplit(couch.url).netloc, f"127.0.0.1:{proxy.port}")
    proxy.refuse()
    pushing = BulkPusher(url, BulkOptions(max_tries=3), clock=FakeClock())
    pushing.push({"_id": "a"})
    with pytest.raises(RetryableError):
        pushing.finish()
    assert pushing.counts.ok == 0


def test_a_missing_database_is_made_only_when_asked_for(couch, couch_db):
    name = couch_db.name
    couch_db.drop()
    with pytest.raises(MissingDatabaseError, match="404"), BulkPusher(url_of(couch, name)) as pushing:
        pushing.push({"_id": "a", "n": 1})
    assert not couch_db.exists()
    with BulkPusher(url_of(couch, name), BulkOptions(create=True)) as pushing:
        pushing.push({"_id": "a", "n": 1})
    assert stored(couch_db) == {"a": 1}


def test_a_wrong_password_is_told_at_once(scripted_server):
    server = scripted_server()
    server.on("POST", "/people/_bulk_docs", json_reply({"error": "unauthorized", "reason": "no"}, 401))
    pushing = BulkPusher(f"{server.url.replace('://', '://me:wrong@')}/people")
    pushing.push({"_id": "a"})
    with pytest.raises(AccessError):
        pushing.finish()


def test_a_url_is_a_server_and_a_database():
    connection, database = connection_of("https://u%40x:p%3A@h:6984/prefix/a%2Fb/")
    assert (connection.url, database) == ("https://h:6984/prefix", "a/b")
    assert (connection.auth.username, connection.auth.password.get_secret_value()) == ("u@x", "p:")
    for bad in ("http://host:5984/", "people", ""):
        with pytest.raises(ConfigError):
            connection_of(bad)
    with pytest.raises(ConfigError, match="on_conflict"):
        BulkPusher("http://h/x", BulkOptions(on_conflict="win"))


def test_no_password_is_told(couch):
    pushing = BulkPusher("http://me:s3cret@127.0.0.1:9/people", BulkOptions(max_tries=1))
    pushing.push({"_id": "a"})
    with pytest.raises(RetryableError) as raised:
        pushing.finish()
    assert "s3cret" not in str(raised.value)
