"""A first pass that reads the list of documents, while others write, and through a line that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import msgspec
import pytest

from checkpoints import Seq
from pillows.couch.options import CouchConnection
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.listing import LISTED, Listing, ListingPosition
from pillows.feed.options import SourceOptions
from pillows.feed.reader_task import ReadCursor
from pillows.models import Change, ChangeBatch
from tests.servers.couch_client import CouchDatabase
from tests.servers.tcp_proxy import Fault, TcpProxy
from tests.support.clock import FakeClock
from tests.support.couch_auth import to_auth
from tests.support.sizes import size
from tests.unit.pillows.feed.wire import taking

LIVE = size(ci=400, proof=10_000)
DELETED = size(ci=2400, proof=200_000)
ODD = ['a"b', "a/b", "a+b", "a\nb", "aé", "a\U0001f600", "_odd".strip("_"), "A"]


def open_feed(url: str, db: CouchDatabase, **source: Any) -> CouchFeed:
    auth = to_auth(db.auth)
    options = SourceOptions(connection="c", database=db.name, **{"page": 100, "join_overlap": "0s", **source})
    return CouchFeed(CouchConnection(url=url, auth=auth), options, clock=FakeClock())


def fill(db: CouchDatabase, live: int = LIVE, deleted: int = DELETED) -> None:
    """Write documents, and delete most of them."""
    for start in range(0, deleted, 10_000):
        ids = [f"gone-{n:06}" for n in range(start, min(deleted, start + 10_000))]
        written = db.bulk({"_id": id} for id in ids)
        revs = {each["id"]: each["rev"] for each in written}
        db.bulk({"_id": id, "_rev": rev, "_deleted": True} for id, rev in revs.items())
    for start in range(0, live, 10_000):
        db.bulk({"_id": f"doc-{n:06}", "n": n} for n in range(start, min(live, start + 10_000)))


def read_state(batches: Sequence[ChangeBatch]) -> tuple[dict[str, int], dict[str, Any]]:
    """Returns the content of a guarded target after these batches: id -> version, and id -> document."""
    versions: dict[str, int] = {}
    documents: dict[str, Any] = {}
    for change in (change for batch in batches for change in batch.changes):
        if change.leaf_version > versions.get(change.id, -1):
            versions[change.id] = change.leaf_version
            documents.pop(change.id, None)
            if not change.deleted:
                assert change.raw is not None
                documents[change.id] = msgspec.json.decode(change.raw)
    return versions, documents


def is_caught_up(batches: Sequence[ChangeBatch]) -> bool:
    return any(batch.caught_up for batch in batches)


def expected(db: CouchDatabase) -> dict[str, Any]:
    return {id: doc for id, doc in db.documents().items() if not id.startswith("_design/")}


def test_a_database_of_deletions_is_listed_and_followed(couch_db: CouchDatabase) -> None:
    fill(couch_db)
    for id in ODD:
        couch_db.put(id, n=1)
    couch_db.leaf("doc-000001", "3-ccc", "2-bbb", n="conflict")
    couch_db.put("_design/x", language="javascript")
    feed = open_feed(couch_db.server_url, couch_db)
    first = feed.find_first()
    assert first.json.startswith(LISTED)
    assert feed.pending(first) is None
    with taking(feed, first) as taken:
        taken.until(lambda: is_caught_up(taken.batches))
        versions, documents = read_state(taken.batches)
        assert documents == expected(couch_db)
        assert not [id for id in versions if id.startswith("gone-")], "no deletion was read"
        assert versions["doc-000001"] == 1 + 3, "all leaves count"
        listed = [batch for batch in taken.batches if batch.seq and batch.seq.json.startswith(LISTED)]
        assert sum(len(batch.changes) for batch in taken.batches) == LIVE + len(ODD)
        assert listed[0].pending
        couch_db.put("late", n=1)
        couch_db.delete("doc-000002")
        taken.until(lambda: read_state(taken.batches)[1] == expected(couch_db))


@pytest.mark.parametrize("what", ["few deletions", "a filter in the server", "fewer than a page"])
def test_other_databases_are_read_by_their_feed(couch_db: CouchDatabase, what: str) -> None:
    fill(couch_db, live=100, deleted=400 if what == "few deletions" else 700)
    every: dict[str, dict[str, Any]] = {
        "a filter in the server": {
            "selector": {"n": {"$gt": 0}},
            "on_filtered": "ignore",
            "deletes": "ignore",
        },
        "fewer than a page": {"page": 700},
    }
    feed = open_feed(couch_db.server_url, couch_db, **every.get(what, {}))
    assert feed.find_first() == Seq.BEGINNING
    feed.close()


def read_beside_a_writer(
    couch_db: CouchDatabase, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a listing while documents before and behind the reader change; return both states at the end."""
    fill(couch_db)
    feed = open_feed(couch_db.server_url, couch_db)
    hand_over, batches = Listing._hand_over, iter(range(1_000_000))

    def write_beside(*arguments: Any) -> ListingPosition:
        if next(batches) == 1:
            couch_db.put("doc-000000", n="changed before the reader")
            couch_db.put("a-new-one", n="before all others")
            couch_db.delete("doc-000003")
            couch_db.put("gone-000001", n="back")
            couch_db.put(f"doc-{LIVE - 1:06}", n="changed behind the reader")
            couch_db.delete(f"doc-{LIVE - 2:06}")
        return hand_over(*arguments)

    monkeypatch.setattr(Listing, "_hand_over", write_beside)
    with taking(feed, feed.find_first()) as taken:
        taken.until(lambda: is_caught_up(taken.batches))
        deadline = time.monotonic() + 3
        while read_state(taken.batches)[1] != expected(couch_db) and time.monotonic() < deadline:
            gevent.sleep(0.05)
        return read_state(taken.batches)[1], expected(couch_db)


def test_what_changes_during_the_listing_arrives(
    couch_db: CouchDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, there = read_beside_a_writer(couch_db, monkeypatch)
    assert read == there


def test_a_position_that_is_taken_after_the_listing_would_lose_changes(
    couch_db: CouchDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant is caught by the test before."""

    def finish(self: Listing, cursor: ReadCursor, _: ListingPosition) -> None:
        cursor.since = self._source.probe("now").seq
        cursor.loader.add(ChangeBatch(changes=(), seq=cursor.since))

    monkeypatch.setattr(Listing, "_finish", finish)
    read, there = read_beside_a_writer(couch_db, monkeypatch)
    assert "a-new-one" in there.keys() - read.keys()


def test_a_listing_that_is_cut_goes_on_behind_the_last_id(
    couch: Any, couch_db: CouchDatabase, tcp_proxy: Callable[[Any], TcpProxy]
) -> None:
    fill(couch_db)
    proxy = tcp_proxy(couch)
    feed = open_feed(proxy.url, couch_db)
    first = feed.find_first()
    proxy.fail(Fault(kind="cut", direction="to_client", after_text=b"doc-000250"))
    with taking(feed, first) as taken:
        taken.until(lambda: is_caught_up(taken.batches), seconds=60)
        assert read_state(taken.batches)[1] == expected(couch_db)
        assert len(taken.ids) < LIVE + 400, "it does not begin again"


def test_a_reader_that_was_killed_goes_on_from_its_position(couch_db: CouchDatabase) -> None:
    fill(couch_db)
    feed = open_feed(couch_db.server_url, couch_db)
    with taking(feed, feed.find_first(), pause=0.002) as taken:
        taken.until(lambda: len(taken.ids) >= LIVE // 4)
        kept = list(taken.batches)
        taken.greenlet.kill()
    position = [batch.seq for batch in kept if batch.seq is not None][-1]
    assert position.json.startswith(LISTED)
    couch_db.delete("doc-000000")
    couch_db.put("doc-000001", n="changed")
    changes: list[Change] = [change for batch in kept for change in batch.changes]
    with taking(open_feed(couch_db.server_url, couch_db), position) as taken:
        taken.until(lambda: is_caught_up(taken.batches))
        assert read_state([*kept, *taken.batches])[1] == expected(couch_db)
        assert len(changes) + len(taken.ids) < LIVE + 400


def test_g9_the_brake_holds_in_a_listing(couch_db: CouchDatabase) -> None:
    """The clock of the feed is injected: nothing is waited for."""
    fill(couch_db)
    feed = open_feed(couch_db.server_url, couch_db, max_rate=50)
    began = feed._clock.monotonic()
    with taking(feed, feed.find_first()) as taken:
        taken.until(lambda: is_caught_up(taken.batches))
    assert feed._clock.monotonic() - began >= (LIVE - 100) / 50


@pytest.mark.proof
def test_b4_8_it_is_at_least_two_and_a_half_times_as_fast_as_the_feed(couch_db: CouchDatabase) -> None:
    fill(couch_db)
    seconds: dict[str, float] = {}
    for name in ("feed", "listing"):
        feed = open_feed(couch_db.server_url, couch_db, page=2000)
        began = time.monotonic()
        with taking(feed, feed.find_first() if name == "listing" else Seq.BEGINNING) as taken:
            taken.until(lambda taken=taken: is_caught_up(taken.batches), seconds=600)
            seconds[name] = time.monotonic() - began
            assert read_state(taken.batches)[1] == expected(couch_db)
    print(f"{LIVE:,} live, {DELETED:,} deleted: {seconds}, {seconds['feed'] / seconds['listing']:.1f} times")
    assert seconds["feed"] >= 2.5 * seconds["listing"]
