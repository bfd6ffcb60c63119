"""Write one batch into an SQLite file: the documents that are newer than the stored ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from pillows.errors import PermanentError
from pillows.models import Batch, DocumentRows, WriteResult, newest, write_version
from pillows.transports.sqlite.errors import find_unbindable, is_row_error
from pillows.transports.sqlite.statements import StoredVersion, Table


class SqliteBatchWriter:
    """Writes documents in the caller's transaction.

    Args:
        db: the connection, in that transaction.
        tables: output -> its table.
        check_cancelled: called before each document; raises if the caller has given up.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        tables: Mapping[str, Table],
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._tables = tables
        self._check_cancelled = check_cancelled

    def write(self, batch: Batch) -> WriteResult:
        """Write the newest entry of each document; return the refused and the dead ones."""
        documents = newest(batch.documents)
        known = self._get_versions([document.id for document in documents])
        refused: dict[str, int] = {}
        dead: dict[str, str] = {}
        for document in documents:
            self._check_cancelled()
            try:
                ours = write_version(batch.epoch, document.leaf_version)
            except PermanentError as error:
                dead[document.id] = str(error)
                continue
            theirs = known.get(document.id, {})
            stored = max((found.write_version for found in theirs.values()), default=-1)
            if stored >= ours:
                refused[document.id] = stored
            elif reason := self.put(document, ours, theirs, first_pass=batch.first_pass):
                dead[document.id] = reason
        return WriteResult(refused=refused, dead=dead)

    def put(
        self, document: DocumentRows, ours: int, known: Mapping[str, StoredVersion], *, first_pass: bool
    ) -> str:
        """Write one document into every table, or into none.

        Args:
            document: the document.
            ours: its write version.
            known: output -> the version that is stored there.
            first_pass: leave no record of a document that has no rows and never had.

        Returns:
            Why it can never be written; empty if it was.

        Raises:
            sqlite3.Error: an error that is not the document's fault.
        """
        self._db.execute("SAVEPOINT document")
        try:
            for output, table in self._tables.items():
                rows = document.rows.get(output, ())
                table.put(self._db, document, rows, ours, known.get(output), first_pass=first_pass)
        except (PermanentError, sqlite3.Error, OverflowError, ValueError) as error:
            if isinstance(error, sqlite3.Error) and not is_row_error(error):
                raise
            self._db.execute("ROLLBACK TO document")
            return self._describe(document, error)
        finally:
            if self._db.in_transaction:
                self._db.execute("RELEASE document")
        return ""

    def _describe(self, document: DocumentRows, error: Exception) -> str:
        """Return the error of a document's rows, with the column if it is known."""
        if isinstance(error, PermanentError):
            return str(error)
        found = (find_unbindable(document.rows.get(name, ()), table) for name, table in self._tables.items())
        return next(filter(None, found), str(error))

    def _get_versions(self, ids: Sequence[str]) -> dict[str, dict[str, StoredVersion]]:
        """Return document id -> output -> the version that is stored there."""
        known: dict[str, dict[str, StoredVersion]] = {}
        for output, table in self._tables.items():
            for id, found in table.get_versions(self._db, ids).items():
                known.setdefault(id, {})[output] = found
        return known
