"""Every way in which a response can end, or not come: nothing lost, nothing jumped over, no storm."""

from __future__ import annotations

import time
from typing import Any

import pytest

from checkpoints import Seq
from pillows.errors import InvalidSeqError, SourceMissingError
from pillows.feed.couch_feed import Backlog
from pillows.feed.documents import fetch_mode
from pillows.observer import Observer
from pillows.retry.backoff import AWAY_SECONDS
from tests.servers.scripted import (
    CLOSE,
    HANG,
    RESET,
    Pause,
    Request,
    ScriptedServer,
    chunk,
    head,
    json_reply,
)
from tests.support.clock import FakeClock, FastClock
from tests.support.sizes import size
from tests.unit.pillows.feed.wire import closing, couchdb, feed_of, page, reply, row, taking

#: Longer than a busy machine keeps server and feed, which share this process, from running.
SILENCE_SECONDS = 0.4
CHANGES = ("GET", "/db/_changes")
TAIL_HEAD = head(chunked=True) + chunk(b"\n")
SECOND_HEAD = b'HTTP/1.1 412 Precondition Failed\r\nServer: CouchDB\r\n\r\n{"error":"nodedown"}\r\n'


class Retries(Observer):
    def __init__(self) -> None:
        self.delays_seconds: list[float] = []

    def retry(self, pillow, *, where, error, attempt, delay_seconds):
        self.delays_seconds.append(delay_seconds)


def changes(server: ScriptedServer) -> list[Request]:
    return server.requests_of(*CHANGES)


def since(server: ScriptedServer) -> list[str]:
    return [request.query["since"] for request in changes(server)]


@pytest.fixture
def server(scripted_server) -> ScriptedServer:
    return couchdb(scripted_server())


TAIL_ENDS: dict[str, Any] = {
    "fin": [TAIL_HEAD + chunk(row(3) + b"\n"), CLOSE],
    "reset": [TAIL_HEAD + chunk(row(3) + b"\n"), RESET],
    "cut inside a chunk": [TAIL_HEAD + chunk(row(3) + b"\n") + b'100\r\n{"seq"', CLOSE],
    "cut inside a chunk's size": [TAIL_HEAD + chunk(row(3) + b"\n") + b"1", CLOSE],
    "clean end in the middle of a line": [TAIL_HEAD + chunk(row(3) + b"\n" + row(4)[:30]) + chunk(b"")],
    "clean end after a whole line without its end": [TAIL_HEAD + chunk(row(3) + b"\n" + row(4)) + chunk(b"")],
    "second head in the body": [TAIL_HEAD + chunk(row(3) + b"\n") + SECOND_HEAD, HANG],
    "second head in a chunk": [TAIL_HEAD + chunk(row(3) + b"\n") + chunk(SECOND_HEAD), HANG],
    "error in the body": [TAIL_HEAD + chunk(row(3) + b"\n" + b'{"error":"timeout","reason":"x"}\n'), HANG],
    "null last_seq": [TAIL_HEAD + chunk(row(3) + b"\n" + b'{"last_seq":null,"pending":0}\n') + chunk(b"")],
    "silence": [TAIL_HEAD + chunk(row(3) + b"\n"), HANG],
}


@pytest.mark.parametrize("end", TAIL_ENDS)
def test_the_tail_goes_on_behind_the_last_whole_row(server: ScriptedServer, clock: FakeClock, end: str):
    server.on(
        *CHANGES,
        reply(page([row(1), row(2)], "2-tok")),
        TAIL_ENDS[end],
        lambda request: (
            reply(page([row(4)] if request.query["since"] == "3-tok" else [], "4-tok"))
            if request.query["feed"] == "normal"
            else [TAIL_HEAD + chunk(row(4) + b"\n"), HANG]
        ),
    )
    feed = feed_of(server.url, clock=clock, timeout="50ms", timeouts={"silence": SILENCE_SECONDS})
    with taking(feed) as taken:
        taken.until(lambda: "doc-4" in taken.ids)
    assert taken.error is None
    assert taken.ids[:4] == ["doc-1", "doc-2", "doc-3", "doc-4"]
    assert since(server)[2] == "3-tok"
    assert "null" not in "".join(since(server))


PAGE = page([row(n, f"{n}-tok" if n == 1 else None) for n in range(1, 6)], "5-tok")
PAGE_ENDS: dict[str, Any] = {
    "fin": [head(chunked=True) + chunk(PAGE[:-40]), CLOSE],
    "reset": [head(chunked=True) + chunk(PAGE[:-40]), RESET],
    "cut inside a chunk": [head(chunked=True) + chunk(PAGE)[:-60], CLOSE],
    "clean end without closing": [reply(PAGE[:-40])],
    "clean end in the middle of a row": [reply(PAGE[:200])],
    "shorter than its length": [head(length=len(PAGE)) + PAGE[:-40], CLOSE],
    "second head in the body": [head(chunked=True) + chunk(PAGE[:-40]) + SECOND_HEAD, HANG],
    "null last_seq": [reply(PAGE.replace(b'"5-tok"', b"null"))],
    "silence": [head(chunked=True) + chunk(PAGE[:-40]), HANG],
    "no answer at all": [HANG],
    "closed without an answer": [CLOSE],
    "500 No DB shards": json_reply(
        {"error": "internal_server_error", "reason": "No DB shards could be opened."}, 500
    ),
    "500 nodedown": json_reply({"error": "nodedown", "reason": "progress not possible"}, 500),
    "503": json_reply({"error": "service_unavailable"}, 503),
    "412 nodedown": json_reply({"error": "nodedown", "reason": "progress not possible"}, 412),
    "502 of a proxy": [head(502, length=6, content_type="text/html") + b"<html>"],
    "302 to a login page": [head(302, length=0, Location="https://login.example/")],
    "200 with an error": json_reply({"error": "unknown_error", "reason": "x"}),
    "200 with a page of a proxy": [head(length=14, content_type="text/html") + b"<html>\n</html>"],
    "200 without a body": [head(length=0)],
}


@pytest.mark.parametrize("end", PAGE_ENDS)
def test_a_page_that_is_not_whole_never_moves_the_position_beyond_its_rows(
    server: ScriptedServer, clock: FakeClock, end: str
):
    server.on(*CHANGES, PAGE_ENDS[end], reply(PAGE), [TAIL_HEAD, HANG])
    with taking(
        feed_of(server.url, clock=clock, timeout="50ms", timeouts={"silence": SILENCE_SECONDS})
    ) as taken:
        taken.until(lambda: "5-tok" in taken.seqs)
    assert taken.error is None
    assert set(taken.seqs) <= {"1-tok", "5-tok"}
    assert since(server)[1] in ("0", "1-tok")  # row 1 has a position: it may be all that gets through
    assert set(taken.ids) == {f"doc-{n}" for n in range(1, 6)}


def test_a_position_that_the_server_does_not_take_ends_the_feed_after_one_request(server, clock):
    body = {"error": "bad_request", "reason": "Malformed sequence supplied in 'since' parameter."}
    server.on(*CHANGES, json_reply(body, 400))
    with taking(feed_of(server.url, clock=clock), Seq.of("3-")) as taken:
        taken.ended()
    assert isinstance(taken.error, InvalidSeqError)
    assert "checkpoint reset" in str(taken.error)
    assert (since(server), taken.batches) == (["3-"], [])


def test_an_idle_tail_ends_by_the_servers_timeout_and_its_position_is_handed_over(server, clock):
    server.on(
        *CHANGES,
        reply(page([row(1)], "1-tok")),
        [head(chunked=True), Pause(0.02), chunk(b"\n" + closing("1-other")) + chunk(b"")],
        [TAIL_HEAD, HANG],
    )
    with taking(feed_of(server.url, clock=clock)) as taken:
        taken.until(lambda: len(changes(server)) == 3)
    assert taken.seqs == ["1-tok", "1-other"]
    assert since(server) == ["0", "1-tok", "1-other"]
    tail = changes(server)[1].query
    assert (tail["feed"], tail["timeout"]) == ("continuous", "25000")
    assert "heartbeat" not in tail
    assert "seq_interval" not in tail


def test_a_server_that_ends_every_feed_at_once_is_asked_seldom(server, clock):
    """Maintenance: 200, last_seq, the end, in no time, again and again."""
    count = 200
    server.on(*CHANGES, reply(page([], "1-x")), reply(closing("1-x")))
    began = clock.monotonic()
    with taking(feed_of(server.url, clock=clock)) as taken:
        taken.until(lambda: len(changes(server)) > count, 60)
        seconds = clock.monotonic() - began
    assert len(server.requests) / seconds <= 2
    assert max(clock.waited) <= 60


def test_a_server_that_ends_every_feed_at_once_is_asked_seldom_while_others_write(server, clock):
    """Each response has a row then; once the next request followed immediately, 174 times a second."""
    count = 100
    rows = iter(range(2, 10**6))

    def tail(_: Request) -> bytes:
        n = next(rows)
        return reply(row(n) + b"\n" + closing(f"{n}-x"))

    server.on(*CHANGES, reply(page([row(1)], "1-x")), tail)
    began = clock.monotonic()
    with taking(feed_of(server.url, clock=clock)) as taken:
        taken.until(lambda: len(changes(server)) > count)
        seconds = clock.monotonic() - began
    assert len(changes(server)) / seconds <= 1.1
    assert taken.ids[: count - 1] == [f"doc-{n}" for n in range(1, count)]


def test_longpoll_answers_with_rows_may_follow_one_another(server, clock):
    """A longpoll response ends with its first rows by design, so the next request need not wait a second."""
    rows = iter(range(2, 10**6))
    server.on(*CHANGES, reply(page([row(1)], "1-x")), lambda _: reply(page([row(n := next(rows))], f"{n}-x")))
    began = clock.monotonic()
    with taking(feed_of(server.url, clock=clock, mode="longpoll")) as taken:
        taken.until(lambda: len(changes(server)) > 50)
        seconds = clock.monotonic() - began
    assert seconds < 10


def test_an_answer_whose_head_does_not_come_is_given_up_and_leaves_nothing_behind(server):
    server.on(*CHANGES, reply(page([], "1-x")), [HANG])
    feed = feed_of(server.url, clock=FakeClock(), timeout="50ms", timeouts={"silence": SILENCE_SECONDS})
    with taking(feed) as taken:
        taken.until(lambda: feed.trouble)
        assert "timed out" in str(feed.trouble)
    assert taken.error is None


def test_a_server_that_cannot_be_reached_is_asked_every_few_seconds(clock):
    """When it was asked more seldom, a pillow stood still for up to a minute after the server was back."""
    tries = Retries()
    feed = feed_of("http://127.0.0.1:9", clock=clock, observer=tries)
    with taking(feed) as taken:
        taken.until(lambda: len(tries.delays_seconds) >= 60)
    assert "Connection" in str(feed.trouble)
    assert max(tries.delays_seconds) <= AWAY_SECONDS
    assert max(clock.waited) <= 5, "signs of life come every 5 s"


def test_a_server_that_fails_is_tried_again_with_growing_delays(server, clock):
    server.on(*CHANGES, *[json_reply({"error": "unknown_error"}, 500)] * 60, reply(page([row(1)], "1-x")))
    tries = Retries()
    with taking(feed_of(server.url, clock=clock, observer=tries)) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])
    assert len(tries.delays_seconds) >= 60
    assert max(tries.delays_seconds) > 2 * AWAY_SECONDS


def test_a_missing_database_is_waited_for_and_asked_for_seldom(server, clock):
    missing = json_reply({"error": "not_found", "reason": "Database does not exist."}, 404)
    server.on(*CHANGES, *[missing] * 5, reply(page([row(1)], "1-x")), [TAIL_HEAD, HANG])
    began = clock.monotonic()
    with taking(feed_of(server.url, clock=clock)) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])
    assert clock.monotonic() - began >= 5 * 30


def test_a_missing_database_ends_the_feed_where_configured(server, clock):
    server.on(*CHANGES, json_reply({"error": "not_found", "reason": "no_db_file"}, 404))
    with taking(feed_of(server.url, clock=clock, on_missing="fail")) as taken:
        taken.ended()
    assert isinstance(taken.error, SourceMissingError)


def test_a_feed_that_ends_because_its_database_was_deleted_waits_for_it(server, clock):
    missing = json_reply({"error": "not_found", "reason": "Database does not exist."}, 404)
    server.on(*CHANGES, reply(page([row(1)], "1-x")), reply(closing("1-y")), missing)
    feed = feed_of(server.url, clock=clock)
    with taking(feed) as taken:
        taken.until(lambda: feed.trouble)
        assert "does not exist" in str(feed.trouble)
    assert taken.seqs == ["1-x", "1-y"]


def test_longpoll_reads_answer_after_answer(server, clock):
    server.on(
        *CHANGES,
        reply(page([row(1)], "1-x")),
        reply(page([row(2), row(3)], "3-x")),
        reply(b'{"results":[\n', b"\n", b"\n", page([], "3-y")[len(b'{"results":[\n') :]),
        [HANG],
    )
    with taking(feed_of(server.url, clock=clock, mode="longpoll")) as taken:
        taken.until(lambda: len(changes(server)) == 4)
    assert taken.ids == ["doc-1", "doc-2", "doc-3"]
    assert [request.query["feed"] for request in changes(server)] == ["normal", *["longpoll"] * 3]
    assert since(server) == ["0", "1-x", "3-x", "3-y"]


def test_a_server_that_is_cloudant_is_long_polled(server, clock):
    server.on("GET", "/", json_reply({"couchdb": "Welcome", "vendor": {"name": "IBM Cloudant"}}))
    server.on(*CHANGES, reply(page([], "1-x")), [HANG])
    with taking(feed_of(server.url, clock=clock, mode="auto")) as taken:
        taken.until(lambda: len(changes(server)) == 2)
    assert changes(server)[1].query["feed"] == "longpoll"


def test_a_proxy_that_holds_a_continuous_feed_back_is_noticed(server):
    """Its first byte comes with its end, although CouchDB sends a line end at once."""
    whole = head(chunked=True) + chunk(b"\n" + closing("1-y")) + chunk(b"")
    server.on(*CHANGES, reply(page([], "1-x")), [Pause(0.1), whole], [HANG])
    with taking(feed_of(server.url, clock=FastClock(20.0), mode="auto", timeout="2s")) as taken:
        taken.until(lambda: len(changes(server)) == 3)
    assert [request.query["feed"] for request in changes(server)][1:] == ["continuous", "longpoll"]


def test_a_tail_that_says_it_is_far_behind_catches_up_again(server, clock):
    server.on(
        *CHANGES,
        reply(page([row(1)], "1-x")),
        reply(closing("1-x", 20_000)),
        reply(page([row(2)], "2-x")),
        [TAIL_HEAD, HANG],
    )
    with taking(feed_of(server.url, clock=clock)) as taken:
        taken.until(lambda: len(changes(server)) == 4)
    assert [r.query["feed"] for r in changes(server)] == ["normal", "continuous", "normal", "continuous"]


def test_what_the_server_holds_open_is_left_within_a_second(server):
    server.on(*CHANGES, reply(page([row(1)], "1-x")), [TAIL_HEAD, HANG])
    with taking(feed_of(server.url)) as taken:
        taken.until(lambda: len(changes(server)) == 2)
        began = time.monotonic()
        taken.stop.set()
        taken.ended()
    assert time.monotonic() - began < size(ci=10, proof=1)


def test_far_behind_documents_are_fetched_apart_for_a_trial_and_at_the_head_they_come_along(
    server, clock, monkeypatch
):
    monkeypatch.setattr(fetch_mode, "LAP_ROWS", 1)
    monkeypatch.setattr(fetch_mode, "LAPS_BEFORE_TRIAL", 1)
    ids = page([row(n, f"{n}-x", doc=None) for n in (2, 3)], "3-x", 9_000)
    server.on(
        *CHANGES,
        reply(page([], "0-x", 300_000)),
        reply(page([row(1)], "1-x", 299_999)),
        reply(ids),
        reply(page([row(4)], "4-x", 0)),
        [TAIL_HEAD, HANG],
    )
    found = [{"id": f"doc-{n}", "docs": [{"ok": {"_id": f"doc-{n}", "_rev": f"1-{n:032x}"}}]} for n in (3, 2)]
    server.on("POST", "/db/_bulk_get", json_reply({"results": found}))
    with taking(feed_of(server.url, clock=clock, documents="auto")) as taken:
        taken.until(lambda: len(changes(server)) == 5)
    assert [change.raw is not None for batch in taken.batches for change in batch.changes] == [True] * 4
    asked = [(r.query.get("feed", "probe"), "include_docs" in r.query) for r in changes(server)]
    assert asked == [
        ("probe", False),
        ("normal", True),
        ("normal", False),
        ("normal", True),
        ("continuous", True),
    ]


@pytest.mark.parametrize("mode", ["continuous", "longpoll"])
def test_documents_that_are_to_be_fetched_apart_never_come_along(server, clock, mode):
    """At the head the feed once brought documents, whatever was configured."""
    bare = row(2, doc=None)
    tail = [TAIL_HEAD + chunk(bare + b"\n"), HANG] if mode == "continuous" else reply(page([bare], "2-tok"))
    server.on(*CHANGES, reply(page([row(1, doc=None)], "1-x")), tail, [HANG])
    server.on("POST", "/db/_bulk_get", lambda request: json_reply({"results": fetched(request)}))
    with taking(feed_of(server.url, clock=clock, documents="bulk_get", mode=mode)) as taken:
        taken.until(lambda: len(taken.ids) == 2)
    assert taken.ids == ["doc-1", "doc-2"]
    assert all(change.raw is not None for batch in taken.batches for change in batch.changes)
    assert [r.query["feed"] for r in changes(server)][:2] == ["normal", mode]
    assert not any("include_docs" in r.query for r in changes(server))


def fetched(request: Request) -> list[dict]:
    asked = request.json()["docs"]
    docs = [{"_id": one["id"], "_rev": one["rev"], "n": 1} for one in asked]
    return [{"id": doc["_id"], "docs": [{"ok": doc}]} for doc in docs]


def test_a_backlog_that_nobody_can_have_written_is_told_as_a_rewind(server, clock):
    told = []

    class Listener(Observer):
        def rewind(self, pillow, *, kind, reason):
            told.append(reason)

    server.on(
        *CHANGES,
        reply(page([row(1)], "1-x", 0)),
        reply(closing("1-x", 200_000)),
        reply(page([row(2)], "2-x", 199_999)),
        reply(page([row(3)], "3-x", 0)),
        [TAIL_HEAD, HANG],
    )
    with taking(feed_of(server.url, clock=clock, observer=Listener())) as taken:
        taken.until(lambda: len(changes(server)) == 5)
    assert told == ["200000 changes are behind, 0 were a moment ago"]
    assert taken.seqs[-1] == "3-x"


@pytest.mark.parametrize(("length", "told"), [(4000, []), (6001, ["source.long_position"])])
def test_a_position_that_is_nearly_too_long_for_a_request_is_told_once(server, clock, length, told):
    warnings = []

    class Listener(Observer):
        def warning(self, pillow, *, event, details):
            warnings.append(event)

    token = f"1-{'x' * (length - 2)}"
    server.on(*CHANGES, reply(page([row(1)], token)), reply(closing(token)), [TAIL_HEAD, HANG])
    with taking(feed_of(server.url, clock=clock, observer=Listener())) as taken:
        taken.until(lambda: len(taken.seqs) >= 2)
    assert warnings == told


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", json_reply("long", 414)],
)
def test_a_position_too_long_for_a_request_ends_the_feed(server, clock, answer):
    """CouchDB answers without a word of its own: it was taken for what passes, and asked for ever."""
    server.on(*CHANGES, [answer, CLOSE])
    with taking(feed_of(server.url, clock=clock), Seq.of(f"1-{'x' * 8000}")) as taken:
        taken.ended()
    assert isinstance(taken.error, InvalidSeqError)
    assert "too long" in str(taken.error)


def test_a_wordless_400_to_a_short_request_may_pass(server, clock):
    """Proxies and servers that are starting answer like this."""
    refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    server.on(*CHANGES, [refused, CLOSE], reply(page([row(1)], "1-x")), [TAIL_HEAD, HANG])
    with taking(feed_of(server.url, clock=clock), Seq.of("0-y")) as taken:
        taken.until(lambda: taken.ids == ["doc-1"])


def test_a_backlog_that_was_written_while_we_were_away_is_none():
    before = Backlog(at=0.0, pending=0)
    assert not Backlog(at=100.0, pending=500_000).is_rewound_from(before)
    assert Backlog(at=1.0, pending=500_000).is_rewound_from(before)
    assert not Backlog(at=1.0, pending=0).is_rewound_from(Backlog(at=0.0, pending=500_000))
