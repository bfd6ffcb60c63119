"""Creating tables and columns that are missing, and refusing those that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pillows.errors import ConfigError
from pillows.transports.postgres.errors import Verdict, reason, verdict
from pillows.transports.postgres.statements import Name, Table, listed
from pillows.transports.postgres.value_patterns import plain

#: Two starts that create the same tables take turns by this advisory lock ("pillowd" as a number).
ADVISORY_LOCK = int.from_bytes(b"pillowd")

_OWN = {
    "pillowd_checkpoint": sql.SQL(
        "create table {} (pillow text not null, source text not null, generation bigint not null,"
        " epoch bigint not null, fence text not null, seq text not null, checkpoint json not null,"
        " saved_at timestamptz not null, primary key (pillow, source))"
    ),
    "pillowd_document": sql.SQL(
        'create table {} (output text collate "C" not null, _id text collate "C" not null,'
        " version bigint not null, deleted_at timestamptz, primary key (output, _id))"
    ),
    "pillowd_document_deleted": sql.SQL(
        "create index pillowd_document_deleted on {document} (output, deleted_at)"
        " where deleted_at is not null"
    ),
}

# format_type with a modifier of -1 is the type without its length, in a form that casts by itself
# ("bpchar", where a NULL modifier gives "character", which means character(1)).
_COLUMNS = """
    select attname, format_type(atttypid, atttypmod), format_type(atttypid, -1),
        attnotnull and not (atthasdef or attidentity <> '')
    from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A column as the server has it.

    Attributes:
        type: its full type, as the server spells it.
        base: its type without length or precision.
        demanded: it is not null and has no default, so every insert must give it.
    """

    type: str
    base: str
    demanded: bool


def ensure(cursor: psycopg.Cursor, tables: Sequence[Table], schema: str) -> None:
    """Makes every table as configured, where that needs no more than creating and adding.

    Args:
        cursor: in a transaction, so that all of it happens or nothing.
        tables: the outputs' tables; their `casts` are set.
        schema: where pillowd's own tables are.

    Raises:
        ConfigError: a table does not fit, or we may not create it; the remedy has the statement to run.
    """
    cursor.execute("select pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
    for statement in missing(cursor, tables, schema):
        _define(cursor, statement)


def missing(cursor: psycopg.Cursor, tables: Sequence[Table], schema: str) -> list[sql.Composed]:
    """The statements that create and add what is missing, in order; runs none of them.

    Args:
        cursor: in a transaction.
        tables: the outputs' tables; their `casts` are set.
        schema: where pillowd's own tables are.

    Raises:
        ConfigError: a table that is there does not fit, or a configured type is unknown.
    """
    statements = [
        sql.SQL("create schema {}").format(Name(name))
        for name in sorted({schema, *(table.schema for table in tables)})
        if not _is(cursor, "select exists (select from pg_namespace where nspname = %s)", name)
    ]
    statements += [
        statement.format(Name(schema, name), document=Name(schema, "pillowd_document"))
        for name, statement in _OWN.items()
        if not _exists(cursor, Name(schema, name))
    ]
    for table in tables:
        statements += _missing_of(cursor, table)
    return statements


def there(cursor: psycopg.Cursor, schema: str, name: str) -> bool:
    """Whether there is a table of that name."""
    return _exists(cursor, Name(schema, name))


def create_stages(cursor: psycopg.Cursor, tables: Iterable[Table]) -> None:
    """Creates the staging tables of a new connection. EXTERNAL: no compression for a moment's stay."""
    for table in tables:
        names = [Name(name) for name in table.types]
        cursor.execute(
            sql.SQL(
                "create temporary table {} (_n integer not null, _row integer, _id text not null,"
                " _rev text, _version bigint not null, {}) on commit delete rows"
            ).format(Name(table.stage), listed([sql.SQL("{} text").format(name) for name in names])),
            (),
        )
        external = [sql.SQL("alter column {} set storage external").format(name) for name in names]
        cursor.execute(
            sql.SQL("alter table {} {}").format(Name("pg_temp", table.stage), listed(external)), ()
        )


def shown(statement: sql.Composable) -> str:
    """A statement as an operator would type it."""
    return statement.as_string().replace("%%", "%")


def _missing_of(cursor: psycopg.Cursor, table: Table) -> list[sql.Composed]:
    path = Name(table.schema, table.name)
    wanted = _wanted(cursor, table)
    table.casts = {name: wanted[name].base for name in table.types}
    table.plain = plain({name: wanted[name].type for name in table.types})
    if not _exists(cursor, path):
        return [_creation(table)]
    found = _columns(cursor, path)
    statements = []
    for name, column in wanted.items():
        if name in found:
            _check_type(table, name, found[name], column)
        elif name in table.types:
            addition = sql.SQL("alter table {} add column {}")
            statements.append(addition.format(path, _definition(table, name)))
        else:
            raise ConfigError(
                f"Table {table.path} has no column {name}, so pillowd did not make it for such an output.",
                remedy="choose another table, or drop this one",
            )
    _check_demands(table, found, wanted)
    return statements


def _creation(table: Table) -> sql.Composed:
    # Ids are compared as bytes: it is faster, and no upgrade of a locale reorders the index.
    kept = [
        sql.SQL("{} {} not null").format(
            Name(name), sql.SQL(f'{type} collate "C"' if name in ("_source", "_id") else type)
        )
        for name, type in table.kept.items()
    ]
    keys = [name for name in table.kept if name not in ("_rev", "_version")]
    key = sql.SQL("primary key ({})").format(sql.SQL(", ".join(keys)))
    columns = [_definition(table, name) for name in table.types]
    return sql.SQL("create table {} ({})").format(
        Name(table.schema, table.name), listed([*kept, *columns, key])
    )


def _definition(table: Table, name: str) -> sql.Composed:
    return sql.SQL("{} {}").format(Name(name), sql.SQL((dict(table.kept) | dict(table.types))[name]))


def _wanted(cursor: psycopg.Cursor, table: Table) -> Mapping[str, Found]:
    """The configured columns as the server spells them: it is asked with a table made for it."""
    columns = [_definition(table, name) for name in (*table.kept, *table.types)]
    shape = sql.SQL("create temporary table pillowd_shape ({})").format(listed(columns))
    _define(cursor, shape)
    found = _columns(cursor, Name("pg_temp", "pillowd_shape"))
    cursor.execute("drop table pg_temp.pillowd_shape")
    return found


def _check_type(table: Table, name: str, found: Found, wanted: Found) -> None:
    if found.type == wanted.type:
        return
    statement = sql.SQL("alter table {} alter column {} type {} using {}::{}").format(
        Name(table.schema, table.name), Name(name), sql.SQL(wanted.type), Name(name), sql.SQL(wanted.type)
    )
    raise ConfigError(
        f"Column {name} of {table.path} is {found.type}; {wanted.type} is configured.",
        remedy=f"run `{shown(statement)}`, or configure {found.type}",
    )


def _check_demands(table: Table, found: Mapping[str, Found], wanted: Mapping[str, Found]) -> None:
    for name, column in found.items():
        if column.demanded and name not in wanted:
            statement = sql.SQL("alter table {} alter column {} drop not null").format(
                Name(table.schema, table.name), Name(name)
            )
            raise ConfigError(
                f"Column {name} of {table.path} must not be null, and is not among the configured columns.",
                remedy=f"configure it, or run `{shown(statement)}`",
            )


def _columns(cursor: psycopg.Cursor, path: sql.Identifier) -> Mapping[str, Found]:
    cursor.execute(_COLUMNS, (shown(path),))
    return {
        name: Found(type=type, base=base, demanded=demanded)
        for name, type, base, demanded in cursor.fetchall()
    }


def _exists(cursor: psycopg.Cursor, path: sql.Identifier) -> bool:
    return _is(cursor, "select to_regclass(%s) is not null", shown(path))


def _is(cursor: psycopg.Cursor, query: str, parameter: str) -> bool:
    found = cursor.execute(query.encode(), (parameter,)).fetchone()
    return bool(found and found[0])


def _define(cursor: psycopg.Cursor, statement: sql.Composed) -> None:
    try:
        cursor.execute(statement, ())
    except psycopg.Error as error:
        if verdict(error.sqlstate) is not Verdict.CONFIG:
            raise
        raise ConfigError(
            f"PostgreSQL: {reason(error)} (SQLSTATE {error.sqlstate}).",
            remedy=f"mend what it names, or have somebody who may run `{shown(statement)}`",
        ) from None
