"""Fetches documents apart from the feed, by id and revision.

A row of the feed and a fetch may be answered by different copies of a shard, so a fetch can find a
newer document, an older one, or none. What is handed over is never older than its row, and
"not found" becomes a delete only when the database, asked anew, does not know the id at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import gevent
import msgspec
from gevent.event import Event

from pillows.couch.client import CouchClient
from pillows.couch.errors import RejectedError, ServerError
from pillows.couch.response import ActivityMonitor, TooLargeError
from pillows.errors import RetryableError
from pillows.feed.changes_parser import MAX_LINE_BYTES
from pillows.feed.concurrency_limit import ConcurrencyLimit
from pillows.feed.throttle import Throttle, Throttled
from pillows.models import Change, revision_number

#: Documents per `_bulk_get`: below 100 the request costs more than the documents, above 500 CouchDB
#: gets slower again (200-500 measured best).
GROUP_DOCUMENTS = 300

#: A group's answer should not be larger than this, and is given up when it is much larger.
GROUP_BYTES = 4 * 2**20
MAX_GROUP_BYTES = 32 * 2**20

#: A copy that does not know a revision yet gets as long as CouchDB's own replicator gives it
#: (`missing_doc_retry_msec`).
MISSING_SECONDS = 2.0

#: So many bytes are looked through before other greenlets have their turn (some 5 ms).
_TURN_BYTES = 4 * 2**20

#: Names a change to fetch for: id, winning revision, version. The same revision may win in two
#: states of a document.
Wanted = tuple[str, str, int]


class _Head(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    rev: str = msgspec.field(name="_rev")
    deleted: bool = msgspec.field(name="_deleted", default=False)


class _Found(msgspec.Struct):
    ok: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Result(msgspec.Struct):
    id: str
    docs: list[_Found]


class _Results(msgspec.Struct):
    results: list[_Result]


class _KnownRow(msgspec.Struct):
    key: str
    error: str = ""


class _Known(msgspec.Struct):
    rows: list[_KnownRow]


class Leaf(msgspec.Struct, frozen=True):
    """One leaf revision of a document.

    Attributes:
        rev: the revision.
        deleted: whether it is a deletion.
        body: its JSON.
    """

    rev: str
    deleted: bool
    body: msgspec.Raw


_head = msgspec.json.Decoder(_Head).decode


class DocumentFetcher:
    """Fetches documents of one database.

    Args:
        couch: the server.
        database: its name.
        pace: how many requests at a time; told of being throttled.
        pulse: told of every byte.
        silent_seconds: how long the server may think before the first document.
        on_throttled: called while a request waits because the server asked us to slow down, and with
            None once it does not.
    """

    def __init__(
        self,
        couch: CouchClient,
        database: str,
        *,
        pace: ConcurrencyLimit,
        pulse: ActivityMonitor,
        silent_seconds: float = 25.0,
        on_throttled: Callable[[Throttled | None], None] = lambda _: None,
    ) -> None:
        self._couch = couch
        self._database = database
        self._throttle = Throttle(pace, couch.clock, on_throttled)
        self._pulse = pulse
        self._silent_seconds = silent_seconds
        self._bulk = True

    def fill(self, changes: Sequence[Change]) -> dict[Wanted, Change]:
        """The same changes with their documents.

        Args:
            changes: changes that are no deletions.

        Returns:
            `wanted(change)` -> the change, with the body of its revision; or, where that
            one is gone, the document's state of now, which is never older; it may be `deleted`.

        Raises:
            RetryableError: the server is away, or only knows older states by now.
            TooLargeError: the documents are too large together; ask for fewer.
        """
        filled: dict[Wanted, Change] = {}
        missing = self._fill_by_rev(changes, filled)
        if missing:
            self._couch.clock.wait(Event(), MISSING_SECONDS)
            missing = self._fill_by_rev(missing, filled)
        if missing:
            self._fill_with_current(missing, filled)
        return filled

    def current(self, changes: Sequence[Change]) -> dict[Wanted, Change]:
        """The same changes with the documents' state of now: leaves, version, body.

        Raises:
            As `fill`.
        """
        filled: dict[Wanted, Change] = {}
        self._fill_with_current(changes, filled)
        return filled

    def versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        """The sum of the generations of all leaves; ids that the database does not know are missing.

        Raises:
            RetryableError: as `fill`, and where a single document is too large, or cannot be read now.
        """
        try:
            leaves = self._leaves([{"id": id} for id in ids])
        except TooLargeError:
            if len(ids) == 1:
                raise RetryableError(f"The document {ids[0]!r} is too large to be read.") from None
            middle = len(ids) // 2
            return {**self.versions(ids[:middle]), **self.versions(ids[middle:])}
        unread = [id for id in ids if id not in leaves]
        if unread and (known := set(unread) - self._unknown_ids(unread)):
            raise RetryableError(f"The document {min(known)!r} cannot be read now.")
        return {id: _version(found) for id, found in leaves.items()}

    def _fill_by_rev(self, changes: Sequence[Change], filled: dict[Wanted, Change]) -> list[Change]:
        leaves = self._leaves([{"id": change.id, "rev": change.rev} for change in changes])
        missing = []
        for change in changes:
            # By id and revision, never by position: answers come in any order, and incomplete.
            body = next((leaf.body for leaf in leaves.get(change.id, ()) if leaf.rev == change.rev), None)
            if body is None:
                missing.append(change)
            else:
                filled[wanted(change)] = msgspec.structs.replace(change, raw=body)
        return missing

    def _fill_with_current(self, changes: Sequence[Change], filled: dict[Wanted, Change]) -> None:
        leaves = self._leaves([{"id": id} for id in {change.id: None for change in changes}])
        unknown = [change for change in changes if change.id not in leaves]
        gone = self._unknown_ids([change.id for change in unknown]) if unknown else set()
        for change in changes:
            if change.id in gone:
                filled[wanted(change)] = msgspec.structs.replace(change, deleted=True, raw=None)
                continue
            fresh = _winning(change, leaves.get(change.id, []))
            if fresh is None:
                raise RetryableError(
                    f"The document {change.id!r} is known to the feed only; a copy of the database lags."
                )
            filled[wanted(change)] = fresh

    def _unknown_ids(self, ids: list[str]) -> set[str]:
        """Those ids that the database does not know, not even as deleted; a quorum is asked."""
        path = self._couch.path(self._database, "_all_docs")
        known = self._couch.json("POST", path, _Known, body={"keys": ids}, pulse=self._pulse)
        return {row.key for row in known.rows if row.error == "not_found"}

    def _leaves(self, asked: list[dict[str, str]]) -> dict[str, list[Leaf]]:
        """Leaves by id: the revisions asked for, or all of them where none was named."""
        return self._throttle.until_served(partial(self._ask, asked))

    def _ask(self, asked: list[dict[str, str]]) -> dict[str, list[Leaf]]:
        if not self._bulk:
            return self._ask_singly(asked)
        try:
            return self._ask_in_bulk(asked)
        except RejectedError as error:
            if error.status not in (400, 404, 405):
                raise
            self._bulk = False  # CouchDB 1.x, and servers that only resemble CouchDB
            return self._ask_singly(asked)
        except ServerError as error:
            if error.status != 500:
                raise
            return self._ask_singly(asked)

    def _ask_in_bulk(self, asked: list[dict[str, str]]) -> dict[str, list[Leaf]]:
        answer = self._couch.json(
            "POST",
            self._couch.path(self._database, "_bulk_get"),
            _Results,
            body={"docs": asked},
            max_bytes=MAX_GROUP_BYTES if len(asked) > 1 else MAX_LINE_BYTES,
            silent_seconds=self._silent_seconds,
            pulse=self._pulse,
        )
        return _by_id(answer.results)

    def _ask_singly(self, asked: list[dict[str, str]]) -> dict[str, list[Leaf]]:
        results = []
        for one in asked:
            # The same shape with and without a revision: a list of `{"ok": document}`.
            revs = msgspec.json.encode([one["rev"]]).decode() if "rev" in one else "all"
            path = f"{self._couch.path(self._database, one['id'])}?open_revs={quote(revs, safe='')}"
            try:
                docs = self._couch.json("GET", path, list[_Found], pulse=self._pulse)
            except RejectedError as error:
                if error.status != 404:
                    raise
                docs = []
            results.append(_Result(one["id"], docs))
        return _by_id(results)


def wanted(change: Change) -> Wanted:
    """What a change is found under."""
    return (change.id, change.rev, change.version)


def _by_id(results: Iterable[_Result]) -> dict[str, list[Leaf]]:
    # By revision: an answer may list a leaf twice, and its generation must not count twice.
    leaves: dict[str, dict[str, Leaf]] = {}
    turn_bytes = _TURN_BYTES  # the answer was decoded in this turn
    for result in results:
        for found in result.docs:
            if not isinstance(found.ok, msgspec.Raw):
                continue  # an error: as good as not found
            turn_bytes += len(found.ok)
            if turn_bytes > _TURN_BYTES:
                gevent.sleep(0)
                turn_bytes = 0
            head = _head(found.ok)
            leaves.setdefault(head.id, {})[head.rev] = Leaf(head.rev, head.deleted, found.ok)
    return {id: list(found.values()) for id, found in leaves.items()}


def _version(leaves: Iterable[Leaf]) -> int:
    return sum(revision_number(leaf.rev) for leaf in leaves)


def _winning(change: Change, leaves: list[Leaf]) -> Change | None:
    """The change as these leaves have it; None where they are an older state than its row's."""
    ranked = sorted(leaves, key=_rank, reverse=True)
    version = _version(ranked)
    if version < change.version or not ranked:
        return None
    winner = ranked[0]
    return msgspec.structs.replace(
        change,
        revs=tuple(leaf.rev for leaf in ranked),
        version=version,
        deleted=winner.deleted,
        raw=None if winner.deleted else winner.body,
    )


def _rank(leaf: Leaf) -> tuple[Any, ...]:
    """CouchDB's choice of the winner: live before deleted, then generation, then the revision's id."""
    return (not leaf.deleted, revision_number(leaf.rev), leaf.rev.partition("-")[2])
