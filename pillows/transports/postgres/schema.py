"""Create missing tables and columns, and refuse existing ones that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import psycopg
from msgspec import Struct
from psycopg import sql

from pillows.errors import ConfigError
from pillows.transports.postgres.errors import SqlstateVerdict, classify_sqlstate, get_redacted_message
from pillows.transports.postgres.statements import Name, Table, fetch_value, join_commas, literal
from pillows.transports.postgres.value_patterns import make_value_pattern

#: Advisory lock for starts that create the same tables ("pillowd" as a number).
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
    # `guard` names the output in `pillowd_document`: it goes with the table when that changes its name.
    "pillowd_build": sql.SQL(
        'create table {} (output text collate "C" primary key, build integer not null,'
        ' guard text collate "C" not null)'
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
        attnotnull and not (atthasdef or attidentity <> ''), atthasdef or attidentity <> ''
    from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped
"""


class ColumnInfo(Struct, frozen=True, kw_only=True):
    """A column in the server.

    Attributes:
        type: its full type, as the server spells it.
        base: its type without length or precision.
        required: it is not null and has no default, so every insert needs a value.
        fills_itself: it has a default, or is generated.
    """

    type: str
    base: str
    required: bool
    fills_itself: bool


def create_missing(cursor: psycopg.Cursor, tables: Sequence[Table], schema: str) -> None:
    """Create missing tables and add missing columns.

    Args:
        cursor: in a transaction, so that all or nothing happens.
        tables: the outputs' tables; their `casts` are set.
        schema: of pillowd's own tables.

    Raises:
        ConfigError: a table does not fit, or we may not create it; the remedy has the statement to run.
    """
    cursor.execute("select pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
    for statement in list_missing(cursor, tables, schema):
        _run_definition(cursor, statement)


def list_missing(cursor: psycopg.Cursor, tables: Sequence[Table], schema: str) -> list[sql.Composed]:
    """Return the statements that create missing tables and columns, in order, without running them.

    Args:
        cursor: in a transaction.
        tables: the outputs' tables; their `casts` are set.
        schema: of pillowd's own tables.

    Raises:
        ConfigError: an existing table does not fit, or a configured type is unknown.
    """
    statements = [
        sql.SQL("create schema {}").format(Name(name))
        for name in sorted({schema, *(table.schema for table in tables)})
        if not _query_bool(cursor, "select exists (select from pg_namespace where nspname = %s)", name)
    ]
    statements += [
        statement.format(Name(schema, name), document=Name(schema, "pillowd_document"))
        for name, statement in _OWN.items()
        if not _exists(cursor, Name(schema, name))
    ]
    builds = Name(schema, "pillowd_build")
    for table in tables:
        statements += _list_missing_of(cursor, table)
        if table.build.live or is_build(cursor, builds, table.path):
            continue
        if _exists(cursor, Name(table.schema, table.name)):
            raise ConfigError(
                f"Table {table.path} exists, and is not a build of {table.configured_path}.",
                remedy=f"rename it: build {table.build.number} needs its name; or drop it if it is unused",
            )
        statements.append(_register(builds, table))
    return statements


def is_build(cursor: psycopg.Cursor, builds: Name, path: str) -> bool:
    """Return whether a table was made as a build of another one.

    Args:
        cursor: in a transaction.
        builds: the path of `pillowd_build`, which may be missing.
        path: of the table.
    """
    if not _exists(cursor, builds):
        return False
    query = sql.SQL("select exists (select from {} where output = {})").format(builds, literal(path))
    return bool(fetch_value(cursor, query.as_bytes()))


def table_exists(cursor: psycopg.Cursor, schema: str, name: str) -> bool:
    """Return whether there is a table of that name."""
    return _exists(cursor, Name(schema, name))


def create_stages(cursor: psycopg.Cursor, tables: Iterable[Table], *, transient: bool) -> None:
    """Create the staging tables. EXTERNAL: short-lived rows need no compression.

    Args:
        cursor: on a new connection, or in a transaction.
        tables: the outputs' tables.
        transient: drop them at the end of the transaction.
    """
    at_commit = sql.SQL("drop" if transient else "delete rows")
    for table in tables:
        names = [Name(name) for name in table.types]
        cursor.execute(
            sql.SQL(
                "create temporary table {} (_n integer not null, _row integer, _id text not null,"
                " _rev text, _version bigint not null, {}) on commit {}"
            ).format(
                Name(table.stage),
                join_commas([sql.SQL("{} text").format(name) for name in names]),
                at_commit,
            ),
            (),
        )
        external = [sql.SQL("alter column {} set storage external").format(name) for name in names]
        cursor.execute(
            sql.SQL("alter table {} {}").format(Name("pg_temp", table.stage), join_commas(external)), ()
        )


def to_text(statement: sql.Composable) -> str:
    """Return a statement as an operator would type it."""
    return statement.as_string().replace("%%", "%")


def _list_missing_of(cursor: psycopg.Cursor, table: Table) -> list[sql.Composed]:
    path = Name(table.schema, table.name)
    wanted = _get_wanted(cursor, table)
    table.casts = {name: wanted[name].base for name in table.types}
    table.value_pattern = make_value_pattern({name: wanted[name].type for name in table.types})
    if not _exists(cursor, path):
        return [_make_creation(table)] if table.build.live else _copy_definition(cursor, table, wanted)
    found = _get_columns(cursor, path)
    statements = []
    for name, column in wanted.items():
        if name in found:
            _check_type(table, name, found[name], column)
        elif name in table.types or name in table.marks:
            addition = sql.SQL("alter table {} add column {}")
            statements.append(addition.format(path, _define_column(table, name)))
        else:
            raise ConfigError(
                f"Table {table.path} has no column {name}, so pillowd did not create it for such an output.",
                remedy="choose another table, or drop this one",
            )
    _check_required(table, found, wanted)
    return statements


def _copy_definition(
    cursor: psycopg.Cursor, table: Table, wanted: Mapping[str, ColumnInfo]
) -> list[sql.Composed]:
    """Return the statements that create another build's table, empty, on the model of the live one.

    It gets the indexes, checks, defaults and comments that were added to the live table, except those on
    columns that it does not have.
    """
    path, live = Name(table.schema, table.name), Name(table.schema, table.live_name)
    found = _get_columns(cursor, live)
    if any(name not in found or found[name].type != wanted[name].type for name in table.kept):
        return [_make_creation(table)]  # there is none, or of another kind
    changes = [
        sql.SQL("drop column {}").format(Name(name))
        for name, column in found.items()
        if name not in wanted and not column.fills_itself
    ]
    for name, column in wanted.items():
        if name not in found:
            changes.append(sql.SQL("add column {}").format(_define_column(table, name)))
        elif found[name].type != column.type:
            type = sql.SQL(column.type)
            changes.append(sql.SQL("alter column {0} type {1} using null::{1}").format(Name(name), type))
    statements = [sql.SQL("create table {} (like {} including all)").format(path, live)]
    if changes:
        statements.append(sql.SQL("alter table {} {}").format(path, join_commas(changes)))
    return statements


def _register(builds: Name, table: Table) -> sql.Composed:
    """Return the statement that gives the table of another build a guard that no table ever had."""
    return sql.SQL(
        "insert into {builds} values ({path}, {number},"
        " {path} || ' ' || substr(md5(random()::text || clock_timestamp()::text), 1, 8))"
        " on conflict (output) do update set build = excluded.build, guard = excluded.guard"
    ).format(builds=builds, path=literal(table.path), number=sql.Literal(table.build.number))


def _make_creation(table: Table) -> sql.Composed:
    # Ids are compared as bytes: that is faster, and an upgrade of the locale cannot reorder the index.
    kept = [
        sql.SQL("{} {} not null").format(
            Name(name), sql.SQL(f'{type} collate "C"' if name in ("_source", "_id") else type)
        )
        for name, type in table.kept.items()
    ]
    keys = [name for name in table.kept if name not in ("_rev", "_version")]
    key = sql.SQL("primary key ({})").format(sql.SQL(", ".join(keys)))
    columns = [_define_column(table, name) for name in (*table.derived, *table.types, *table.marks)]
    return sql.SQL("create table {} ({})").format(
        Name(table.schema, table.name), join_commas([*kept, *columns, key])
    )


def _define_column(table: Table, name: str) -> sql.Composed:
    definitions = {**table.kept, **table.derived, **table.types, **table.marks}
    return sql.SQL("{} {}").format(Name(name), sql.SQL(definitions[name]))


def _get_wanted(cursor: psycopg.Cursor, table: Table) -> Mapping[str, ColumnInfo]:
    """Return the configured columns as the server spells them, from a temporary table."""
    columns = [
        _define_column(table, name) for name in (*table.kept, *table.derived, *table.types, *table.marks)
    ]
    shape = sql.SQL("create temporary table pillowd_shape ({})").format(join_commas(columns))
    _run_definition(cursor, shape)
    found = _get_columns(cursor, Name("pg_temp", "pillowd_shape"))
    cursor.execute("drop table pg_temp.pillowd_shape")
    return found


def _check_type(table: Table, name: str, found: ColumnInfo, wanted: ColumnInfo) -> None:
    if found.type == wanted.type:
        return
    statement = sql.SQL("alter table {} alter column {} type {} using {}::{}").format(
        Name(table.schema, table.name), Name(name), sql.SQL(wanted.type), Name(name), sql.SQL(wanted.type)
    )
    raise ConfigError(
        f"Column {name} of {table.path} is {found.type}; {wanted.type} is configured.",
        remedy=f"run `{to_text(statement)}`, or configure {found.type}",
    )


def _check_required(table: Table, found: Mapping[str, ColumnInfo], wanted: Mapping[str, ColumnInfo]) -> None:
    for name, column in found.items():
        if column.required and name not in wanted:
            statement = sql.SQL("alter table {} alter column {} drop not null").format(
                Name(table.schema, table.name), Name(name)
            )
            raise ConfigError(
                f"Column {name} of {table.path} must not be null, and is not among the configured columns.",
                remedy=f"configure it, or run `{to_text(statement)}`",
            )


def _get_columns(cursor: psycopg.Cursor, path: sql.Identifier) -> Mapping[str, ColumnInfo]:
    cursor.execute(_COLUMNS, (to_text(path),))
    return {
        name: ColumnInfo(type=type, base=base, required=required, fills_itself=fills_itself)
        for name, type, base, required, fills_itself in cursor.fetchall()
    }


def _exists(cursor: psycopg.Cursor, path: sql.Identifier) -> bool:
    return _query_bool(cursor, "select to_regclass(%s) is not null", to_text(path))


def _query_bool(cursor: psycopg.Cursor, query: str, parameter: str) -> bool:
    found = cursor.execute(query.encode(), (parameter,)).fetchone()
    return bool(found and found[0])


def _run_definition(cursor: psycopg.Cursor, statement: sql.Composed) -> None:
    try:
        cursor.execute(statement, ())
    except psycopg.Error as error:
        if classify_sqlstate(error.sqlstate) is not SqlstateVerdict.CONFIG:
            raise
        raise ConfigError(
            f"PostgreSQL: {get_redacted_message(error)} (SQLSTATE {error.sqlstate}).",
            remedy=f"correct it, or have somebody with the privilege run `{to_text(statement)}`",
        ) from None
