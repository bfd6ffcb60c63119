"""Documents that are fetched apart: matched by id and revision, never older, never a delete by mistake."""

from __future__ import annotations

import random
from typing import Any

import gevent
import gevent.event
import msgspec
import pytest
from gevent.event import Event

from pillows.clock import SystemClock
from pillows.couch.client import CouchClient
from pillows.couch.http.response import ActivityMonitor, TooLargeError, UnreadableError
from pillows.couch.options import CouchConnection
from pillows.errors import RetryableError
from pillows.feed.documents.fetcher import DocumentFetcher, fetch_key
from pillows.feed.documents.loader import AverageSize, DocumentLoader
from pillows.feed.documents.throttle import ConcurrencyLimit
from pillows.feed.parsing.changes_parser import parse_change
from pillows.models import Change, ChangeBatch
from pillows.observer import Observer
from tests.servers.scripted import HANG, Pause, ScriptedServer, head, json_reply
from tests.unit.pillows.feed.wire import couchdb, feed_of, page, reply, row, taking

BULK = ("POST", "/db/_bulk_get")
MISSING = {"error": "not_found", "reason": "missing"}


def document(id: str, rev: str, **fields: Any) -> dict[str, Any]:
    return {"_id": id, "_rev": rev, **fields}


def ok(id: str, rev: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "docs": [{"ok": document(id, rev, **fields)}]}


def not_found(id: str, rev: str = "undefined") -> dict[str, Any]:
    return {"id": id, "docs": [{"error": {"id": id, "rev": rev, **MISSING}}]}


def results(*found: dict[str, Any]) -> bytes:
    return json_reply({"results": list(found)})


def change(id: str, *revs: str, **fields: Any) -> Change:
    line = row(1, None, id=id, changes=[{"rev": rev} for rev in revs], doc=None, **fields)
    return parse_change(line)


@pytest.fixture
def server(scripted_server) -> ScriptedServer:
    return couchdb(scripted_server())


@pytest.fixture
def documents(server, clock) -> DocumentFetcher:
    couch = CouchClient(CouchConnection(url=server.url), clock=clock)
    return DocumentFetcher(couch, "db", limit=ConcurrencyLimit(4), activity=ActivityMonitor(clock))


def bodies(filled: dict[Any, Change]) -> dict[str, dict[str, Any]]:
    return {c.id: msgspec.json.decode(c.raw) for c in filled.values() if c.raw is not None}


def test_answers_are_matched_by_id_and_revision_in_whatever_order(server, documents):
    server.on(*BULK, results(ok("c", "3-c", n=3), ok("a", "1-a", n=1), ok("b", "2-b", n=2)))
    changes = [change("a", "1-a"), change("b", "2-b"), change("c", "3-c")]
    assert {id: doc["n"] for id, doc in bodies(documents.fill(changes)).items()} == {"a": 1, "b": 2, "c": 3}
    assert server.requests_of(*BULK)[0].json() == {
        "docs": [{"id": "a", "rev": "1-a"}, {"id": "b", "rev": "2-b"}, {"id": "c", "rev": "3-c"}]
    }


def test_two_revisions_of_one_id_get_their_own_documents(server, documents):
    server.on(*BULK, results(ok("a", "2-b", n=2), ok("a", "1-a", n=1)))
    filled = documents.fill([change("a", "1-a"), change("a", "2-b")])
    assert {key: msgspec.json.decode(c.raw)["n"] for key, c in filled.items()} == {
        ("a", "1-a", 1): 1,
        ("a", "2-b", 2): 2,
    }


@pytest.mark.parametrize(
    "first",
    [
        results(ok("a", "1-a", n=1)),
        results(not_found("b", "1-b"), ok("a", "1-a", n=1)),
        results(ok("a", "1-a", n=1), ok("b", "1-other", n=0)),
        results(ok("a", "1-a", n=1), {"id": "b", "docs": []}),
        results(ok("a", "1-a", n=1), {"id": "b", "docs": [{"error": {"id": "b", "error": "timeout"}}]}),
    ],
)
def test_what_an_answer_left_out_is_asked_for_again_after_two_seconds(server, documents, clock, first):
    server.on(*BULK, first, results(ok("b", "1-b", n=2)))
    filled = documents.fill([change("a", "1-a"), change("b", "1-b")])
    assert {id: doc["n"] for id, doc in bodies(filled).items()} == {"a": 1, "b": 2}
    assert 2.0 in clock.waited
    assert server.requests_of(*BULK)[1].json() == {"docs": [{"id": "b", "rev": "1-b"}]}


def test_a_document_that_has_moved_on_is_taken_as_it_is_now(server, documents):
    """Asked without revision, CouchDB gives all leaves, deleted ones too, the winner not first."""
    leaves = [
        {"ok": document("a", "3-x", _deleted=True)},
        {"ok": document("a", "2-b", n=2)},
        {"ok": document("a", "2-c", n=3)},
    ]
    server.on(*BULK, results(not_found("a")), results(not_found("a")), results({"id": "a", "docs": leaves}))
    (fresh,) = documents.fill([change("a", "1-a")]).values()
    assert (fresh.revs, fresh.leaf_version, fresh.deleted) == (("2-c", "2-b", "3-x"), 7, False)
    assert msgspec.json.decode(fresh.raw)["n"] == 3
    assert server.requests_of(*BULK)[2].json() == {"docs": [{"id": "a"}]}


def test_a_document_that_was_deleted_since_is_gone(server, documents):
    leaf = {"ok": document("a", "2-b", _deleted=True)}
    server.on(*BULK, results(not_found("a")), results(not_found("a")), results({"id": "a", "docs": [leaf]}))
    (fresh,) = documents.fill([change("a", "1-a")]).values()
    assert (fresh.deleted, fresh.raw, fresh.leaf_version) == (True, None, 2)


def test_a_leaf_that_is_listed_twice_counts_once(server, documents):
    leaf = {"ok": document("a", "2-b", n=2)}
    twice = results({"id": "a", "docs": [leaf, leaf]}, {"id": "a", "docs": [leaf]})
    server.on(*BULK, results(not_found("a")), results(not_found("a")), twice)
    filled = documents.fill([change("a", "1-a"), change("a", "1-b")])
    assert [c.leaf_version for c in filled.values()] == [2, 2]
    assert server.requests_of(*BULK)[2].json() == {"docs": [{"id": "a"}]}


def test_an_older_state_is_never_taken(server, documents):
    server.on(*BULK, results(not_found("a")), results(not_found("a")), results(ok("a", "2-b")))
    with pytest.raises(RetryableError, match="lags"):
        documents.fill([change("a", "2-x", "1-y")])


def test_not_found_is_a_delete_only_when_the_database_does_not_know_the_id(server, documents):
    server.on(*BULK, results(not_found("a"), not_found("b")))
    rows = [{"key": "a", "error": "not_found"}, {"key": "b", "id": "b", "value": {"rev": "2-b"}}]
    server.on("POST", "/db/_all_docs", json_reply({"rows": rows}))
    with pytest.raises(RetryableError, match="'b'"):
        documents.fill([change("a", "1-a"), change("b", "1-b")])
    (gone,) = documents.fill([change("a", "1-a")]).values()
    assert (gone.deleted, gone.raw, gone.leaf_version) == (True, None, 1)


@pytest.mark.parametrize("status", [400, 404, 405, 500])
def test_a_server_without_bulk_get_is_asked_for_each_document(server, documents, status):
    server.on(*BULK, json_reply({"error": "x", "reason": "y"}, status))
    server.on("GET", "/db/a/b", json_reply([{"ok": document("a/b", "1-a", n=1)}]))
    server.on("GET", "/db/c", json_reply({"error": "not_found", "reason": "missing"}, 404))
    server.on("POST", "/db/_all_docs", json_reply({"rows": [{"key": "c", "error": "not_found"}]}))
    filled = documents.fill([change("a/b", "1-a"), change("c", "1-c")])
    assert bodies(filled)["a/b"]["n"] == 1
    assert filled["c", "1-c", 1].deleted
    single = server.requests_of("GET", "/db/a/b")[0]
    assert (single.raw_target.split("?")[0], single.query) == ("/db/a%2Fb", {"open_revs": '["1-a"]'})
    assert len(server.requests_of(*BULK)) == (1 if status != 500 else 3)


def test_a_database_that_is_missing_is_no_server_without_bulk_get(server, documents):
    missing = json_reply({"error": "not_found", "reason": "Database does not exist."}, 404)
    server.on(*BULK, missing, results(ok("a", "1-a")))
    with pytest.raises(RetryableError):
        documents.fill([change("a", "1-a")])
    assert documents.fill([change("a", "1-a")])


def test_being_throttled_is_obeyed_and_halves_the_requests_at_a_time(server, clock):
    couch = CouchClient(CouchConnection(url=server.url), clock=clock)
    limit = ConcurrencyLimit(4)
    documents = DocumentFetcher(couch, "db", limit=limit, activity=ActivityMonitor(clock))
    busy = json_reply({"error": "too_many_requests"}, 429, Retry_After="3")
    server.on(*BULK, busy, busy, results(ok("a", "1-a")))
    began = clock.monotonic()
    documents.fill([change("a", "1-a")])
    assert clock.monotonic() - began >= 6
    assert limit.requests == 1
    widths = []
    for _ in range(40):
        documents.fill([change("a", "1-a")])
        widths.append(limit.requests)
    assert (widths[5], widths[-1]) == (1, 4)


class Told(Observer):
    def __init__(self):
        self.retries = []

    def retry(self, pillow, *, where, error, attempt, delay_seconds):
        self.retries.append((where, error, attempt, delay_seconds))


def throttled_feed(server, clock, busy, **source):
    """A feed whose documents are fetched apart, and whose server is `busy` at first."""
    server.on("GET", "/db/_changes", reply(page([row(1, doc=None)], "1-x")), [HANG])
    found = {"_id": "doc-1", "_rev": f"1-{1:032x}"}
    server.on(*BULK, *busy, results({"id": "doc-1", "docs": [{"ok": found}]}))
    told = Told()
    return feed_of(server.url, clock=clock, observer=told, documents="bulk_get", **source), told


def test_being_throttled_is_told(server, clock):
    """A pillow stood still for hours, and nothing said so."""
    again, busy = Event(), json_reply({"error": "too_many_requests"}, 429, Retry_After="3")
    feed, told = throttled_feed(server, clock, [busy, busy, [Pause(again), busy]])
    with taking(feed) as taken:
        taken.until(lambda: len(server.requests_of(*BULK)) == 3)
        assert "429" in str(feed.trouble)
        assert [(where, attempt) for where, _, attempt, _ in told.retries] == [("source", 1), ("source", 2)]
        assert all(delay >= 3 for *_, delay in told.retries)
        again.set()
        taken.until(lambda: taken.ids == ["doc-1"])
        assert feed.trouble is None


def test_a_server_that_throttles_for_minutes_fails_like_any_other(server, clock):
    busy = json_reply({"error": "too_many_requests"}, 429, Retry_After="30")
    feed, _ = throttled_feed(server, clock, [busy] * 20)
    with taking(feed) as taken:
        taken.until(lambda: len(server.requests_of("GET", "/db/_changes")) == 2)
        assert len(server.requests_of(*BULK)) == 7, "all three minutes, and no longer"
        assert "429" in str(feed.trouble)
    assert taken.error is None


def test_a_wait_that_is_given_up_is_no_trouble_any_more(server):
    feed, told = throttled_feed(server, SystemClock(), [json_reply({}, 429, Retry_After="100")] * 2)
    with taking(feed) as taken:
        taken.until(lambda: told.retries)
        taken.stop.set()
        taken.ended()
    assert feed.trouble is None


def test_a_server_without_a_number_is_left_alone_for_longer_and_longer(server, clock):
    feed, told = throttled_feed(server, clock, [json_reply({}, 429)] * 8)
    with taking(feed) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])
    delays = [delay for *_, delay in told.retries]
    assert len(delays) == 8
    assert min(delays) >= 1
    assert all(delay <= max(1.0, 2.0**n) for n, delay in enumerate(delays))


def test_versions_are_the_sum_of_all_leaves_and_unknown_ids_are_missing(server, documents):
    leaves = [{"ok": document("a", "3-x", _deleted=True)}, {"ok": document("a", "2-b")}]
    server.on(*BULK, results({"id": "a", "docs": leaves}, not_found("b")))
    server.on("POST", "/db/_all_docs", json_reply({"rows": [{"key": "b", "error": "not_found"}]}))
    assert documents.read_versions(["a", "b"]) == {"a": 5}


@pytest.mark.parametrize("answer", ["nodedown", "timeout", "nothing"])
def test_a_document_whose_leaves_cannot_be_read_now_is_not_taken_for_gone(server, documents, answer):
    """Its rows were removed from the target while a shard was away: no leaf looked like no document."""
    told = [{"id": "b", "docs": [{"error": {"id": "b", "rev": "undefined", "error": answer}}]}]
    server.on(*BULK, results(ok("a", "1-a"), *([] if answer == "nothing" else told)))
    known = {"rows": [{"key": "b", "id": "b", "value": {"rev": "1-b"}}]}
    server.on("POST", "/db/_all_docs", json_reply(known))
    with pytest.raises(RetryableError, match="'b'"):
        documents.read_versions(["a", "b"])


def test_versions_of_documents_that_are_too_large_together_are_asked_for_in_halves(
    server, documents, monkeypatch
):
    """A restored database sends back a whole batch, however large its documents are."""
    monkeypatch.setattr("pillows.feed.documents.fetcher.MAX_GROUP_BYTES", 1000)
    ids = [f"d{n}" for n in range(10)]

    def answer(request):
        return results(*(ok(one["id"], "3-c", text="x" * 300) for one in request.json()["docs"]))

    server.on(*BULK, answer)
    assert documents.read_versions(ids) == dict.fromkeys(ids, 3)


@pytest.mark.parametrize(
    "bulk",
    [b'{"id":"b","docs":[{"ok":{"_id":"b","_rev":"2-b","n":1e400x}}]}', b'"' + b"x" * 2000 + b'"'],
    ids=["unreadable", "too large"],
)
def test_b1_versions_of_a_document_that_cannot_be_read_are_listed_by_the_feed(server, clock, bulk):
    """The end of a pass asks for dead letters, and must not ask for one of them for ever."""

    def answer(request):
        found = [ok("a", "1-a")["docs"][0] if one["id"] == "a" else None for one in request.json()["docs"]]
        parts = [bulk if each is None else msgspec.json.encode({"id": "a", "docs": [each]}) for each in found]
        return reply(b'{"results":[' + b",".join(parts) + b"]}")

    couch = CouchClient(CouchConnection(url=server.url), clock=clock)
    documents = DocumentFetcher(
        couch, "db", limit=ConcurrencyLimit(4), activity=ActivityMonitor(clock), max_document_bytes=1000
    )
    listed = {"results": [{"seq": "9-x", "id": "b", "changes": [{"rev": "2-b"}, {"rev": "3-c"}]}]}
    server.on(*BULK, answer)
    server.on("POST", "/db/_changes", json_reply(listed))
    assert documents.read_versions(["a", "b"]) == {"a": 1, "b": 5}


# --- the loader


def batch(*ids: str, seq: bool = True, **fields: Any) -> ChangeBatch:
    from checkpoints import Seq

    changes = [change(id, "1-a", **fields) for id in ids]
    return ChangeBatch(changes=changes, seq=Seq.of(f"after-{ids[-1]}") if seq and ids else None)


class Fetching:
    """A stand-in for `DocumentFetcher.fill`: slow, unordered, and it notes what was asked for."""

    def __init__(self, size_bytes: int = 10, largest: int = 10**9, fail_at: str = ""):
        self.asked: list[list[str]] = []
        self.running = self.most = 0
        self._size_bytes, self._largest, self._fail_at = size_bytes, largest, fail_at

    def __call__(self, changes):
        self.asked.append([c.id for c in changes])
        self.running += 1
        self.most = max(self.most, self.running)
        gevent.sleep(random.uniform(0, 0.005))
        self.running -= 1
        if self._fail_at in [c.id for c in changes]:
            raise RetryableError("no")
        if len(changes) * self._size_bytes > self._largest:
            raise TooLargeError
        body = msgspec.Raw(b'"' + b"x" * self._size_bytes + b'"')
        return {fetch_key(c): msgspec.structs.replace(c, raw=body) for c in changes}


def load(fetch: Fetching, batches: list[ChangeBatch], wants=lambda _: True, sizes=None) -> list[ChangeBatch]:
    given: list[ChangeBatch] = []
    loader = DocumentLoader(
        fetch, given.append, wants=wants, limit=ConcurrencyLimit(4), sizes=sizes or AverageSize()
    )
    try:
        for one in batches:
            loader.add(one)
        loader.drain()
    except RetryableError:
        loader.close()
        with pytest.raises(RetryableError):
            loader.drain()
    return given


def ids(batches: list[ChangeBatch]) -> list[str]:
    return [c.id for b in batches for c in b.changes]


def test_the_order_stays_and_every_position_comes_right_behind_its_rows():
    batches = [batch(*[f"d{n}" for n in range(start, start + 100)]) for start in range(0, 3000, 100)]
    fetch = Fetching()
    given = load(fetch, batches)
    assert ids(given) == [f"d{n}" for n in range(3000)]
    assert all(c.raw is not None for b in given for c in b.changes)
    assert [str(b.seq) for b in given if b.seq] == [f"after-d{n}" for n in range(99, 3000, 100)]
    assert all(str(b.seq) == f"after-{b.changes[-1].id}" for b in given if b.seq)
    assert fetch.most == 4
    assert {len(asked) for asked in fetch.asked} == {300}


def test_a_slow_answer_holds_back_only_so_much_behind_it():
    first, fetching = Event(), Fetching()

    def fetch(changes):
        if changes[0].id == "d0":
            first.wait()
        return fetching(changes)

    given: list[ChangeBatch] = []
    loader = DocumentLoader(
        fetch, given.append, wants=lambda _: True, limit=ConcurrencyLimit(4), sizes=AverageSize()
    )
    batches = [batch(*[f"d{n}" for n in range(start, start + 100)]) for start in range(0, 9000, 100)]

    def read() -> None:
        for one in batches:
            loader.add(one)
        loader.drain()

    reader = gevent.spawn(read)
    reader.join(0.2)
    assert not given
    assert sum(map(len, fetching.asked)) <= 2 * 4 * 300
    first.set()
    reader.get()
    assert ids(given) == [f"d{n}" for n in range(9000)]


def test_unwanted_and_deleted_changes_pass_without_document_and_cost_no_request():
    fetch = Fetching()
    batches = [batch("a", "b"), batch("c", "d", deleted=True), batch("e")]
    given = load(fetch, batches, wants=lambda c: c.id == "e")
    assert ids(given) == ["a", "b", "c", "d", "e"]
    assert [c.raw is not None for b in given for c in b.changes] == [False] * 4 + [True]
    assert fetch.asked == [["e"]]


def test_large_documents_come_in_small_groups_and_the_position_with_the_last_piece():
    sizes = AverageSize()
    sizes.record(1, 2 * 2**20)
    given = load(Fetching(size_bytes=2 * 2**20), [batch(*"abcdefg")], sizes=sizes)
    assert [(ids([b]), b.seq is not None) for b in given] == [
        (["a", "b"], False),
        (["c", "d"], False),
        (["e", "f"], False),
        (["g"], True),
    ]


def test_documents_that_turn_out_too_large_together_are_asked_for_in_halves():
    fetch = Fetching(size_bytes=1000, largest=5000)
    given = load(fetch, [batch(*[f"d{n}" for n in range(40)])])
    assert ids(given) == [f"d{n}" for n in range(40)]
    assert [b.seq is not None for b in given] == [False] * (len(given) - 1) + [True]


def test_nothing_behind_a_failed_fetch_is_handed_on():
    batches = [batch(*[f"d{n}" for n in range(start, start + 100)]) for start in range(0, 3000, 100)]
    given = load(Fetching(fail_at="d1234"), batches)
    assert ids(given) == [f"d{n}" for n in range(1200)]


@pytest.mark.parametrize("damage", [b"NaN", b'"\xff"', b"[" * 20_000 + b"]" * 20_000])
def test_b5_a_document_that_cannot_be_read_is_a_dead_letter_and_the_others_are_fetched(
    server, clock, damage: bytes
):
    """The whole group was asked for again for ever."""

    def answer(request):
        found = [
            ok(one["id"], "1-" + one["id"], n="?" if one["id"] == "b" else 0)
            for one in request.json()["docs"]
        ]
        text = msgspec.json.encode({"results": found}).replace(b'"?"', damage)
        return head(length=len(text)) + text

    server.on(*BULK, answer)
    server.on(
        "GET",
        "/db/_changes",
        reply(page([row(1, id=id, rev=f"1-{id}", doc=None) for id in "abc"], "3-x")),
        [HANG],
    )
    feed = feed_of(server.url, clock=clock, documents="bulk_get")
    with taking(feed) as taken:
        taken.until(lambda: len(taken.ids) == 3)
        changes = [change for batch in taken.batches for change in batch.changes]
        again = feed.current(["a", "b"])
    for found in (changes, again):
        assert [c.id for c in found if c.defect] == ["b"]
    assert taken.error is None


def test_b5_an_error_page_says_nothing_about_documents(server, documents):
    server.on(*BULK, head(length=6, content_type="text/html") + b"<html>")
    with pytest.raises(RetryableError) as error:
        documents.read_current([change("a", "1-a")])
    assert not isinstance(error.value, UnreadableError)
