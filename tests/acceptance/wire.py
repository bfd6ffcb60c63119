"""The traffic through a proxy between CouchDB and pillowd, as HTTP: which rows and documents were sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.servers.tcp_proxy import Passed

_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding: *chunked", re.IGNORECASE | re.MULTILINE)
_ROW = re.compile(rb'"id":"([^"]+)","changes":\[\{"rev":"([^"]+)"')
_DOCUMENT = re.compile(rb'"_id":"([^"]+)","_rev":"([^"]+)"')  # first in CouchDB's, last in others

#: A document in one state: id and revision.
State = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request and as much of its answer as passed.

    Attributes:
        path: with the query.
        answer: the answer's body, without the framing of its chunks.
    """

    path: str
    answer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The rows and documents that a run of the daemon was sent, each with how often.

    Attributes:
        rows: of `_changes`.
        documents: in rows, and in answers of `_bulk_get`.
        requests: how many there were.
    """

    rows: Counter[State]
    documents: Counter[State]
    requests: int

    def again(self, earlier: Iterable[Sent]) -> tuple[int, int]:
        """How many rows and documents were sent that had been sent before, then or in this run."""
        known_rows: Counter[State] = Counter()
        known_documents: Counter[State] = Counter()
        for one in earlier:
            known_rows |= one.rows
            known_documents |= one.documents
        return _again(self.rows, known_rows), _again(self.documents, known_documents)


def _again(now: Counter[State], before: Counter[State]) -> int:
    return sum(count if state in before else count - 1 for state, count in now.items())


def sent(connections: Iterable[Passed]) -> Sent:
    """Returns the rows and documents that were sent over these connections."""
    rows: Counter[State] = Counter()
    documents: Counter[State] = Counter()
    requests = 0
    for passed in connections:
        for exchange in exchanges(passed):
            requests += 1
            if "/_changes?" in exchange.path:
                rows.update(_states(_ROW, exchange.answer))
                documents.update(_states(_DOCUMENT, exchange.answer))
            elif "/_bulk_get" in exchange.path:
                documents.update(_states(_DOCUMENT, exchange.answer))
    return Sent(rows=rows, documents=documents, requests=requests)


def _states(pattern: re.Pattern[bytes], answer: bytes) -> list[State]:
    return [(id.decode(), rev.decode()) for id, rev in pattern.findall(answer)]


def exchanges(passed: Passed) -> Iterator[Exchange]:
    """The requests of one connection, in order, each with the part of its answer that arrived."""
    requests, answers = bytes(passed.to_server), bytes(passed.to_client)
    while (end := requests.find(b"\r\n\r\n")) >= 0:
        head = requests[:end]
        length = _LENGTH.search(head)
        requests = requests[end + 4 + (int(length[1]) if length else 0) :]
        answer, answers = _answer(answers)
        yield Exchange(path=head.split(b" ", 2)[1].decode(), answer=answer)


def _answer(text: bytes) -> tuple[bytes, bytes]:
    """The body of the first answer in `text`, and what follows it."""
    end = text.find(b"\r\n\r\n")
    if end < 0:
        return b"", b""
    head, rest = text[:end], text[end + 4 :]
    if _CHUNKED.search(head):
        return _unchunked(rest)
    length = _LENGTH.search(head)
    size = int(length[1]) if length else 0
    return rest[:size], rest[size:]


def _unchunked(text: bytes) -> tuple[bytes, bytes]:
    parts = []
    at = 0
    while (end := text.find(b"\r\n", at)) >= 0:
        size = int(text[at:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts), text[end + 4 :]
        parts.append(text[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts), b""
