"""What a CouchDB server writes on the wire, for tests: rows, pages, tails; a harness around a feed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import gevent
from gevent.event import Event

from checkpoints import Seq
from pillows.couch.options import CouchConnection, Timeouts
from pillows.feed.base import DatabaseIdentity, Feed
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.options import SourceOptions
from pillows.models import Change, ChangeBatch
from pillows.observer import Observer
from tests.servers.scripted import LAST_CHUNK, ScriptedServer, chunk, head, json_reply

PAGE_HEAD = b'{"results":[\n'

#: The document that marks a database for a feed without a key.
MARK = f"/db/_local/pillowd-{sha256(b'@').hexdigest()[:24]}"


def row(n: int, seq: object = "same", *, rev: str | None = None, **fields: Any) -> bytes:
    """A row of a document `doc-N` at revision 1, with its body."""
    rev = rev or f"1-{n:032x}"
    id = fields.pop("id", f"doc-{n}")
    value = {"seq": f"{n}-tok" if seq == "same" else seq, "id": id, "changes": [{"rev": rev}]}
    if not fields.get("deleted"):
        value["doc"] = {"_id": id, "_rev": rev, "n": n}
    return json.dumps(value | fields, ensure_ascii=False).encode()


def page(rows: Sequence[bytes], last_seq: object, pending: int | None = 0) -> bytes:
    """The body of `feed=normal`, as CouchDB lays it out."""
    closing = json.dumps({"last_seq": last_seq, "pending": pending}).encode()
    return PAGE_HEAD + b",\r\n".join(rows) + b"\n],\n" + closing[1:] + b"\n"


def closing(last_seq: object, pending: int | None = 0) -> bytes:
    """The last line of a continuous feed."""
    return json.dumps({"last_seq": last_seq, "pending": pending}).encode() + b"\n\n"


def reply(*parts: bytes) -> bytes:
    """A chunked 200 that ends in good order."""
    return head(chunked=True) + b"".join(chunk(part) for part in parts if part) + LAST_CHUNK


def info(start: str | int = "1700000000", purge_seq: object = "0-x") -> bytes:
    """`GET /{db}`."""
    return json_reply({"db_name": "db", "instance_start_time": start, "purge_seq": purge_seq})


def couchdb(server: ScriptedServer, start: str | int = "1700000000") -> ScriptedServer:
    """A server that says who it is."""
    server.on("GET", "/", json_reply({"couchdb": "Welcome", "uuid": "u1", "vendor": {"name": "x"}}))
    return server.on("GET", "/db", info(start))


def feed_of(
    url: str,
    *,
    clock: Any = None,
    observer: Observer | None = None,
    auth: Any = None,
    timeouts: dict[str, float] | None = None,
    prefilter: Callable[[Change], bool] | None = None,
    **source: Any,
) -> CouchFeed:
    """A feed of the database `db`, without the probe and the fetches of `documents: auto`."""
    source = {"documents": "include_docs", "mode": "continuous"} | source
    connection = CouchConnection(url=url, auth=auth, timeouts=Timeouts(**(timeouts or {})))
    options = SourceOptions(connection="c", database=source.pop("database", "db"), **source)
    return CouchFeed(connection, options, clock=clock, observer=observer, prefilter=prefilter)


class Taking:
    """A greenlet that takes everything a feed gives.

    Attributes:
        batches: what it gave, signs of life left out.
        signs: how many signs of life it gave.
        error: what ended it.
    """

    def __init__(
        self,
        feed: Feed,
        since: Seq,
        identity: DatabaseIdentity | None,
        pause: float,
        stop_after: int | None = None,
    ) -> None:
        self.batches: list[ChangeBatch] = []
        self.signs = 0
        self.error: Exception | None = None
        self.stop = Event()
        self._pause = pause
        self._stop_after = stop_after
        self.greenlet = gevent.spawn(self._run, feed, since, identity)

    @property
    def ids(self) -> list[str]:
        """The ids of all changes, in order."""
        return [change.id for batch in self.batches for change in batch.changes]

    @property
    def seqs(self) -> list[str]:
        """The positions of all batches, in order."""
        return [str(batch.seq) for batch in self.batches if batch.seq is not None]

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Waits until something is so, or the feed has ended."""
        deadline = time.monotonic() + seconds
        while not condition() and not self.greenlet.ready():
            assert time.monotonic() < deadline, f"not so within {seconds} s; took {self.ids[-5:]}"
            gevent.sleep(0.002)

    def ended(self, seconds: float = 60.0) -> None:
        """Waits until the feed has ended by itself."""
        self.greenlet.join(seconds)
        assert self.greenlet.ready(), "the feed goes on"

    def _run(self, feed: Feed, since: Seq, identity: DatabaseIdentity | None) -> None:
        try:
            for batch in feed.batches(since, identity, self.stop):
                if batch.changes or batch.seq is not None:
                    self.batches.append(batch)
                    if self._stop_after is not None and len(self.ids) > self._stop_after:
                        self.stop.set()
                    gevent.sleep(self._pause)
                else:
                    self.signs += 1
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error


@contextmanager
def taking(
    feed: Feed,
    since: Seq = Seq.BEGINNING,
    identity: DatabaseIdentity | None = None,
    pause: float = 0,
    stop_after: int | None = None,
):
    """Takes from a feed until the test is done with it, or it has taken more changes than `stop_after`."""
    taken = Taking(feed, since, identity, pause, stop_after)
    try:
        yield taken
    finally:
        taken.stop.set()
        taken.greenlet.join(60)
        taken.greenlet.kill()
        feed.close()
