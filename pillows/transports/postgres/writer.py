"""Write one batch in one transaction: the documents that are newer than the stored ones.

The caller holds the fence (the tail's row of `pillowd_checkpoint` is locked), so no other pillowd
changes these tables until the commit, and all that was read stays valid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

import gevent
import msgspec
import psycopg

from pillows.errors import PermanentError
from pillows.halving import send_in_halves
from pillows.models import Batch, DocumentRows, WriteResult, newest, write_version
from pillows.transports.postgres.encoder import encode_absence, encode_head, encode_rows, to_storable
from pillows.transports.postgres.errors import get_redacted_message, is_row_refusal, redact_values
from pillows.transports.postgres.misfit_probe import find_misfits
from pillows.transports.postgres.statements import Table

#: Documents that are encoded before other greenlets get their turn.
TURN_DOCUMENTS = 500
#: Lines that are copied at once: for each call psycopg waits for the socket, and all at once would take as
#: much memory as the lines once more.
_JOINED_LINES = 200
_BY_ID = attrgetter("id")


class Encoded(msgspec.Struct, gc=False):
    """A document, ready to be copied.

    Attributes:
        document: the document.
        write_version: its write version.
        head: the beginning of each of its lines.
        lines: for each table, the lines of its rows.
    """

    document: DocumentRows
    write_version: int
    head: bytes
    lines: list[list[bytes]]


def encode_batch(batch: Batch, tables: Sequence[Table]) -> tuple[list[Encoded], dict[str, str]]:
    """Return the newest entry of each document as lines, and why some can never be written.

    They are sorted by id: another session that writes several of them in that order cannot deadlock
    with us, and the index is read in one direction.
    """
    ready: list[Encoded] = []
    dead: dict[str, str] = {}
    for number, document in enumerate(sorted(newest(batch.documents), key=_BY_ID), start=1):
        try:
            version = write_version(batch.epoch, document.leaf_version)
            head = encode_head(document, version)
            found = []
            for table in tables:
                rows = document.rows.get(table.output)
                found.append(encode_rows(head, rows, table.columns, many=table.many) if rows else [])
            ready.append(Encoded(document, version, head, found))
        except PermanentError as error:
            dead[document.id] = str(error)
        if number % TURN_DOCUMENTS == 0:
            gevent.sleep(0)
    return ready, dead


class PostgresBatchWriter:
    """Writes one batch.

    Args:
        cursor: in a transaction that holds the fence.
        tables: all tables of the transport.
        first_pass: as in `Batch`.
        documents: from `encode_batch`.
        dead: from `encode_batch`.
    """

    def __init__(
        self,
        cursor: psycopg.Cursor,
        tables: Sequence[Table],
        *,
        first_pass: bool,
        documents: Sequence[Encoded],
        dead: dict[str, str],
    ) -> None:
        self._cursor = cursor
        self._tables = tables
        self._first_pass = first_pass
        self._documents = documents
        self._refused: dict[str, int] = {}
        self._has_tombstones = False
        self._dead = dead

    @property
    def is_clean(self) -> bool:
        """Whether every document was applied: a checkpoint may pass."""
        return not self._dead and not self._refused

    def write(self) -> WriteResult:
        """Write all documents that can be written."""
        fresh = self._find_new()
        if fresh and (copied := self._copy_directly(fresh)):
            if len(copied) == len(self._documents):
                return WriteResult(dead=self._dead)
            taken = {one.document.id for one in copied}
            self._documents = [one for one in self._documents if one.document.id not in taken]
        if self._documents:
            send_in_halves(range(len(self._documents)), self._stage, is_row_refusal)
            self._drop_refused()
            if len(self._refused) < len(self._documents):
                self._move_all()
        return WriteResult(refused=self._refused, dead=self._dead)

    # -- straight into the tables

    def _find_new(self) -> Sequence[Encoded]:
        """Return documents that most likely are not stored: a first pass reads each only once."""
        if not self._first_pass or any(table.many or table.shared for table in self._tables):
            return []
        return [one for one in self._documents if all(one.lines)]

    def _copy_directly(self, fresh: Sequence[Encoded]) -> Sequence[Encoded]:
        """Copy documents without staging, or none of them if one is stored; return the copied ones.

        The primary key refuses a stored document, so write versions are not read. That costs the server two
        thirds of the time of staging. COPY writes all rows or none, so after a value that did not fit, only
        documents that match the value patterns are copied.
        """
        if any(table.tombstoned for table in self._tables) and (
            self._attempt(lambda: self._check_no_tombstones(fresh)) is not None or self._has_tombstones
        ):
            return []
        precheck_values = any(table.precheck_values for table in self._tables)
        chosen = self._select_plain(fresh) if precheck_values else fresh
        failure = self._attempt(lambda: self._copy_lines(chosen))
        if failure is not None and self._note_misfit(failure) and not precheck_values:
            chosen = self._select_plain(fresh)
            if len(chosen) < len(fresh):
                failure = self._attempt(lambda: self._copy_lines(chosen))
        return chosen if failure is None else []

    def _check_no_tombstones(self, fresh: Sequence[Encoded]) -> None:
        ids = [to_storable(one.document.id) for one in fresh]
        self._has_tombstones = any(
            table.tombstoned and self._query_bool(table.has_version_of_query, ids) for table in self._tables
        )

    def _select_plain(self, documents: Sequence[Encoded]) -> Sequence[Encoded]:
        return [one for one in documents if self._is_plain(one)]

    def _is_plain(self, one: Encoded) -> bool:
        """Return whether all values of a document surely fit."""
        start = len(one.head)
        return all(
            table.value_pattern.fullmatch(line, start)
            for table, lines in zip(self._tables, one.lines, strict=True)
            for line in lines
        )

    def _note_misfit(self, failure: psycopg.Error) -> bool:
        """Return whether a value did not fit its column; from then on values are checked first."""
        misfit = (failure.sqlstate or "").startswith("22")
        for table in self._tables:
            table.precheck_values = table.precheck_values or misfit
        return misfit

    def _copy_lines(self, fresh: Sequence[Encoded]) -> None:
        for number, table in enumerate(self._tables):
            self._copy(table.copy_direct, [one.lines[number][0] for one in fresh])

    # -- through the staging tables

    def _stage(self, numbers: range) -> None:
        """Copy these documents into the staging tables; one whose characters the server refuses is dead."""
        failure = self._attempt(lambda: self._copy_staged(numbers))
        if failure is not None and len(numbers) > 1:
            raise failure
        if failure is not None:
            self._dead[self._documents[numbers[0]].document.id] = get_redacted_message(failure)

    def _copy_staged(self, numbers: range) -> None:
        for number, table in enumerate(self._tables):
            staged: list[bytes] = []
            for n in numbers:
                one = self._documents[n]
                rows = one.lines[number]
                if rows:
                    staged += [b"%d\t%d\t%b" % (n, row, line) for row, line in enumerate(rows)]
                else:
                    staged.append(b"%d\t\\N\t%b" % (n, encode_absence(one.head, table.columns)))
            self._copy(table.copy_stage, staged)

    def _drop_refused(self) -> None:
        """Refuse a document in all tables if one holds it newer: its rows are written as a whole."""
        refused: dict[int, int] = {}
        for table in self._tables:
            for query in table.refusals:
                for n, stored in self._cursor.execute(query, ()).fetchall():
                    refused[n] = max(stored, refused.get(n, 0))
        for n, stored in refused.items():
            self._refused[self._documents[n].document.id] = stored
        self._unstage(refused)

    def _move_all(self) -> None:
        """Move the staged rows into the tables, and find the documents that can never be moved.

        Values that do not fit are found by the probe: first those that do not match the patterns, then
        all. Other refusals (constraints, triggers) only show in an attempt, and are found by halving.
        """
        last = len(self._documents) - 1
        if any(table.precheck_values for table in self._tables):
            self._probe([n for n, one in enumerate(self._documents) if not self._is_plain(one)])
            settled = self._refused.keys() | self._dead.keys()
            if all(one.document.id in settled for one in self._documents):
                return
        failure = self._attempt(lambda: self._move_range(0, last))
        if failure is None:
            return
        self._note_misfit(failure)
        if (
            not self._probe(range(len(self._documents)))
            or self._attempt(lambda: self._move_range(0, last)) is not None
        ):
            send_in_halves(range(last + 1), self._move_or_refuse, is_row_refusal)

    def _probe(self, suspects: Collection[int]) -> bool:
        """Remove documents whose values do not fit from the staging tables; return whether there were any."""
        found: list[tuple[int, str, str, str]] = []

        def ask() -> None:
            for table in self._tables if suspects else ():
                found.extend(find_misfits(self._cursor, table, suspects))

        self._attempt(ask)
        for n, column, state, message in found:
            self._dead[self._documents[n].document.id] = f"Column {column}: {redact_values(message, state)}"
        self._unstage({n for n, *_ in found})
        return bool(found)

    def _unstage(self, numbers: Collection[int]) -> None:
        for table in self._tables if numbers else ():
            self._cursor.execute(table.unstage, (list(numbers),))

    def _move_or_refuse(self, numbers: range) -> None:
        failure = self._attempt(lambda: self._move_range(numbers[0], numbers[-1]))
        if failure is not None and len(numbers) > 1:
            raise failure
        if failure is not None:
            self._dead[self._documents[numbers[0]].document.id] = get_redacted_message(failure)

    def _move_range(self, low: int, high: int) -> None:
        numbered = enumerate(self._documents[low : high + 1], start=low)
        parameters = {
            "low": low,
            "high": high,
            "first_pass": self._first_pass,
            "rowless": [n for n, one in numbered if not one.document.has_rows],
        }
        for number, table in enumerate(self._tables):
            present = any(one.lines[number] for one in self._documents)
            gone = not all(one.lines[number] for one in self._documents)
            for statement in table.move(present=present, gone=gone):
                self._cursor.execute(statement, parameters)
            # The last statement wrote tombstones or write versions; so may the one before it that marks.
            wrote = table.many or (gone and (bool(table.mark) or self._cursor.rowcount > 0))
            table.tombstoned = table.tombstoned or wrote

    # -- shared by both ways

    def _attempt(self, work: Callable[[], None]) -> psycopg.Error | None:
        """Do the work, or undo it and return the server's error if it refuses the values.

        Deferred constraints are checked here, where the document is known, instead of at the commit.
        """
        self._cursor.execute("savepoint pillowd; set constraints all deferred")
        try:
            work()
            self._cursor.execute("set constraints all immediate; release savepoint pillowd")
        except psycopg.Error as error:
            if not is_row_refusal(error):
                raise
            self._cursor.execute("rollback to savepoint pillowd; release savepoint pillowd")
            return error
        return None

    def _query_bool(self, query: bytes, parameter: object) -> bool:
        found = self._cursor.execute(query, (parameter,)).fetchone()
        return bool(found and found[0])

    def _copy(self, statement: bytes, copied: Sequence[bytes]) -> None:
        with self._cursor.copy(statement) as copy:
            for begin in range(0, len(copied), _JOINED_LINES):
                copy.write(b"".join(copied[begin : begin + _JOINED_LINES]))
