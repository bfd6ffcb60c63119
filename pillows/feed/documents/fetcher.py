"""Fetch documents apart from the feed, by id and revision.

A row of the feed and a fetch may be answered by different copies of a shard, so a fetch can find a newer
document, an older one, or none. A document that is handed over is never older than its row, and "not found"
becomes a delete only when a quorum of the copies does not know the id at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec
from gevent.event import Event

from pillows.couch.bulk_get import (
    MAX_ANSWER_BYTES,
    DocumentResult,
    Leaf,
    bulk_get,
    get_open_revs,
    group_leaves,
    is_answer_too_large,
    parse_leaf,
)
from pillows.couch.client import LIST_ANSWER_BYTES, CouchClient
from pillows.couch.errors import RejectedError, ServerError
from pillows.couch.http.response import ActivityMonitor, TooLargeError, UnreadableError
from pillows.couch.utf8 import is_utf8
from pillows.errors import PillowError, RetryableError
from pillows.feed.documents.throttle import ConcurrencyLimit, Throttle, ThrottleWait
from pillows.halving import send_in_halves
from pillows.models import Change, revision_number

#: Documents per `_bulk_get`: below 100 the request costs more than the documents, above 500 CouchDB
#: gets slower again (200-500 measured best).
GROUP_DOCUMENTS = 300

#: Intended size of a group's answer, and the size above which the answer is abandoned.
GROUP_BYTES = 4 * 2**20
MAX_GROUP_BYTES = 32 * 2**20

#: Time for a copy to learn of a revision, as in CouchDB's own replicator (`missing_doc_retry_msec`).
MISSING_SECONDS = 2.0

_NO_DOCUMENT = msgspec.Raw(b"{}")

#: Identifies a change to fetch for: id, winning revision, leaf version. The same revision may win in two
#: states of a document.
FetchKey = tuple[str, str, int]


class LaggingError(RetryableError):
    """The database does not have the version that its feed reported."""


class _KnownRow(msgspec.Struct):
    key: str
    error: str = ""


class _Known(msgspec.Struct):
    rows: list[_KnownRow]


class _ListedLeaf(msgspec.Struct):
    rev: str


class _ListedRow(msgspec.Struct):
    id: str
    changes: list[_ListedLeaf]


class _Listed(msgspec.Struct):
    results: list[_ListedRow]


class DocumentFetcher:
    """Fetches documents of one database.

    Args:
        couch: the server.
        database: its name.
        limit: requests at a time; lowered when the server throttles.
        activity: records every block that arrives.
        silent_seconds: longest silence of the server before the first document.
        max_document_bytes: largest document, and largest answer for one.
        on_throttled: called while a request waits because the server throttled it, and with None once it
            waits no longer.
    """

    def __init__(
        self,
        couch: CouchClient,
        database: str,
        *,
        limit: ConcurrencyLimit,
        activity: ActivityMonitor,
        silent_seconds: float = 25.0,
        max_document_bytes: int = MAX_ANSWER_BYTES,
        on_throttled: Callable[[ThrottleWait | None], None] = lambda _: None,
    ) -> None:
        self._couch = couch
        self._database = database
        self._throttle = Throttle(limit, couch.clock, on_throttled)
        self._activity = activity
        self._silent_seconds = silent_seconds
        self._max_document_bytes = max_document_bytes
        self._has_bulk_get = True

    def fill(self, changes: Sequence[Change]) -> dict[FetchKey, Change]:
        """Return changes with their documents.

        Args:
            changes: changes other than deletions.

        Returns:
            `fetch_key(change)` -> the change with its revision's JSON. If the revision no longer exists, the
            change has the document's current state, which is never older and may be `deleted`.

        Raises:
            RetryableError: the server is away, or knows only older states so far.
            TooLargeError: the documents are too large together; ask for fewer.
        """
        filled: dict[FetchKey, Change] = {}
        missing = self._fill_by_rev(changes, filled)
        if missing:
            self._couch.clock.wait(Event(), MISSING_SECONDS)
            missing = self._fill_by_rev(missing, filled)
        return filled | self.read_current(missing) if missing else filled

    def read_current(self, changes: Sequence[Change]) -> dict[FetchKey, Change]:
        """Return changes with the documents' current state: leaves, leaf version and JSON.

        Raises:
            RetryableError, TooLargeError: as `fill`.
        """
        if not changes:
            return {}
        parts = send_in_halves(changes, self._read_some_current, lambda e: isinstance(e, UnreadableError))
        return {key: change for part in parts for key, change in part.items()}

    def _read_some_current(self, changes: Sequence[Change]) -> dict[FetchKey, Change]:
        try:
            leaves = self._read_leaves([{"id": id} for id in {change.id: None for change in changes}])
        except UnreadableError as error:
            if len(changes) > 1:
                raise
            return {fetch_key(changes[0]): to_defect(changes[0], error)}
        missing = [change.id for change in changes if change.id not in leaves]
        unknown = self._find_unknown(missing) if missing else set()
        return {fetch_key(change): self._to_current(change, leaves, unknown) for change in changes}

    def read_versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Return the documents' leaf versions; ids that the database does not know are missing.

        Raises:
            RetryableError: as `fill`; also when a single document is too large, or cannot be read now.
        """
        if not ids:
            return {}
        parts = send_in_halves(ids, self._read_some_versions, is_answer_too_large)
        return {id: version for part in parts for id, version in part.items()}

    def _read_some_versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        try:
            leaves = self._read_leaves([{"id": id} for id in ids])
            versions = {id: _sum_versions(found) for id, found in leaves.items()}
        except (TooLargeError, UnreadableError):
            if len(ids) > 1:
                raise
            versions = self._list_versions(ids)
        missing = [id for id in ids if id not in versions]
        if missing and (known := set(missing) - self._find_unknown(missing)):
            raise RetryableError(f"The document {min(known)!r} cannot be read now.")
        return versions

    def _list_versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the leaf versions of documents that cannot be read: the feed lists them without."""
        listed = self._couch.json(
            "POST",
            self._couch.path(self._database, "_changes") + "?filter=_doc_ids&style=all_docs",
            _Listed,
            body={"doc_ids": ids},
            max_bytes=LIST_ANSWER_BYTES,
            activity=self._activity,
        )
        return {row.id: sum(revision_number(leaf.rev) for leaf in row.changes) for row in listed.results}

    def _fill_by_rev(self, changes: Sequence[Change], filled: dict[FetchKey, Change]) -> list[Change]:
        """Add the changes whose revision is there; return the others."""
        leaves = self._read_leaves([{"id": change.id, "rev": change.rev} for change in changes])
        missing = []
        for change in changes:
            # By id and revision, never by position: answers come in any order, and incomplete.
            raw = next((leaf.raw for leaf in leaves.get(change.id, ()) if leaf.rev == change.rev), None)
            if raw is None:
                missing.append(change)
            else:
                filled[fetch_key(change)] = self._with_document(change, raw)
        return missing

    def _to_current(self, change: Change, leaves: Mapping[str, Sequence[Leaf]], unknown: set[str]) -> Change:
        """Return the change in its current state in the database."""
        if change.id in unknown:
            return msgspec.structs.replace(change, deleted=True, raw=None)
        found = leaves.get(change.id, ())
        version = _sum_versions(found)
        if not found or version < change.leaf_version:
            raise LaggingError(
                f"The document {change.id!r} is known to the feed only; a copy of the database lags."
            )
        winner = found[0]
        current = msgspec.structs.replace(
            change,
            revs=tuple(leaf.rev for leaf in found),
            leaf_version=version,
            deleted=winner.deleted,
            raw=None,
        )
        return current if winner.deleted else self._with_document(current, winner.raw)

    def _with_document(self, change: Change, raw: msgspec.Raw) -> Change:
        """Return the change with its JSON, of which the decoder has not checked the texts."""
        if len(raw) > self._max_document_bytes:
            limit = f"{self._max_document_bytes} bytes (`source.max_document`)"
            return to_defect(change, TooLargeError(f"It is longer than {limit}."))
        if not is_utf8(raw):
            return to_defect(change, UnreadableError("It is not valid UTF-8."))
        return msgspec.structs.replace(change, raw=raw)

    def _find_unknown(self, ids: list[str]) -> set[str]:
        """Return the ids that a quorum of the database's copies does not have, not even as deleted."""
        path = self._couch.path(self._database, "_all_docs")
        answer = self._couch.json(
            "POST",
            path,
            _Known,
            body={"keys": ids},
            max_bytes=LIST_ANSWER_BYTES,
            activity=self._activity,
        )
        return {row.key for row in answer.rows if row.error == "not_found"}

    def _read_leaves(self, docs: list[dict[str, str]]) -> dict[str, list[Leaf]]:
        """Return id -> leaves, the winner first: only the requested revision, or all if none is named.

        An error in the answer counts as not found, unlike in `get_all_leaves`: `_find_unknown` asks a quorum.
        """
        return self._throttle.send(partial(self._request, docs))

    def _request(self, docs: list[dict[str, str]]) -> dict[str, list[Leaf]]:
        if self._has_bulk_get:
            try:
                return self._request_in_bulk(docs)
            except RejectedError as error:
                if error.status not in (400, 404, 405):
                    raise
                self._has_bulk_get = False  # CouchDB 1.x, and servers that only resemble CouchDB
            except ServerError as error:
                if error.status != 500:
                    raise
        return group_leaves(
            [self._request_alone(doc) for doc in docs],
            parse_leaf,
        )

    def _request_alone(self, doc: dict[str, str]) -> DocumentResult:
        return get_open_revs(
            self._couch,
            self._database,
            doc,
            max_bytes=self._max_document_bytes,
            activity=self._activity,
        )

    def _request_in_bulk(self, docs: list[dict[str, str]]) -> dict[str, list[Leaf]]:
        results = bulk_get(
            self._couch,
            self._database,
            docs,
            max_bytes=MAX_GROUP_BYTES if len(docs) > 1 else self._max_document_bytes,
            silent_seconds=self._silent_seconds,
            activity=self._activity,
        )
        return group_leaves(results, parse_leaf)


def fetch_key(change: Change) -> FetchKey:
    """Return the key of a change in `DocumentFetcher`'s results."""
    return (change.id, change.rev, change.leaf_version)


def _sum_versions(leaves: Iterable[Leaf]) -> int:
    return sum(revision_number(leaf.rev) for leaf in leaves)


def to_defect(change: Change, error: PillowError) -> Change:
    """Return a change whose document can't be read, to become a dead letter."""
    return msgspec.structs.replace(change, raw=_NO_DOCUMENT, defect=f"Its document can't be read: {error}")
