"""`_changes`: normal, longpoll, continuous and eventsource feeds.

Rows are made in blocks, and each block is one chunk of the answer. A plain document's row is cut from its
bytes; only trees are unpacked. Shards are merged at random: the order differs from request to request, while
the order within a shard holds.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from gevent.event import Event

from tests.servers.couchdb.database import Database
from tests.servers.couchdb.documents import Shown, meta_of, write_document
from tests.servers.couchdb.errors import Refusal, bad_request
from tests.servers.couchdb.failpoints import rewound
from tests.servers.couchdb.filters import Filter, make_filter
from tests.servers.couchdb.http import Request, Response
from tests.servers.couchdb.jsontext import dumps, loads, text_of
from tests.servers.couchdb.node import Node
from tests.servers.couchdb.revisions import PLAIN, PLAIN_HEAD, TREE, Revision, Tree, seq_of
from tests.servers.couchdb.sequences import Tokens, read_token

UNLIMITED = 10**15  # CouchDB's limit where none is given; `seq_interval` counts from it
LONGEST_WAIT_MS = 60_000
BLOCK_ROWS = 100
RUN_ROWS = 5  # of one shard in a row, at most
FEEDS = ("normal", "continuous", "live", "longpoll", "eventsource")
LINES = ("continuous", "live", "eventsource")
STYLES = ("main_only", "all_docs")
NO_HEARTBEAT = "The heartbeat value should be a positive integer (in milliseconds)."
NO_NUMBER = "Invalid heartbeat value. Expecting a positive integer value (in milliseconds)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The parameters of a feed.

    Attributes:
        feed: one of `FEEDS`.
        all_leaves: whether rows name all leaves.
        docs: the parts of the documents that are shown; None shows no documents.
        conflicts: whether the documents name theirs.
        descending: whether the last row comes first; `since` does not count then.
        limit: how many rows at most.
        interval: every how many rows one has its token.
        timeout: seconds without a row after which the feed ends.
        heartbeat: seconds between signs of life; the feed does not end then. None is without.
    """

    feed: str
    all_leaves: bool
    docs: Shown | None
    descending: bool
    limit: int
    interval: int
    timeout: float
    heartbeat: float | None

    @property
    def waits(self) -> bool:
        """Whether the feed waits for rows."""
        return self.feed != "normal"


def read_asked(request: Request) -> Asked:
    """Return the parameters of a request.

    Raises:
        Refusal: it makes no sense.
    """
    last = dict(request.query)  # of a parameter that comes twice the last one counts
    feed, style = last.get("feed", "normal"), last.get("style", "main_only")
    if feed not in FEEDS:
        raise bad_request("Supported `feed` types: normal, continuous, live, longpoll, eventsource")
    if style not in STYLES:
        raise Refusal(500, "error", f"unknown style {style}")
    limit = _number(last.get("limit"), UNLIMITED)
    return Asked(
        feed=feed,
        all_leaves=style == "all_docs",
        docs=_docs(request) if request.is_true("include_docs") else None,
        descending=last.get("descending") == "true",
        limit=limit if limit >= 0 else UNLIMITED,
        interval=_interval(last.get("seq_interval")),
        timeout=min(_number(last.get("timeout"), LONGEST_WAIT_MS), LONGEST_WAIT_MS) / 1000,
        heartbeat=_heartbeat(last.get("heartbeat")),
    )


def _docs(request: Request) -> Shown:
    return Shown(
        conflicts=request.is_true("conflicts"),
        attachments=request.is_true("attachments"),
        encoding_info=request.is_true("att_encoding_info"),
    )


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise Refusal(500, "unknown_error", "badarg", ref=True) from None


def _interval(text: str | None) -> int:
    if text is None:
        return 1
    if not text.isdigit() or int(text) < 1:
        raise bad_request("invalid_seq_interval")
    return int(text)


def _heartbeat(text: str | None) -> float | None:
    if text is None or text == "false":
        return None
    if text == "true":
        return LONGEST_WAIT_MS / 1000
    try:
        milliseconds = int(text)
    except ValueError:
        raise bad_request(NO_NUMBER) from None
    if milliseconds < 1:
        raise bad_request(NO_HEARTBEAT)
    return min(milliseconds, LONGEST_WAIT_MS) / 1000


def get_changes(request: Request, node: Node, database: Database) -> Response:
    """Answer `GET` and `POST /{db}/_changes`."""
    body: dict[str, Any] = {}
    if request.method == "POST":
        request.want_json()
        body = request.json_object() if request.body() else {}
    asked = read_asked(request)
    since = _since(request, asked.feed)
    positions = rewound(request.faults, start_positions(database, since))
    lags = any(point.does == "lag" for point in request.faults)
    changes = Changes(database, asked, make_filter(request, database, body), positions, lags=lags)
    return respond(request, node, database, asked, changes)


def respond(request: Request, node: Node, database: Database, asked: Asked, changes: Changes) -> Response:
    """Return the answer with a feed's rows."""
    if asked.feed == "normal":
        headers = {"ETag": database.etag()}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(304, b"", {**headers, "Cache-Control": "", "Content-Type": ""})
        return Response(200, changes.normal(), headers)
    if asked.feed == "longpoll":
        return Response(200, changes.longpoll(node))
    if asked.feed == "eventsource":
        kind = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        return Response(200, changes.continuous(node), kind)
    return Response(200, changes.continuous(node))


def _since(request: Request, feed: str) -> str:
    query = [value for name, value in request.query if name in ("since", "last-event-id")]
    if query:
        return query[-1]
    return request.headers.get("last-event-id", "0") if feed == "eventsource" else "0"


def start_positions(database: Database, since: str) -> list[int]:
    """Return where a feed begins."""
    if since == "0":
        return [0] * len(database.shards)
    if since == "now":
        return [shard.seq for shard in database.shards]
    return read_token(since, database.shards)


class Changes:
    """The rows of one response.

    Args:
        database: whose.
        asked: its parameters.
        chosen: the filter.
        positions: where each shard begins.
        lags: whether the copies that are read have not seen the last write of each document.
    """

    def __init__(
        self, database: Database, asked: Asked, chosen: Filter, positions: list[int], *, lags: bool = False
    ) -> None:
        self._database = database
        self._asked = asked
        self._filter = chosen
        self._lags = lags
        self._tokens = Tokens(database.shards, [0] * len(positions) if asked.descending else positions)
        self._left = asked.limit
        self._total = self._count(self._tokens.positions)
        self._shown = 0
        self._join = b"" if asked.feed in LINES else b",\r\n"

    # The forms

    def normal(self) -> Iterator[bytes]:
        """Yield the answer with all rows of now."""
        yield from self._in_list(b'{"results":[\n', self._blocks())

    def longpoll(self, node: Node) -> Iterator[bytes]:
        """Yield the answer with the rows of now, or with the first that come."""
        return self._in_list(b'{"results":[\n', self._first_blocks(node))

    def continuous(self, node: Node) -> Iterator[bytes]:
        """Yield rows until the feed ends."""
        sent = self._asked.feed == "eventsource"
        while True:
            changed = self._database.changed
            for block in self._blocks():
                sent = True
                yield block
            if self._ended(node):
                break
            if not sent:
                sent = True
                yield b"\n"
            if not (yield from self._wait(changed)):
                break
        yield b"\n" if self._asked.feed == "eventsource" else b"%b\n\n" % self._end()

    def _first_blocks(self, node: Node) -> Iterator[bytes]:
        waited = False
        while True:
            changed = self._database.changed
            yield from self._blocks()
            if self._shown or self._ended(node):
                return
            if not waited:
                waited = True
                yield b"\n"
            if not (yield from self._wait(changed)):
                return

    def _ended(self, node: Node) -> bool:
        return self._left == 0 or self._database.deleted or bool(node.config.maintenance_mode)

    def _wait(self, changed: Event) -> Generator[bytes, None, bool]:
        """Wait for a write, with signs of life; return whether the feed goes on."""
        beat = b"event: heartbeat\ndata: \n\n" if self._asked.feed == "eventsource" else b"\n"
        while not changed.wait(self._asked.heartbeat or self._asked.timeout):
            if self._asked.heartbeat is None:
                return False
            yield beat
        if self._database.deleted:
            return False
        yield beat
        return True

    def _in_list(self, begin: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
        waiting = begin
        for block in blocks:
            yield waiting + block
            waiting = b""
        yield waiting + b"\n],\n" + self._end()[1:] + b"\n\n"

    def _end(self) -> bytes:
        if self._filter.ids is not None or self._asked.descending:
            pending = self._total - self._shown
        else:
            pending = self._count(self._tokens.positions)
        return b'{"last_seq":"%b","pending":%d}' % (self._tokens.token(), pending)

    def _count(self, positions: list[int]) -> int:
        shards = self._database.shards
        return sum(shard.count_after(at) for shard, at in zip(shards, positions, strict=True))

    # The rows

    def _blocks(self) -> Iterator[bytes]:
        """Yield the rows of now, many in a piece."""
        rows: list[bytes] = []
        for shard, seq, doc_id in self._merged():
            row = self._row(shard, seq, doc_id)
            if row is None:
                continue
            rows.append(row)
            if len(rows) >= BLOCK_ROWS:
                yield self._joined(rows)
                rows = []
            if self._left == 0:
                break
        else:
            self._go_to_the_end()
        if rows:
            yield self._joined(rows)

    def _joined(self, rows: list[bytes]) -> bytes:
        before = self._join if self._shown > len(rows) else b""
        return before + self._join.join(rows)

    def _go_to_the_end(self) -> None:
        """Move past the rows that a filter left out."""
        if not self._asked.descending:
            for number, end in enumerate(self._ends):
                if self._tokens.positions[number] < end:
                    self._tokens.move(number, end)

    def _merged(self) -> Iterator[tuple[int, int, str]]:
        """Yield the shards' documents, a few of one shard in a row; each has its own order."""
        shards = self._database.shards
        self._ends = [shard.seq for shard in shards]
        if self._left == 0:
            self._ends = list(self._tokens.positions)
            return
        if self._asked.descending:
            for number, shard in enumerate(shards):
                yield from ((number, seq, doc_id) for seq, doc_id in shard.backwards())
            return
        positions = list(self._tokens.positions)
        queues: list[list[tuple[int, str]]] = [[] for _ in shards]
        open_shards = list(range(len(shards)))
        while open_shards:
            number = random.choice(open_shards)
            queue = queues[number]
            if not queue:
                found = shards[number].after(positions[number], BLOCK_ROWS)
                queue += [row for row in reversed(found) if row[0] <= self._ends[number]]
                if not queue:
                    open_shards.remove(number)
                    continue
                positions[number] = queue[0][0]
            for _ in range(min(len(queue), random.randint(1, RUN_ROWS) if len(shards) > 1 else BLOCK_ROWS)):
                seq, doc_id = queue.pop()
                yield number, seq, doc_id

    def _row(self, number: int, seq: int, doc_id: str) -> bytes | None:
        """Return a row, None where the filter leaves it out."""
        shard = self._database.shards[number]
        packed = shard.packed.get(doc_id)
        if packed is None or seq_of(packed) != seq:  # purged, or written again, since its block was read
            return None
        if self._filter.ids is not None and not self._filter.ids(doc_id):
            return None
        if self._lags:
            packed = shard.before.get(doc_id, packed)
        content = self._content(doc_id, packed)
        if content is None:
            return None
        if not self._asked.descending:
            self._tokens.move(number, seq)
        shows_seq = self._asked.interval == 1 or self._left % self._asked.interval == 0
        self._left -= 1
        self._shown += 1
        return self._framed(content, shows_seq=shows_seq)

    def _framed(self, content: bytes, *, shows_seq: bool) -> bytes:
        token = b'"%b"' % self._tokens.token() if shows_seq else b"null"
        row = b'{"seq":%b,%b' % (token, content)
        if self._asked.feed == "eventsource":
            return b"data: %b\nid: %b\n\n" % (row, token)
        return row + b"\n" if self._asked.feed in LINES else row

    def _content(self, doc_id: str, packed: bytes) -> bytes | None:
        """Return a row from its id on, None where the filter leaves it out."""
        name = text_of(doc_id)
        if packed[0] != TREE and self._filter.keeps is None:
            kind, _, generation, digest = PLAIN_HEAD.unpack_from(packed)
            rev = f"{generation}-{digest.hex()}".encode()
            deleted = b"" if kind == PLAIN else b',"deleted":true'
            head = b'"id":%b,"changes":[{"rev":"%b"}]%b' % (name, rev, deleted)
            if self._asked.docs is None:
                return head + b"}"
            body = packed[PLAIN_HEAD.size :]
            return b'%b,"doc":{"_id":%b,"_rev":"%b"%b%b%b}}' % (
                head, name, rev, b"," if body else b"", body, b"" if kind == PLAIN else b',"_deleted":true',
            )  # fmt: skip
        return self._tree_content(name, doc_id, Tree.unpack(packed))

    def _tree_content(self, name: bytes, doc_id: str, tree: Tree) -> bytes | None:
        leaves = tree.leaves()
        passing = self._filter.passing(doc_id, leaves if self._asked.all_leaves else leaves[:1])
        if not passing:
            return None
        revs = b",".join(b'{"rev":"%b"}' % leaf.rev.encode() for leaf in passing)
        deleted = b',"deleted":true' if leaves[0].deleted else b""
        row = b'"id":%b,"changes":[%b]%b' % (name, revs, deleted)
        if self._asked.docs is None:
            return row + b"}"
        return b'%b,"doc":%b}' % (row, self._document(doc_id, tree, leaves[0]))

    def _document(self, doc_id: str, tree: Tree, winner: Revision) -> bytes:
        assert self._asked.docs is not None
        text = write_document(doc_id, winner, self._asked.docs, meta_of(tree, self._asked.docs))
        if self._filter.fields is None:
            return text
        document = loads(text)
        return dumps({name: document[name] for name in self._filter.fields if name in document})
