"""Compare the rows in a table with those that a write would store.

The expected rows are copied into the staging table, as for a write, and the server casts them to the types of
the columns. So numbers have the column's scale, timestamps its precision, and both sides are compared as the
server writes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import gevent
import psycopg
from psycopg import sql

from pillows.errors import PermanentError
from pillows.halving import send_in_halves
from pillows.models import MAX_LEAF_VERSION, DocumentRows
from pillows.transports.postgres.encoder import encode_head, encode_rows, from_storable
from pillows.transports.postgres.errors import is_row_refusal
from pillows.transports.postgres.statements import Name, Table, join_commas

#: Documents that are encoded before other greenlets get their turn.
TURN_DOCUMENTS = 25

_SINGLE = """
    select t._id from {table} t join {stage} s on s._id = t._id
    where {mine} t._id = any(array(select _id from {stage}))
    and t._version & {mask} = s._version & {mask}
    and row({held}) is distinct from row({expected})
"""
_MANY = """
    with expected as (select s._id, s._row, {expected} from {stage} s),
    held as (select t._id, t._row, {held} from {table} t
        where {mine} t._id = any(array(select _id from {stage}))),
    differing as (
        select _id from (select * from expected except select * from held) as lost
        union select _id from (select * from held except select * from expected) as added)
    select _id from differing where _id in (
        select s._id from {stage} s join {document} d on d.output = {path} and d._id = s._id
        where s._row = 0 and d.version & {mask} = s._version & {mask})
"""


class RowComparison:
    """Compares one table's rows.

    Args:
        cursor: in a transaction, with the table's staging table.
        table: the table.
    """

    def __init__(self, cursor: psycopg.Cursor, table: Table) -> None:
        self._cursor = cursor
        self._table = table

    def find_altered(self, documents: Sequence[DocumentRows]) -> set[str]:
        """Return the ids of documents with other rows than a write would store.

        Args:
            documents: as for `KeyedTransport.find_altered`.
        """
        table, altered = self._table, set[str]()
        staged: list[tuple[str, list[bytes]]] = []
        for number, document in enumerate(documents, start=1):
            try:
                head = encode_head(document, document.leaf_version)
                lines = encode_rows(head, document.rows[table.output], table.columns, many=table.many)
                staged.append((document.id, [b"0\t%d\t%b" % (n, line) for n, line in enumerate(lines)]))
            except PermanentError:
                altered.add(document.id)
            if number % TURN_DOCUMENTS == 0:
                gevent.sleep(0)
        if not staged:
            return altered
        return altered.union(*send_in_halves(staged, self._compare, is_row_refusal))

    def _compare(self, staged: Sequence[tuple[str, list[bytes]]]) -> set[str]:
        """Return which documents differ; one that the table can't take at all is altered."""
        failure = self._attempt(staged, "jsonb")
        # A `json` column keeps the text: it may hold numbers that `jsonb` doesn't.
        if isinstance(failure, psycopg.Error) and len(staged) == 1:
            failure = self._attempt(staged, "json")
        if not isinstance(failure, psycopg.Error):
            return failure
        if len(staged) > 1:
            raise failure
        return {staged[0][0]}

    def _attempt(self, staged: Sequence[tuple[str, list[bytes]]], json_type: str) -> set[str] | psycopg.Error:
        outcome: set[str] | psycopg.Error
        self._cursor.execute("savepoint pillowd")
        try:
            with self._cursor.copy(self._table.copy_stage) as copy:
                copy.write(b"".join([line for _, lines in staged for line in lines]))
            found = self._cursor.execute(self._make_query(json_type), ()).fetchall()
            outcome = {from_storable(id) for (id,) in found}
        except psycopg.Error as error:
            if not is_row_refusal(error):
                raise
            outcome = error
        self._cursor.execute("rollback to savepoint pillowd; release savepoint pillowd")
        return outcome

    def _make_query(self, json_type: str) -> bytes:
        held, expected = [], []
        for name, type in self._table.types.items():
            cast = json_type if type.lower() == "json" else type
            held.append(sql.SQL("cast(t.{} as {})::text").format(Name(name), sql.SQL(cast)))
            expected.append(sql.SQL("cast(s.{} as {})::text").format(Name(name), sql.SQL(cast)))
        return self._table.compose(
            _MANY if self._table.many else _SINGLE,
            mask=sql.Literal(MAX_LEAF_VERSION),
            held=join_commas(held),
            expected=join_commas(expected),
        )
