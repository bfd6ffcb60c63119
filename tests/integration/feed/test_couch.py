"""The feed against a real server, through a line that fails."""

from __future__ import annotations

import json
import time
from contextlib import closing
from itertools import count
from typing import Any

import gevent
import msgspec
import pytest
from gevent.event import Event

from checkpoints import Seq
from pillows.couch.http.response import TooLargeError
from pillows.couch.options import CouchConnection
from pillows.errors import InvalidSeqError, PermanentError, RecreatedError, RetryableError
from pillows.feed import catch_up, identity_check, requests
from pillows.feed.base import DatabaseIdentity
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.documents import fetch_mode
from pillows.feed.documents.fetcher import fetch_key, to_defect
from pillows.feed.options import SourceOptions
from pillows.feed.recorded import RecordedFeed
from pillows.feed.requests import Page
from pillows.models import Change, ChangeBatch
from tests.servers.tcp_proxy import Fault, TcpProxy
from tests.support.clock import FakeClock
from tests.support.couch_auth import to_auth
from tests.support.sizes import size
from tests.unit.pillows.feed.wire import Taking, taking

DOCS = size(ci=3000, proof=50_000)
HOW = ["include_docs", "bulk_get", "auto"]


def feed(url: str, db: Any, **source: Any) -> CouchFeed:
    auth = to_auth(db.auth)
    options = SourceOptions(connection="c", database=db.name, **source)
    return CouchFeed(CouchConnection(url=url, auth=auth), options, clock=FakeClock())


def state(batches: list[ChangeBatch]) -> dict[str, dict]:
    """Returns the content of a guarded target after these batches."""
    versions: dict[str, int] = {}
    docs: dict[str, dict] = {}
    for change in (change for batch in batches for change in batch.changes):
        if change.leaf_version > versions.get(change.id, 0):
            versions[change.id] = change.leaf_version
            docs.pop(change.id, None)
            if not change.deleted:
                assert change.raw is not None
                docs[change.id] = msgspec.json.decode(change.raw)
    return docs


def caught_up(taken: Taking) -> bool:
    return any(batch.caught_up for batch in taken.batches)


def until_equal(taken: Taking, db: Any, seconds: float = 60.0) -> None:
    """Waits until the target equals the source, which nobody writes to any more."""
    source = {id: doc for id, doc in db.documents().items() if not id.startswith("_design/")}
    deadline = time.monotonic() + seconds
    while (target := state(taken.batches)) != source and time.monotonic() < deadline and not taken.error:
        gevent.sleep(0.05)
    assert taken.error is None
    assert target == source


@pytest.mark.parametrize("how", HOW)
def test_a_database_is_read_and_followed(couch_db, how):
    couch_db.fill(DOCS, pad="x" * 300)
    for n in range(0, 300, 3):
        couch_db.delete(f"doc-{n:06}")
    couch_db.leaf("doc-000001", "3-ccc", "2-bbb", n="conflict")
    couch_db.put("_design/x", language="javascript")
    with taking(feed(couch_db.server_url, couch_db, documents=how)) as taken:
        taken.until(lambda: caught_up(taken))
        assert len(taken.ids) == DOCS
        until_equal(taken, couch_db)
        for n in range(20):
            couch_db.put(f"late-{n}", n=n)
        couch_db.delete("doc-000001", "3-ccc")
        until_equal(taken, couch_db)


def try_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few changes are far behind, and trials as long as other laps."""
    monkeypatch.setattr(catch_up, "FAR_BEHIND", 200)
    monkeypatch.setattr(fetch_mode, "LAP_ROWS", 200)
    monkeypatch.setattr(fetch_mode, "TRIAL_SHARE", 1)
    monkeypatch.setattr(fetch_mode, "MIN_TRIAL_ROWS", 1)


def test_far_behind_both_ways_of_reading_take_turns_and_nothing_is_lost(couch_db, monkeypatch):
    """Laps so short that the way changes on nearly every page."""
    try_both_ways(monkeypatch)
    for name in ("LAPS_BEFORE_TRIAL", "FIRST_STRETCH_LAPS", "LONGEST_STRETCH_LAPS"):
        monkeypatch.setattr(fetch_mode, name, 1)
    planned = []
    plan_page = requests.plan_page

    def plan(*args: Any, **options: Any) -> Page:
        page = plan_page(*args, **options)
        planned.append(page.include_docs)
        return page

    monkeypatch.setattr(catch_up, "plan_page", plan)
    couch_db.fill(DOCS, pad="x" * 300)
    for n in range(0, 300, 3):
        couch_db.delete(f"doc-{n:06}")
    with taking(feed(couch_db.server_url, couch_db, page=200)) as taken:
        taken.until(lambda: caught_up(taken))
        assert len(taken.ids) == DOCS
        until_equal(taken, couch_db)
    assert planned.count(True) >= 3
    assert planned.count(False) >= 3


def test_a_way_that_does_not_get_through_is_given_up_and_nothing_is_lost(couch_db, monkeypatch):
    """A proxy that cuts long responses has such an effect."""
    try_both_ways(monkeypatch)
    asked = []
    read_page = catch_up.CatchUp._read_page

    def cut(self, cursor: Any, page: Page) -> Any:
        asked.append(page.include_docs)
        if not page.include_docs and asked.count(False) <= 2:
            raise RetryableError("cut")
        return read_page(self, cursor, page)

    monkeypatch.setattr(catch_up.CatchUp, "_read_page", cut)
    couch_db.fill(DOCS)
    with taking(feed(couch_db.server_url, couch_db, page=200)) as taken:
        taken.until(lambda: caught_up(taken))
        until_equal(taken, couch_db)
    assert asked[:6] == [True, True, False, True, True, True], "tried once, and then seldom"


def test_every_batch_ends_with_a_position_that_reads_on_without_gap_or_overlap(couch_db):
    """On a cluster rows come in another order each time; what must hold is that nothing is missing."""
    ids = couch_db.fill(1000)
    with taking(feed(couch_db.server_url, couch_db, documents="include_docs", page=200)) as taken:
        taken.until(lambda: caught_up(taken))
    last = len(taken.batches) - 1  # how many they are depends on how many came at once
    for stop_at in {0, last // 2, last}:
        seen = [c.id for batch in taken.batches[: stop_at + 1] for c in batch.changes]
        with taking(feed(couch_db.server_url, couch_db), taken.batches[stop_at].seq) as rest:
            rest.until(lambda rest=rest: caught_up(rest))
        assert set(seen) | set(rest.ids) == set(ids)


@pytest.mark.parametrize("kind", ["cut", "reset", "stall"])
@pytest.mark.parametrize("how", ["include_docs", "bulk_get"])
def test_faults_of_the_line_lose_nothing(couch, couch_db, tcp_proxy, kind, how):
    couch_db.fill(DOCS // 3, pad="x" * 200)
    proxy: TcpProxy = tcp_proxy(couch)
    for after_bytes in (0, 100, 5_000, 60_000, 150_000):
        proxy.fail(Fault(kind=kind, after_bytes=after_bytes))
    timeouts = {"silence": 1.5}
    options = SourceOptions(connection="c", database=couch_db.name, documents=how, page=500, timeout="200ms")
    auth = to_auth(couch_db.auth)
    connection = CouchConnection(url=proxy.url, auth=auth, timeouts=timeouts)
    with taking(CouchFeed(connection, options, clock=FakeClock())) as taken:
        until_equal(taken, couch_db)
        couch_db.put("late", n=1)
        until_equal(taken, couch_db)


def test_a_server_that_goes_and_comes_back_is_followed_on(couch, couch_db, tcp_proxy):
    couch_db.fill(200)
    proxy: TcpProxy = tcp_proxy(couch)
    with taking(feed(proxy.url, couch_db)) as taken:
        taken.until(lambda: caught_up(taken))
        proxy.refuse()
        proxy.reset()
        couch_db.put("while-away", n=1)
        gevent.sleep(0.05)
        proxy.accept()
        until_equal(taken, couch_db)


@pytest.mark.parametrize("how", ["include_docs", "bulk_get"])
def test_a_clean_stop_at_full_speed_is_sent_no_row_again(couch, couch_db, tcp_proxy, how):
    """Counted by a proxy between CouchDB and the feed."""
    ids = couch_db.fill(DOCS, pad="x" * 200)
    proxy: TcpProxy = tcp_proxy(couch)
    acked, taken_ids = Seq.BEGINNING, []
    for _ in range(4):
        with taking(feed(proxy.url, couch_db, documents=how, page=500), acked) as taken:
            taken.until(lambda taken=taken: len(taken.ids) > 150 or caught_up(taken))
        taken_ids += taken.ids
        acked = next((batch.seq for batch in reversed(taken.batches) if batch.seq), acked)
    with taking(feed(proxy.url, couch_db, documents=how), acked) as taken:
        taken.until(lambda: caught_up(taken))
    taken_ids += taken.ids
    sent = sum(bytes(one.to_client).count(b'"changes":[') for one in proxy.connections)
    assert sorted(taken_ids) == sorted(ids)
    assert sent == len(ids)


def test_a_recreated_database_is_noticed_before_its_first_row(couch_db):
    couch_db.fill(10)
    first = feed(couch_db.server_url, couch_db)
    with closing(first):
        identity = first.identify()
    if identity.instance_start_time in (None, "0"):
        pytest.skip("this server does not tell when a database was created")
    with taking(feed(couch_db.server_url, couch_db)) as taken:
        taken.until(lambda: caught_up(taken))
    time.sleep(1.1)  # CouchDB counts creation in seconds
    couch_db.recreate()
    couch_db.fill(5)
    with taking(feed(couch_db.server_url, couch_db), taken.batches[-1].seq, identity) as again:
        again.ended()
    assert isinstance(again.error, RecreatedError)
    assert again.batches == []


def test_a_database_recreated_under_an_open_feed_is_noticed(couch_db):
    couch_db.fill(10)
    with taking(feed(couch_db.server_url, couch_db)) as taken:
        taken.until(lambda: caught_up(taken))
        time.sleep(1.1)
        couch_db.recreate()
        couch_db.fill(5, start=100)
        taken.ended()
    assert isinstance(taken.error, RecreatedError)
    assert not {f"doc-{n:06}" for n in range(100, 105)} & set(taken.ids)


def test_a2_purges_under_steady_writes_are_noticed_in_time(couch_db, monkeypatch):
    """A response that never ends hid them for half an hour; documents are written once a second."""
    monkeypatch.setattr(identity_check, "CHECK_SECONDS", size(ci=0.5, proof=identity_check.CHECK_SECONDS))
    within_seconds = size(ci=10, proof=30)
    couch_db.fill(60)
    with taking(feed(couch_db.server_url, couch_db, mode="continuous")) as taken:
        taken.until(lambda: caught_up(taken))

        def write() -> None:
            for n in count():
                couch_db.put(f"late-{n}", n=n)
                if enough.wait(size(ci=0.1, proof=1)):
                    return

        enough = Event()
        writer = gevent.spawn(write)
        gevent.sleep(0.3)
        asked = len(taken.batches)
        purged = {f"doc-{n:06}" for n in range(50)}
        for id in sorted(purged):
            couch_db.purge(id)

        def reported() -> set[str]:
            return {c.id for batch in taken.batches[asked:] for c in batch.changes if c.leaf_version == 0}

        taken.until(lambda: reported() == purged, within_seconds)
        enough.set()
        writer.get()  # not killed: it would leave the socket of a request open
    assert taken.error is None


def test_a_purge_removes_exactly_the_purged_document(couch_db):
    """A revision of a conflict that is purged brings a row by itself; a document that is gone has none."""
    couch_db.fill(5)
    with closing(feed(couch_db.server_url, couch_db)) as source:
        identity = source.identify()
    with taking(feed(couch_db.server_url, couch_db)) as taken:
        taken.until(lambda: caught_up(taken))
    rev = couch_db.get("doc-000002")["_rev"]
    couch_db.request("POST", "/_purge", json={"doc-000002": [rev]})
    with taking(feed(couch_db.server_url, couch_db), taken.batches[-1].seq, identity) as again:
        again.until(lambda: again.ids)
        again.until(lambda: caught_up(again))
    (change,) = [c for batch in again.batches for c in batch.changes]
    assert (change.id, change.deleted, change.leaf_version) == ("doc-000002", True, 0)


def test_a_database_without_the_token_is_another_one(couch_db):
    """Works with any server, however soon after its deletion it was created anew."""
    couch_db.fill(10)
    with closing(feed(couch_db.server_url, couch_db, identity_token=True)) as source:
        identity = DatabaseIdentity(server_uuid=source.identify().server_uuid, marked=source.mark())
    with taking(feed(couch_db.server_url, couch_db, identity_token=True), Seq.BEGINNING, identity) as taken:
        taken.until(lambda: caught_up(taken))
    assert (taken.error, len(taken.ids)) == (None, 10)
    couch_db.recreate()
    couch_db.fill(5)
    with taking(
        feed(couch_db.server_url, couch_db, identity_token=True), taken.batches[-1].seq, identity
    ) as again:
        again.ended()
    assert isinstance(again.error, RecreatedError)
    assert again.batches == []


def test_a_position_that_is_none_is_refused_by_the_server(couch_db):
    with taking(feed(couch_db.server_url, couch_db), Seq.of("garbage")) as taken:
        taken.ended()
    assert isinstance(taken.error, InvalidSeqError)


def test_now_is_a_token_and_nothing_between_it_and_the_first_change_is_lost(couch_db):
    couch_db.fill(10)
    source = feed(couch_db.server_url, couch_db, since="now")
    start = source.start()
    couch_db.put("after", n=1)
    with taking(source, start) as taken:
        taken.until(lambda: taken.ids)
    assert taken.ids == ["after"]


def test_lag_is_the_number_of_changes_behind(couch_db):
    couch_db.fill(150)
    with closing(feed(couch_db.server_url, couch_db)) as source:
        assert source.pending(Seq.BEGINNING) == 150


@pytest.mark.parametrize("mode", ["continuous", "longpoll"])
def test_an_idle_feed_moves_its_position_and_stays(couch_db, mode):
    couch_db.fill(3)
    with taking(feed(couch_db.server_url, couch_db, mode=mode, timeout="300ms")) as taken:
        taken.until(lambda: len([b for b in taken.batches if not b.changes]) >= 3)
    assert taken.error is None
    assert all(batch.seq is not None for batch in taken.batches)


def test_versions_count_every_leaf_and_unknown_ids_are_missing(couch_db):
    couch_db.put("a", n=1)
    couch_db.leaf("a", "3-ccc", "2-bbb", n=2)
    couch_db.leaf("a", "2-ddd", deleted=True)
    with closing(feed(couch_db.server_url, couch_db)) as source:
        assert source.leaves(["a", "nope"]) == {"a": 1 + 3 + 2}


def test_one_document_is_fetched_for_its_change(couch_db):
    couch_db.fill(3)
    with taking(feed(couch_db.server_url, couch_db, documents="include_docs")) as taken:
        taken.until(lambda: caught_up(taken))
        change = msgspec.structs.replace(taken.batches[0].changes[0], raw=None)
        document = feed(couch_db.server_url, couch_db).fetch(change)
    assert document.doc == couch_db.get(change.id)


def test_a_document_that_cannot_be_read_is_not_fetched_as_an_empty_one(couch_db, monkeypatch):
    couch_db.fill(1)
    unread = Change(id="d0", revs=("1-a",), leaf_version=1)
    with closing(feed(couch_db.server_url, couch_db)) as source:
        defect = to_defect(unread, TooLargeError("too deep"))
        monkeypatch.setattr(source._fetcher, "fill", lambda changes: {fetch_key(changes[0]): defect})
        with pytest.raises(PermanentError, match="can't be read"):
            source.fetch(unread)


def test_unwanted_documents_are_not_fetched(couch, couch_db, tcp_proxy):
    couch_db.fill(200)
    proxy: TcpProxy = tcp_proxy(couch)
    options = SourceOptions(connection="c", database=couch_db.name, documents="bulk_get")
    auth = to_auth(couch_db.auth)
    source = CouchFeed(
        CouchConnection(url=proxy.url, auth=auth),
        options,
        prefilter=lambda change: change.id.endswith("7"),
        clock=FakeClock(),
    )
    with taking(source) as taken:
        taken.until(lambda: caught_up(taken))
    bodies = {c.id: c.raw is not None for b in taken.batches for c in b.changes}
    assert bodies == {f"doc-{n:06}": n % 10 == 7 for n in range(200)}


FILTERS: dict[str, dict[str, Any]] = {
    "selector": {"selector": {"n": {"$lt": 5}}},
    "doc_ids": {"doc_ids": ["doc-000001", "doc-000003"]},
    "many_ids": {"doc_ids": ["doc-000001", *(f"none-{n}" for n in range(1500)), "doc-000003"]},
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_in_the_server_moves_its_position_without_a_match(couch_db, name):
    """Polled, since a continuous feed with a filter tells no position until it matches."""
    couch_db.fill(50)
    couch_db.leaf("doc-000001", "3-ccc", "2-bbb", n=1)
    options = {**FILTERS[name], "on_filtered": "ignore", "deletes": "ignore"}
    with taking(feed(couch_db.server_url, couch_db, **options)) as taken:
        taken.until(lambda: "doc-000001" in taken.ids)
        (change,) = [c for b in taken.batches for c in b.changes if c.id == "doc-000001"][-1:]
        assert change.leaf_version == 4, "all leaves count, whichever of them pass the filter"
        couch_db.put("no-match", n=100)
        positions = len(taken.seqs)
        taken.until(lambda: len(taken.seqs) >= positions + 3)
    expected = {f"doc-{n:06}" for n in ([1, 3] if "doc_ids" in FILTERS[name] else range(5))}
    assert set(taken.ids) == expected
    assert taken.error is None


@pytest.mark.parametrize("kind", ["normal", "continuous"])
def test_a_recorded_answer_replays_as_the_feed_it_was(couch_db, tmp_path, kind):
    couch_db.fill(250)
    couch_db.delete("doc-000007")
    params = {"feed": kind, "include_docs": True, "style": "all_docs", "limit": 300, "timeout": 200}
    file = tmp_path / "changes"
    query = {key: json.dumps(v) if isinstance(v, bool) else v for key, v in params.items()}
    file.write_bytes(couch_db.request("GET", "/_changes", params=query).content)
    with taking(RecordedFeed(file, clock=FakeClock())) as taken:
        taken.until(lambda: caught_up(taken))
        assert state(taken.batches) == couch_db.documents()
        middle = taken.batches[0].seq
    with taking(RecordedFeed(file, clock=FakeClock()), middle) as rest:
        rest.until(lambda: caught_up(rest))
    assert taken.ids == [c.id for c in taken.batches[0].changes] + rest.ids


def test_g5_a_filter_function_with_arguments_is_read_and_followed(couch_db):
    function = "function(doc, req) { return doc.region === req.query.region; }"
    couch_db.put("_design/app", filters={"by_region": function})
    for n in range(6):
        couch_db.put(f"doc-{n}", region="eu" if n % 2 else "us")
    options = {"on_filtered": "ignore", "deletes": "ignore", "filter_function": "app/by_region"}
    with taking(feed(couch_db.server_url, couch_db, **options, filter_arguments={"region": "eu"})) as taken:
        taken.until(lambda: len(taken.ids) == 3)
        couch_db.put("late", region="eu")
        taken.until(lambda: "late" in taken.ids)
    assert taken.error is None
    assert sorted(taken.ids) == ["doc-1", "doc-3", "doc-5", "late"]
