"""Finds staged rows whose values do not fit their columns, with one query for all suspects.

A function of the session converts each staged row as the insert would (a cast to the bare type, then
an assignment, which checks the length), and catches the error. So ten bad rows of a thousand cost some
milliseconds, where halving alone takes a hundred attempts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import psycopg
from psycopg import sql

from pillows.transports.postgres.statements import Name, Table, literal

_BODY = """
declare r record; {declared}
begin
    for r in select * from {stage} where _row is not null and _n = any(suspects) loop
        begin
            {steps}
        exception when data_exception or program_limit_exceeded or integrity_constraint_violation then
            number := r._n; state := sqlstate; message := sqlerrm; return next;
        end;
    end loop;
end
"""
_FUNCTION = """
create or replace function {probe}
    (suspects int[], out number int, out failing text, out state text, out message text)
returns setof record language plpgsql as {body}
"""


def create_probes(cursor: psycopg.Cursor, tables: Iterable[Table]) -> None:
    """Create the functions of a new connection. The tables' `casts` must be known."""
    for table in tables:
        body = table.compose(_BODY, declared=_declared(table), steps=_steps(table)).decode()
        cursor.execute(table.compose(_FUNCTION, probe=_name(table), body=sql.Literal(body)), ())


def find_misfits(
    cursor: psycopg.Cursor, table: Table, suspects: Collection[int]
) -> list[tuple[int, str, str, str]]:
    """Return document number, column, SQLSTATE and message of each row that cannot be converted.

    Args:
        cursor: in a transaction.
        table: the table whose rows are staged.
        suspects: the numbers of the documents to examine.
    """
    query = table.compose("select number, failing, state, message from {probe}(%s)", probe=_name(table))
    return cursor.execute(query, (list(suspects),)).fetchall()


def _name(table: Table) -> Name:
    return Name("pg_temp", f"{table.stage}_probe")


def _declared(table: Table) -> sql.Composed:
    types = enumerate(table.types.values())
    return sql.SQL(" ").join([sql.SQL("v{} {};").format(_bare(n), sql.SQL(type)) for n, type in types])


def _steps(table: Table) -> sql.Composed:
    step = "failing := {text}; v{n} := cast(r.{name} as {base});"
    return sql.SQL(" ").join(
        [
            sql.SQL(step).format(
                n=_bare(n), text=literal(name), name=Name(name), base=sql.SQL(table.casts[name])
            )
            for n, name in enumerate(table.types)
        ]
    )


def _bare(number: int) -> sql.SQL:
    return sql.SQL(str(number))
