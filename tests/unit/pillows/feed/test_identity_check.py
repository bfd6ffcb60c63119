"""Is it still the same database?"""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

from checkpoints import Seq
from pillows.errors import RecreatedError, SourceChangedError
from pillows.feed.base import DatabaseIdentity
from pillows.observer import Observer
from tests.servers.scripted import HANG, chunk, head, json_reply
from tests.unit.pillows.feed.wire import closing, couchdb, feed_of, info, page, reply, row, taking

CHANGES = ("GET", "/db/_changes")
OLD = DatabaseIdentity(server_uuid="u1", instance_start_time="1700000000", purge_seq="0-x")
TAIL: list[Any] = [head(chunked=True) + chunk(b"\n"), HANG]


class Warnings(Observer):
    def __init__(self):
        self.events = []

    def warning(self, pillow, *, event, details):
        self.events.append(event)


def test_a_recreated_database_ends_the_feed_before_its_first_row(scripted_server, clock):
    server = couchdb(scripted_server(), start="1800000000")
    server.on(*CHANGES, reply(page([row(1)], "1-x")))
    with taking(feed_of(server.url, clock=clock), Seq.of("9-old"), OLD) as taken:
        taken.ended()
    assert isinstance(taken.error, RecreatedError)
    assert isinstance(taken.error, SourceChangedError)
    assert "checkpoint reset" in str(taken.error)
    assert "on_recreated: reload" in str(taken.error)
    assert taken.batches == []


def test_a_database_recreated_under_a_running_feed_is_noticed(scripted_server, clock):
    """CouchDB ends the feed in good order, and then serves the new database for the old position."""
    server = couchdb(scripted_server())
    server.on(*CHANGES, reply(page([row(1)], "1-x")), reply(closing("1-y")), [*TAIL])
    server.on("GET", "/db", info(), info(), info("1800000000"))
    with taking(feed_of(server.url, clock=clock), Seq.BEGINNING, OLD) as taken:
        taken.ended()
    assert isinstance(taken.error, RecreatedError)
    assert taken.seqs == ["1-x", "1-y"]


def test_a_database_recreated_between_two_pages_is_noticed_before_the_first_row(scripted_server, clock):
    """The identity was once not checked for 2 s between pages, and the target got rows of both databases."""
    server = couchdb(scripted_server())
    server.on(*CHANGES, reply(page([row(1)], "1-x", 300)), reply(page([row(8)], "1-y", 299)))
    server.on("GET", "/db", info(), info("1800000000"))
    with taking(feed_of(server.url, clock=clock), Seq.BEGINNING, OLD) as taken:
        taken.ended()
    assert isinstance(taken.error, RecreatedError)
    assert (taken.ids, taken.seqs) == (["doc-1"], ["1-x"])


@pytest.mark.parametrize("there", [None, "7-z"])
def test_a_database_recreated_before_a_pages_documents_are_fetched_is_noticed(scripted_server, clock, there):
    """The new one does not know them: they were taken for deleted, and their rows removed."""
    server = couchdb(scripted_server())
    server.on(*CHANGES, reply(page([row(1, doc=None)], "1-x")))
    server.on("GET", "/db", info(), info("1800000000"))
    known = {"id": "doc-1"} if there else {"error": "not_found"}
    leaves = [{"ok": {"_id": "doc-1", "_rev": there}}] if there else []
    server.on("POST", "/db/_all_docs", json_reply({"rows": [{"key": "doc-1", **known}]}))
    server.on("POST", "/db/_bulk_get", json_reply({"results": [{"id": "doc-1", "docs": leaves}]}))
    with taking(feed_of(server.url, clock=clock, documents="bulk_get"), Seq.BEGINNING, OLD) as taken:
        taken.ended()
    assert isinstance(taken.error, RecreatedError)
    assert taken.batches == []


def test_a_document_that_has_changed_since_its_row_is_no_alarm(scripted_server, clock):
    server = couchdb(scripted_server())
    server.on(*CHANGES, reply(page([row(1, doc=None)], "1-x")), TAIL)
    leaves = [{"ok": {"_id": "doc-1", "_rev": "2-z"}}]
    server.on("POST", "/db/_bulk_get", json_reply({"results": [{"id": "doc-1", "docs": leaves}]}))
    with taking(feed_of(server.url, clock=clock, documents="bulk_get"), Seq.BEGINNING, OLD) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])
    assert taken.error is None
    assert len(server.requests_of("GET", "/db")) >= 2


@pytest.mark.parametrize(
    ("before", "now"), [("0", "1700000000"), ("1700000000", "0"), ("0", "0"), (None, "5"), ("5", None)]
)
def test_a_time_that_a_server_does_not_tell_is_no_alarm(scripted_server, clock, before, now):
    server = couchdb(scripted_server(), start=now)
    server.on(*CHANGES, reply(page([row(1)], "1-x")), TAIL)
    identity = DatabaseIdentity(instance_start_time=before)
    with taking(feed_of(server.url, clock=clock), Seq.BEGINNING, identity) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])
    assert taken.error is None


def test_a_node_that_tells_no_time_does_not_make_us_forget_the_one_we_know(scripted_server, clock):
    """While a cluster is upgraded to 3.3 some nodes say "0"; the database may be recreated just then."""
    server = couchdb(scripted_server())
    server.on(*CHANGES, reply(page([row(1)], "1-x")), reply(closing("1-y")), [*TAIL])
    server.on("GET", "/db", info("0"), info("0"), info("1800000000"))
    with taking(feed_of(server.url, clock=clock), Seq.BEGINNING, OLD) as taken:
        taken.ended()
    assert isinstance(taken.error, RecreatedError)
    assert "created at 1700000000" in str(taken.error)


def test_another_node_of_a_cluster_may_have_another_uuid(scripted_server, clock):
    server = couchdb(scripted_server())
    server.on("GET", "/", json_reply({"couchdb": "Welcome", "uuid": "u2"}))
    server.on(*CHANGES, reply(page([row(1)], "1-x")), TAIL)
    warnings = Warnings()
    with taking(feed_of(server.url, clock=clock, observer=warnings), Seq.BEGINNING, OLD) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])
    assert (taken.error, warnings.events) == (None, ["source.other_server"])


def purged(server, *ids):
    server.on("GET", "/db", info(purge_seq=f"{len(set(ids)) or 3}-y"))
    infos = [{"id": id, "revs": ["2-b"]} for id in ids]
    unknown = [{"key": id, "error": "not_found"} for id in ids]
    server.on("POST", "/db/_all_docs", json_reply({"rows": unknown}))
    server.on("GET", "/db/_purged_infos", json_reply({"purged_infos": infos}))
    server.on(*CHANGES, reply(page([row(1)], "1-x")), TAIL)


def test_what_was_purged_is_told_as_deleted_below_every_version(scripted_server, clock):
    """CouchDB has no row for it. What is there again, or still has a leaf, is left alone."""
    server = couchdb(scripted_server())
    purged(server, "gone", "again", "gone")
    results = [{"id": "again", "docs": [{"ok": {"_id": "again", "_rev": "1-a"}}]}]
    server.on("POST", "/db/_bulk_get", json_reply({"results": results}))
    warnings = Warnings()
    with taking(feed_of(server.url, clock=clock, observer=warnings), Seq.BEGINNING, OLD) as taken:
        taken.until(lambda: "doc-1" in taken.ids)
    changes = [c for batch in taken.batches for c in batch.changes]
    assert [(c.id, c.deleted, c.leaf_version) for c in changes] == [("gone", True, 0), ("doc-1", False, 1)]
    assert warnings.events == ["source.purged"]


def test_a3_purges_beyond_what_the_server_lists_are_said(scripted_server, clock):
    """Of 1,600, `purged_infos_limit` keeps 1,000: the rest stayed in the targets without a word."""
    server = couchdb(scripted_server())
    purged(server, "gone")
    server.on("GET", "/db", info(purge_seq="7-y"))
    server.on("POST", "/db/_bulk_get", json_reply({"results": []}))
    told = []

    class Listener(Observer):
        def warning(self, pillow, *, event, details):
            told.append((event, dict(details)))

    with taking(feed_of(server.url, clock=clock, observer=Listener()), Seq.BEGINNING, OLD) as taken:
        taken.until(lambda: "doc-1" in taken.ids)
    assert told == [("source.purges_missed", {"purges": 7, "listed": 1}), ("source.purged", {"documents": 1})]
    assert [batch.purges_missed for batch in taken.batches if batch.purge_seq] == [7]


def test_a_purge_that_nobody_was_told_of_is_not_known(scripted_server, clock):
    """A reader that leaves the feed before it was told of a purge is told of it the next time."""
    server = couchdb(scripted_server())
    purged(server, "gone")
    server.on("GET", "/db", info(purge_seq="0-x"), info(purge_seq="3-y"))
    server.on("POST", "/db/_bulk_get", json_reply({"results": []}))
    server.on(*CHANGES, reply(page([row(1)], "1-x")), TAIL)
    feed = feed_of(server.url, clock=clock, documents="include_docs")
    batches = feed.batches(Seq.BEGINNING, OLD, Event())
    while not next(batches).changes:
        pass
    with gevent.Timeout(60):
        while not server.requests_of("POST", "/db/_bulk_get"):
            gevent.sleep(0.01)
    gevent.sleep(0.05)  # the batch is put
    batches.close()
    feed.close()
    assert feed.identity.purge_seq == "0-x"


def test_a_server_that_does_not_say_what_was_purged_is_no_error(scripted_server, clock):
    server = couchdb(scripted_server())
    purged(server)
    server.on("GET", "/db/_purged_infos", json_reply({"error": "not_found", "reason": "missing"}, 404))
    warnings = Warnings()
    with taking(feed_of(server.url, clock=clock, observer=warnings), Seq.BEGINNING, OLD) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])
    assert (taken.error, warnings.events) == (None, ["source.purges_missed"])


@pytest.mark.parametrize("purge_seq", ["0-other-copy", None, "0"])
def test_a_purge_position_of_another_copy_is_no_purge(scripted_server, clock, purge_seq):
    server = couchdb(scripted_server())
    server.on("GET", "/db", info(purge_seq=purge_seq))
    server.on(*CHANGES, reply(page([row(1)], "1-x")), TAIL)
    with taking(feed_of(server.url, clock=clock), Seq.BEGINNING, OLD) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])
    assert server.requests_of("GET", "/db/_purged_infos") == []


def test_identify_tells_what_the_server_tells(scripted_server):
    server = couchdb(scripted_server())
    assert feed_of(server.url).identify() == OLD


def test_now_becomes_a_token_before_the_first_change(scripted_server):
    server = couchdb(scripted_server())
    server.on(*CHANGES, reply(page([], [7, "head"], 0)))
    assert feed_of(server.url, since="now").start() == Seq.of([7, "head"])
    query = server.requests_of(*CHANGES)[0].query
    assert (query["since"], query["limit"]) == ("now", "0")


def test_a_configured_position_and_the_beginning_need_no_request():
    assert feed_of("http://127.0.0.1:9", since="7-x").start() == Seq.of("7-x")
    assert feed_of("http://127.0.0.1:9").start() == Seq.BEGINNING


def test_pending_is_what_the_server_says(scripted_server):
    server = couchdb(scripted_server())
    server.on(*CHANGES, reply(page([], "7-x", 25_000)), reply(page([], "7-x", None)))
    feed = feed_of(server.url)
    assert [feed.pending(Seq.of("5-x")), feed.pending(Seq.of("5-x"))] == [25_000, None]
