"""One batch in one transaction: which documents are newer than what is stored, and their rows.

The caller holds the fence (the tail's row of `pillowd_checkpoint` is locked), so no other pillowd
changes these tables until the commit, and what was read stays true.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

import gevent
import msgspec
import psycopg

from pillows.errors import PermanentError
from pillows.models import Batch, DocumentRows, WriteResult, write_version
from pillows.transports.base import newest
from pillows.transports.postgres.encoder import absent, header, lines, storable
from pillows.transports.postgres.errors import Verdict, discreet, reason, verdict
from pillows.transports.postgres.misfit_probe import probe
from pillows.transports.postgres.statements import Table

#: Documents that are put into lines before other greenlets have their turn.
DOCUMENTS_A_TURN = 500
_BY_ID = attrgetter("id")


class Encoded(msgspec.Struct, gc=False):
    """A document, ready to be copied.

    Attributes:
        document: the document.
        write_version: its write version.
        head: what each of its lines begins with.
        lines: for each table, the lines of its rows.
    """

    document: DocumentRows
    write_version: int
    head: bytes
    lines: list[list[bytes]]


def encoded(batch: Batch, tables: Sequence[Table]) -> tuple[list[Encoded], dict[str, str]]:
    """The newest entry of each document, as lines, and why some can never be written.

    They are sorted by id: whoever else writes several of them in order cannot deadlock with us, and
    the index is walked in one direction.
    """
    ready: list[Encoded] = []
    dead: dict[str, str] = {}
    floor = write_version(batch.epoch, 0)
    for number, document in enumerate(sorted(newest(batch.documents), key=_BY_ID), start=1):
        version = floor | document.leaf_version
        try:
            head = header(document, version)
            found = []
            for table in tables:
                rows = document.rows.get(table.output)
                found.append(lines(head, rows, table.columns, many=table.many) if rows else [])
            ready.append(Encoded(document, version, head, found))
        except PermanentError as error:
            dead[document.id] = str(error)
        if number % DOCUMENTS_A_TURN == 0:
            gevent.sleep(0)
    return ready, dead


class BatchWriter:
    """Writes one batch.

    Args:
        cursor: in a transaction that holds the fence.
        tables: all tables of the transport.
        first_pass: as in `Batch`.
        documents: what is written, as `encoded` gives it.
        dead: what is dead already.
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
        self._dead = dead

    @property
    def clean(self) -> bool:
        """Whether every document was applied: a checkpoint may pass."""
        return not self._dead and not self._refused

    def write(self) -> WriteResult:
        """Writes all that can be written."""
        fresh = self._fresh()
        if fresh and (copied := self._copy_directly(fresh)):
            taken = {one.document.id for one in copied}
            self._documents = [one for one in self._documents if one.document.id not in taken]
        if self._documents:
            self._stage()
            self._drop_refused()
            if len(self._refused) < len(self._documents):
                self._move_all()
        return WriteResult(refused=self._refused, dead=self._dead)

    # -- straight into the tables

    def _fresh(self) -> Sequence[Encoded]:
        """Documents that most likely are in no table yet: a first pass brings each but once."""
        if not self._first_pass or any(table.many or table.shared for table in self._tables):
            return []
        return [one for one in self._documents if all(one.lines)]

    def _copy_directly(self, fresh: Sequence[Encoded]) -> Sequence[Encoded]:
        """Copies the documents without staging; none of them where one is no news. Returns the copied.

        The primary key refuses a document that is there, so the write version holds without being read. That
        costs two thirds of what staging costs the server. COPY takes all or nothing, so once a value
        did not fit, documents that are not plain are left to the other way.
        """
        ids = [storable(one.document.id) for one in fresh]
        for table in self._tables:
            if table.tombstoned and self._is(table.has_guard_of, ids):
                return []
        wary = any(table.wary for table in self._tables)
        chosen = self._plain(fresh) if wary else fresh
        failure = self._attempt(lambda: self._copy_lines(chosen))
        if failure is not None and self._note_misfit(failure) and not wary:
            chosen = self._plain(fresh)
            if len(chosen) < len(fresh):
                failure = self._attempt(lambda: self._copy_lines(chosen))
        return chosen if failure is None else []

    def _plain(self, documents: Sequence[Encoded]) -> Sequence[Encoded]:
        return [one for one in documents if self._is_plain(one)]

    def _is_plain(self, one: Encoded) -> bool:
        """Whether all values of a document surely fit."""
        start = len(one.head)
        return all(
            table.plain.fullmatch(line, start)
            for table, lines in zip(self._tables, one.lines, strict=True)
            for line in lines
        )

    def _note_misfit(self, failure: psycopg.Error) -> bool:
        """Whether a value did not fit its column; from then on values are looked at before."""
        misfit = (failure.sqlstate or "").startswith("22")
        for table in self._tables:
            table.wary = table.wary or misfit
        return misfit

    def _copy_lines(self, fresh: Sequence[Encoded]) -> None:
        for number, table in enumerate(self._tables):
            self._copy(table.copy_direct, [one.lines[number][0] for one in fresh])

    # -- by way of the staging tables

    def _stage(self) -> None:
        for number, table in enumerate(self._tables):
            staged: list[bytes] = []
            for n, one in enumerate(self._documents):
                rows = one.lines[number]
                if rows:
                    staged += [b"%d\t%d\t%b" % (n, row, line) for row, line in enumerate(rows)]
                else:
                    staged.append(b"%d\t\\N\t%b" % (n, absent(one.head, table.columns)))
            self._copy(table.copy_stage, staged)

    def _drop_refused(self) -> None:
        """A document that one table holds newer is refused by all: its rows are written as a whole."""
        refused: dict[int, int] = {}
        for table in self._tables:
            for query in table.refusals:
                for n, stored in self._cursor.execute(query, ()).fetchall():
                    refused[n] = max(stored, refused.get(n, 0))
        for n, stored in refused.items():
            self._refused[self._documents[n].document.id] = stored
        self._unstage(refused)

    def _move_all(self) -> None:
        """Moves what is staged into the tables, and finds out what never can be moved.

        Values that do not fit are found by probing: at first those that do not look like it, then all.
        What else a table refuses (constraints, triggers) only shows when it is tried, and is found by
        halving.
        """
        last = len(self._documents) - 1
        if any(table.wary for table in self._tables):
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
            self._halve(0, last, suspect=True)

    def _probe(self, suspects: Collection[int]) -> bool:
        """Takes documents whose values do not fit out of the staging tables; whether there were any."""
        found: list[tuple[int, str, str, str]] = []

        def ask() -> None:
            for table in self._tables if suspects else ():
                found.extend(probe(self._cursor, table, suspects))

        self._attempt(ask)
        for n, column, state, message in found:
            self._dead[self._documents[n].document.id] = f"Column {column}: {discreet(message, state)}"
        self._unstage({n for n, *_ in found})
        return bool(found)

    def _unstage(self, numbers: Collection[int]) -> None:
        for table in self._tables if numbers else ():
            self._cursor.execute(table.unstage, (list(numbers),))

    def _halve(self, low: int, high: int, *, suspect: bool = False) -> bool:
        """Moves documents from `low` to `high`, one at a time where it must be.

        Args:
            low: the first document's number.
            high: the last one's.
            suspect: one of them is known to fail, so all of them together are not tried.

        Returns:
            Whether all of them went in.
        """
        if low == high or not suspect:
            failure = self._attempt(lambda: self._move_range(low, high))
            if failure is None:
                return True
            if low == high:
                self._dead[self._documents[low].document.id] = reason(failure)
                return False
        middle = (low + high) // 2
        fine = self._halve(low, middle)
        self._halve(middle + 1, high, suspect=fine)
        return False

    def _move_range(self, low: int, high: int) -> None:
        parameters = {"low": low, "high": high, "first_pass": self._first_pass}
        for number, table in enumerate(self._tables):
            present = any(one.lines[number] for one in self._documents)
            gone = not all(one.lines[number] for one in self._documents)
            for statement in table.move(present=present, gone=gone):
                self._cursor.execute(statement, parameters)
            # The last statement wrote tombstones, or write versions.
            table.tombstoned = table.tombstoned or table.many or (gone and self._cursor.rowcount > 0)

    # -- what both ways share

    def _attempt(self, work: Callable[[], None]) -> psycopg.Error | None:
        """Does the work or nothing; gives the server's error where it refuses the values.

        Constraints that are deferred to the commit are checked here, where a document can be named.
        """
        self._cursor.execute("savepoint pillowd; set constraints all deferred")
        try:
            work()
            self._cursor.execute("set constraints all immediate; release savepoint pillowd")
        except psycopg.Error as error:
            if verdict(error.sqlstate) is not Verdict.DEAD:
                raise
            self._cursor.execute("rollback to savepoint pillowd; release savepoint pillowd")
            return error
        return None

    def _is(self, query: bytes, parameter: object) -> bool:
        found = self._cursor.execute(query, (parameter,)).fetchone()
        return bool(found and found[0])

    def _copy(self, statement: bytes, copied: Sequence[bytes]) -> None:
        with self._cursor.copy(statement) as copy:
            copy.write(b"".join(copied))
