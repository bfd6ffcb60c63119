"""Writes batches of documents to a CouchDB database with `_bulk_docs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import SecretStr

from pillows.couch.bulk_docs import WrittenRow, bulk_docs
from pillows.couch.client import CouchClient
from pillows.couch.database_info import get_database_info
from pillows.couch.database_url import parse_database_url
from pillows.couch.errors import MissingError
from pillows.couch.options import BasicAuth, CouchConnection
from pillows.errors import ConfigError, PermanentError, RetryableError
from pillows.standalone.bulk_models import BulkDocument, BulkOutcome

#: How often a conflict is overwritten while others write, too.
_MAX_OVERWRITES = 5


class ConflictError(PermanentError):
    """The database has another revision of a document."""


class MissingDatabaseError(PermanentError):
    """The database does not exist."""


class _Value(msgspec.Struct):
    rev: str = ""


class _Row(msgspec.Struct):
    key: str
    value: _Value | None = None


class _Rows(msgspec.Struct):
    rows: list[_Row]


class CouchBulkWriter:
    """Writes to one database, which is created only on request and never deleted.

    Args:
        url: of the database, with user and password if need be.
        on_conflict: `skip`, `overwrite` or `fail`.
        create: create the database with the first write, if it is missing.

    Raises:
        ConfigError: the URL names no database, or `on_conflict` is not one of the three.
    """

    def __init__(self, url: str, on_conflict: str = "skip", create: bool = False) -> None:
        if on_conflict not in ("skip", "overwrite", "fail"):
            raise ConfigError(f"on_conflict cannot be {on_conflict!r}.", remedy="use skip, overwrite or fail")
        connection, self._database = connection_of(url)
        self._couch = CouchClient(connection)
        self._on_conflict = on_conflict
        self._create = create

    def write(self, documents: Sequence[BulkDocument]) -> BulkOutcome:
        """Write a batch.

        Raises:
            RetryableError: the server can't be reached or is busy; the batch may have been written.
            AccessError: it denies access.
            MissingDatabaseError: the database does not exist; waiting does not make it.
            ConflictError: there is a conflict, and `on_conflict` is `fail`.
        """
        if self._create:
            self._create_missing()
        rows = self._send(documents)
        for _ in range(_MAX_OVERWRITES if self._on_conflict == "overwrite" else 0):
            if not any(row.is_conflict for row in rows):
                break
            rows = self._overwrite(documents, rows)
        outcome = to_outcome(documents, rows)
        if outcome.conflict and self._on_conflict == "fail":
            id, why = next(iter(outcome.conflicts.items()))
            raise ConflictError(f"{outcome.conflict} conflicts, such as of {id!r}: {why}")
        return outcome

    def close(self) -> None:
        """Close every connection."""
        self._couch.close()

    def _create_missing(self) -> None:
        try:
            get_database_info(self._couch, self._database)
        except MissingError:
            self._couch.json("PUT", self._couch.path(self._database), dict[str, Any])
        self._create = False

    def _send(self, documents: Sequence[BulkDocument]) -> list[WrittenRow]:
        """Return the row of each document, in their order."""
        edits = [(document.id, [document.body]) for document in documents]
        try:
            rows = bulk_docs(self._couch, self._database, edits)
        except MissingError as error:
            raise MissingDatabaseError(f"{error} Create it, or pass create=True.") from error
        if len(rows) != len(documents):
            raise RetryableError(f"CouchDB answered {len(rows)} rows to {len(documents)} documents.")
        return rows

    def _overwrite(self, documents: Sequence[BulkDocument], rows: Sequence[WrittenRow]) -> list[WrittenRow]:
        """Write the documents with conflicts again, over their present revisions."""
        ids = {document.id for document, row in zip(documents, rows, strict=True) if row.is_conflict}
        revs = self._get_revs(sorted(ids))
        # Of several documents with one id in a batch, the last one counts.
        last = {document.id: document for document in documents if document.id in ids}
        again = self._send([_replace_rev(document, revs.get(id, "")) for id, document in last.items()])
        new_rows = dict(zip(last, again, strict=True))
        return [
            new_rows[document.id] if row.is_conflict else row
            for document, row in zip(documents, rows, strict=True)
        ]

    def _get_revs(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the present revisions."""
        path = self._couch.path(self._database, "_all_docs")
        found = self._couch.json("POST", path, _Rows, body={"keys": ids})
        return {row.key: row.value.rev for row in found.rows if row.value is not None}


def connection_of(url: str) -> tuple[CouchConnection, str]:
    """Return connection and database of a URL such as `http://user:password@host:5984/name`.

    Raises:
        ConfigError: it does not name a database on a server.
    """
    parsed = parse_database_url(url)
    auth = None
    if parsed.username is not None:
        auth = BasicAuth(username=parsed.username, password=SecretStr(parsed.password or ""))
    return CouchConnection(url=parsed.server, auth=auth), parsed.database


def to_outcome(documents: Sequence[BulkDocument], rows: Sequence[WrittenRow]) -> BulkOutcome:
    """Return the outcome in the rows of `_bulk_docs`, which are in the order of the documents."""
    pairs = list(zip(documents, rows, strict=True))
    conflicts = [(document, row) for document, row in pairs if row.is_conflict]
    failures = [(document, row) for document, row in pairs if row.error and not row.is_conflict]
    return BulkOutcome(
        conflicts={document.id or row.id: str(row) for document, row in conflicts},
        failures={document.id or row.id: str(row) for document, row in failures},
        conflict=len(conflicts),
        failed=len(failures),
    )


def _replace_rev(document: BulkDocument, rev: str) -> BulkDocument:
    # Raw: a number keeps its digits.
    body = msgspec.json.decode(document.body, type=dict[str, msgspec.Raw]) | {
        "_rev": msgspec.Raw(b'"%s"' % rev.encode())
    }
    if not rev:
        del body["_rev"]
    return BulkDocument(id=document.id, body=msgspec.json.encode(body))
