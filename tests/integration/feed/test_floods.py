"""A server that sends what it should not: without an end, or more than anybody can hold."""

from __future__ import annotations

import gzip
import time
from collections.abc import Sequence

import gevent
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.servers.flooding import ENDLESS, FloodingServer, Repeated
from tests.servers.scripted import HANG, Pause, ScriptedServer, chunk, head, json_reply
from tests.support.hub_meter import HubMeter
from tests.support.memory import MIB, peak_bytes, reset_peak
from tests.support.sizes import proving, size
from tests.unit.pillows.feed.wire import PAGE_HEAD, couchdb, feed_of, info, page, reply, row, taking

#: The hub is never held up for longer; a busy machine, which runs other tests, gets more.
TURN_SECONDS = size(ci=0.5, proof=0.1)

MAX_GROWTH_BYTES = 300 * 2**20

EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"


def answer_changes(*parts: Repeated) -> dict[str, Sequence[Repeated]]:
    welcome = json_reply({"couchdb": "Welcome", "uuid": "u1"}, Connection="close")
    return {
        "/": [(welcome, 1)],
        "/db": [(info().replace(b"\r\n", b"\r\nConnection: close\r\n", 1), 1)],
        "/db/_changes": parts,
    }


CHUNKED = (head(chunked=True), 1)
CLOSED = head(Connection="close")
ZIPPED = head(Connection="close", Content_Encoding="gzip")
FLOODS = {
    "answers of status 100": [(b"HTTP/1.1 100 Continue\r\n\r\n", ENDLESS)],
    "trailers": [CHUNKED, (b"0\r\n", 1), (b"X: y\r\n", ENDLESS)],
    "chunks of one byte": [CHUNKED, (b"1\r\n\n\r\n", ENDLESS)],
    "chunk extensions": [CHUNKED, (b"1;" + b"x" * 60_000 + b"\r\n\n\r\n", ENDLESS)],
    "empty blocks": [(head(Connection="close", Content_Encoding="deflate"), 1), (EMPTY_BLOCK, ENDLESS)],
}


def survive(routes: dict[str, Sequence[Repeated]], seconds: float) -> str | None:
    """Read from such a server; return the feed's trouble. Hold that nothing else is held up meanwhile."""
    reset = reset_peak()
    turns: list[float] = []
    with FloodingServer(routes) as server:
        feed = feed_of(server.url, timeouts={"silence": 5.0, "drain": 0.2})
        with taking(feed) as taken, HubMeter(time.thread_time).measure() as meter:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not feed.trouble and not taken.error:
                gevent.sleep(0.01)
                turns.append(meter.longest_seconds)
        trouble = feed.trouble or (str(taken.error) if taken.error else None)
    assert meter.longest_seconds < TURN_SECONDS
    assert peak_bytes() - reset < MAX_GROWTH_BYTES
    return trouble


@pytest.mark.parametrize("flood", FLOODS)
def test_c1_a_server_that_floods_holds_nobody_up(flood):
    trouble = survive(answer_changes(*FLOODS[flood]), seconds=size(ci=2.0, proof=15.0))
    assert trouble is not None or flood in {"chunks of one byte", "chunk extensions"}, "it was read for ever"


ROW = row(1, pad="x" * 1000)
LONG = {
    "a line without an end": [CHUNKED, (chunk(b"x" * 60_000), ENDLESS)],
    "a row without an end": [CHUNKED, (chunk(PAGE_HEAD + ROW[:-20]), 1), (chunk(b"x" * 60_000), ENDLESS)],
    "a page of 64 MiB on one line": [
        (CLOSED + b'{"results":[' + ROW, 1),
        (b"," + ROW, 63 * MIB // len(ROW)),
        (b'],"last_seq":"1-x","pending":0}\n', 1),
    ],
    "a bomb of gzip": [(ZIPPED + gzip.compress(bytes(300 * MIB), 9), 1)],
    "a position of 20 MB": [(CLOSED + PAGE_HEAD + b'{"seq":"1-', 1), (b"x" * MIB, 20), (ROW[11:] + b"\n", 1)],
    "revisions of 60 MB": [
        (CLOSED + PAGE_HEAD + b'{"seq":"1-x","id":"a","changes":[{"rev":"1-a"}', 1),
        (b',{"rev":"1-a"}', 60 * MIB // 14),
        (b"]}\n", 1),
    ],
    "an end of 60 MB": [
        (CLOSED + PAGE_HEAD + b"],\n" + b'"last_seq":[1', 1),
        (b",1", 30 * MIB),
        (b"]}\n", 1),
    ],
}


@pytest.mark.parametrize("long", LONG)
def test_c4_an_answer_that_nobody_can_hold_costs_bounded_memory(long):
    trouble = survive(answer_changes(*LONG[long]), seconds=30.0)
    assert trouble is not None


@pytest.mark.parametrize("path", ["/", "/db"])
def test_c4_an_endless_answer_to_a_question_costs_bounded_memory(path):
    routes = answer_changes((CLOSED, 1)) | {path: [(CLOSED + b'{"uuid":"', 1), (b"x" * 60_000, ENDLESS)]}
    assert "larger" in str(survive(routes, seconds=20.0))


# --- whatever a server answers

ANY_BYTES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\n\r\n",
            b"HTTP/1.1 999 What\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 429 Slow\r\nRetry-After: inf\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            head(chunked=True),
            head(Connection="close"),
            head(length=10**15),
            head(Content_Encoding="gzip", Connection="close"),
            head(chunked=True, Content_Encoding="deflate"),
            head(content_type="text/html") + b"<html>",
            b"ffffffff\r\n",
            b"0\r\n",
            b"1\r\n\n\r\n",
            b"X: y\r\n",
            chunk(b"x" * 4000),
            chunk(PAGE_HEAD),
            chunk(row(1) + b",\r\n"),
            chunk(row(2, deleted=True) + b"\n"),
            chunk(b'{"seq":' + b"[" * 2000),
            chunk(b'],\n"last_seq":"9-x","pending":0}\n'),
            PAGE_HEAD,
            row(3) + b",\n",
            b'{"results":[' + row(4),
            b"," + row(5),
            b'{"id":"a","changes":[{"rev":"1-a"}],"doc":NaN}\n',
            b'{"error":"x","reason":"',
            b"\x00" * 1000,
            gzip.compress(bytes(3 * MIB)),
            EMPTY_BLOCK,
            b'{"uuid":',
            b"[{" * 500,
        ]
    ),
)
ANSWERS = st.lists(
    st.tuples(ANY_BYTES, st.sampled_from([1, 1, 1, 2, 50, 10_000, 1_000_000, ENDLESS])), max_size=8
)


@settings(
    max_examples=size(ci=6, proof=300),
    deadline=None,
    derandomize=not proving(),
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(answers=ANSWERS, path=st.sampled_from(["/", "/db", "/db/_changes", "/db/_changes", "/db/_changes"]))
def test_c_a_server_that_answers_anything_harms_nobody(answers, path):
    """Such a server freezes nothing, fills no memory, and never disturbs another pillow."""
    healthy = couchdb(ScriptedServer())
    tail = [
        head(chunked=True) + chunk(b"\n"),
        *[s for n in range(2, 2000) for s in (chunk(row(n) + b"\n"), Pause(0.01))],
    ]
    healthy.on("GET", "/db/_changes", reply(page([row(1)], "1-tok")), [*tail, HANG])
    with healthy, taking(feed_of(healthy.url)) as beside:
        beside.until(lambda: len(beside.ids) > 5)
        began, before = time.monotonic(), len(beside.ids)
        survive(answer_changes((head(chunked=True), 1)) | {path: answers}, seconds=size(ci=0.5, proof=2.0))
        seconds = time.monotonic() - began
        assert len(beside.ids) - before > size(ci=5, proof=20) * seconds, (
            "of the hundred rows that came each second"
        )
        assert beside.error is None
