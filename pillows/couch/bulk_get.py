"""Read leaf revisions of many documents with `_bulk_get`: the request, the parser, the winner rule.

CouchDB docs, "/{db}/_bulk_get": the answer has one result for each entry of the request, in any order, and
each result holds either the revision or an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import quote

import gevent
import msgspec

from pillows.couch.client import CouchClient
from pillows.couch.errors import RejectedError
from pillows.couch.http.response import ActivityMonitor, TooLargeError, UnreadableError
from pillows.errors import RetryableError
from pillows.halving import send_in_halves
from pillows.models import revision_number
from pillows.strict_json import run_deeply

#: A request whose answer is larger is repeated in halves; the answer for one document may be twice as large.
MAX_ANSWER_BYTES = 64 * 2**20
MAX_SINGLE_ANSWER_BYTES = 2 * MAX_ANSWER_BYTES

#: Longest silence of the server before the first byte of an answer.
SILENT_SECONDS = 60.0

#: Bytes decoded before other greenlets get their turn (about 5 ms).
_TURN_BYTES = 4 * 2**20


class AnyLeaf(Protocol):
    """A leaf revision, with as much of its document as the reader needs."""

    @property
    def id(self) -> str:
        """The document's id."""

    @property
    def rev(self) -> str:
        """The revision."""

    @property
    def deleted(self) -> bool:
        """Whether the revision is a deletion."""


L = TypeVar("L", bound=AnyLeaf)


class Leaf(msgspec.Struct, frozen=True):
    """A leaf revision with its JSON.

    Attributes:
        id: the document's id.
        rev: the revision.
        deleted: whether it is a deletion.
        raw: its JSON as CouchDB sent it.
    """

    id: str
    rev: str
    deleted: bool
    raw: msgspec.Raw


class Found(msgspec.Struct, frozen=True):
    """One entry of an answer: a revision, or an error."""

    ok: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


class _Error(msgspec.Struct, frozen=True):
    error: str = ""


class DocumentResult(msgspec.Struct, frozen=True):
    """The part of an answer about one requested document.

    Attributes:
        id: the document's id.
        docs: its revisions, or errors.
    """

    id: str
    docs: list[Found]

    @property
    def failure(self) -> str | None:
        """The first error other than `not_found`: the server cannot answer now."""
        errors = (found.error.error for found in self.docs if found.error is not None)
        return next((error for error in errors if error != "not_found"), None)


class _Answer(msgspec.Struct):
    results: list[DocumentResult]


class _Head(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    rev: str = msgspec.field(name="_rev")
    deleted: bool = msgspec.field(name="_deleted", default=False)


_decode_head = msgspec.json.Decoder(_Head).decode


def parse_leaf(raw: msgspec.Raw) -> Leaf:
    """Return the leaf revision in a document's JSON."""
    head = run_deeply(lambda: _decode_head(raw))
    return Leaf(head.id, head.rev, head.deleted, raw)


def rank_leaf(leaf: AnyLeaf) -> tuple[bool, int, str]:
    """Return a key that is greatest for the winner of a conflict.

    CouchDB docs, "Replication and conflict model": live before deleted, then the revision number, then the
    revision's hash.
    """
    return (not leaf.deleted, revision_number(leaf.rev), leaf.rev.partition("-")[2])


def group_leaves(results: Iterable[DocumentResult], parse: Callable[[msgspec.Raw], L]) -> dict[str, list[L]]:
    """Return id -> leaves, the winner first; a document without leaves is missing.

    Args:
        results: the results of one or more answers, in any order.
        parse: makes a leaf of a document's JSON.
    """
    # By revision: an answer may list a leaf twice, and its revision number must not count twice.
    leaves: dict[str, dict[str, L]] = {}
    turn_bytes = _TURN_BYTES  # the answer was decoded in this turn
    for raw in (found.ok for result in results for found in result.docs):
        if not isinstance(raw, msgspec.Raw):
            continue
        turn_bytes += len(raw)
        if turn_bytes > _TURN_BYTES:
            gevent.sleep(0)
            turn_bytes = 0
        leaf = parse(raw)
        leaves.setdefault(leaf.id, {})[leaf.rev] = leaf
    return {id: sorted(found.values(), key=rank_leaf, reverse=True) for id, found in leaves.items()}


def bulk_get(
    couch: CouchClient,
    database: str,
    docs: Sequence[Mapping[str, str]],
    *,
    query: str = "",
    max_bytes: int,
    silent_seconds: float = SILENT_SECONDS,
    activity: ActivityMonitor | None = None,
) -> list[DocumentResult]:
    """Send one `_bulk_get` request.

    Args:
        couch: the server.
        database: its name.
        docs: `id` and optionally `rev` of each; without `rev` all leaves are returned.
        query: encoded, with its `?`.
        max_bytes: the largest answer to accept.
        silent_seconds: longest silence of the server before the first byte of its answer.
        activity: records every block that arrives.

    Raises:
        TooLargeError: the answer is larger than `max_bytes`.
        PillowError: as `CouchClient.json`.
    """
    answer = couch.json(
        "POST",
        couch.path(database, "_bulk_get") + query,
        _Answer,
        body={"docs": docs},
        max_bytes=max_bytes,
        silent_seconds=silent_seconds,
        activity=activity,
    )
    return answer.results


def get_open_revs(
    couch: CouchClient,
    database: str,
    doc: Mapping[str, str],
    *,
    max_bytes: int = MAX_ANSWER_BYTES,
    activity: ActivityMonitor | None = None,
) -> DocumentResult:
    """Read one document's leaves without `_bulk_get`, for servers that cannot.

    Args:
        couch: the server.
        database: its name.
        doc: `id` and optionally `rev`, as for `bulk_get`.
        max_bytes: the largest answer to accept.
        activity: records every block that arrives.

    Raises:
        PillowError: as `CouchClient.json`.
    """
    # The same shape with and without a revision: a list of `{"ok": document}`.
    revs = msgspec.json.encode([doc["rev"]]).decode() if "rev" in doc else "all"
    path = f"{couch.path(database, doc['id'])}?open_revs={quote(revs, safe='')}"
    try:
        return DocumentResult(
            doc["id"], couch.json("GET", path, list[Found], max_bytes=max_bytes, activity=activity)
        )
    except RejectedError as error:
        if error.status != 404:
            raise
        return DocumentResult(doc["id"], [])


def get_all_leaves(
    couch: CouchClient,
    database: str,
    ids: Sequence[str],
    parse: Callable[[msgspec.Raw], L],
    *,
    query: str = "",
) -> dict[str, list[L]]:
    """Return all leaves of documents, the winner first; halve requests whose answers are too large.

    An error for a document raises: callers decide by the leaves whether to write, so an unknown leaf must not
    look missing. The other callers of `bulk_get` decide otherwise: the feed (`feed/documents/fetcher.py`)
    counts such an error as not found and then asks a quorum.

    Args:
        couch: the server.
        database: its name.
        ids: the documents.
        parse: makes a leaf of a document's JSON, keeping only what the caller needs of it.
        query: encoded, with its `?`.

    Returns:
        id -> leaves; empty for a document that the database does not have. An id is missing if the answer
        did not mention it.

    Raises:
        TooLargeError: one document alone is too large.
        RetryableError: the server cannot return the leaves of a document now.
        PillowError: as `CouchClient.json`.
    """
    if not ids:
        return {}
    read = partial(_read_all_leaves, couch, database, parse, query)
    halves = send_in_halves(ids, read, is_answer_too_large)
    return {id: leaves for half in halves for id, leaves in half.items()}


def is_answer_too_large(error: Exception) -> bool:
    """Return whether an answer was given up because of its size, or of one document in it."""
    return isinstance(error, TooLargeError | UnreadableError)


def _read_all_leaves(
    couch: CouchClient,
    database: str,
    parse: Callable[[msgspec.Raw], L],
    query: str,
    ids: Sequence[str],
) -> dict[str, list[L]]:
    max_bytes = MAX_ANSWER_BYTES if len(ids) > 1 else MAX_SINGLE_ANSWER_BYTES
    results = bulk_get(couch, database, [{"id": id} for id in ids], query=query, max_bytes=max_bytes)
    for result in results:
        if result.failure is not None:
            raise RetryableError(
                f"The database {database} cannot return the document {result.id!r} now: {result.failure}."
            )
    return {result.id: [] for result in results} | group_leaves(results, parse)
