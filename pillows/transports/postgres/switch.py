"""Two builds of tables in PostgreSQL change names, with their guards and the checkpoints of their tails.

One transaction renames the tables, and in `pillowd_build` and `pillowd_checkpoint` whatever goes with them.
What remembers the versions of deleted documents (`pillowd_document`) names a table by its guard, which goes
with the table: so its rows, which may be millions, are not touched.

A rename needs a lock that excludes readers, and later readers queue behind a waiting lock request: one long
report would block all readers of the table. So the request waits only for a moment, for all tables together,
and the caller tries again later. Everything else is done before; the locks, the renames and the commit are
one message.

Objects that refer to a table still refer to it after a rename: a view would show the old build forever. So
every such object is an obstacle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg
from psycopg import sql

from checkpoints import TailKey
from pillows.errors import ConfigError
from pillows.transports.common.builds import BuildSwitch, Exchange, name_table, require_live
from pillows.transports.postgres.connection import ServerConnection
from pillows.transports.postgres.options import PostgresConnection
from pillows.transports.postgres.schema import create_missing, is_build, table_exists
from pillows.transports.postgres.statements import Name, Table, fetch_value, join_commas, literal

#: How long all locks together are waited for: readers wait behind.
LOCK_SECONDS = 0.1
#: For a lock that keeps no reader out. The server ends an automatic VACUUM that is in our way only after
#: `deadlock_timeout`, 1 s.
_SHARED_LOCK_SECONDS = 3.0
#: How long a copy of all rows, or the removal of a build, may take.
_LONG_SECONDS = 6 * 3600.0
#: Rows per second that are copied within the server. Measured, with one index: 60,000 to 90,000.
_COPIED_ROWS_A_SECOND = 60_000
#: The longest name of a table that pillowd can put a number behind, in bytes.
_NAME_BYTES = 63

# `pg_describe_object` gives names such as "constraint orders_case_fkey on table orders". A view depends on
# the table through its rule.
_DEPENDENTS = """
    select distinct case when r.rulename = '_RETURN'
        then case c.relkind when 'm' then 'materialized view ' else 'view ' end || r.ev_class::regclass::text
        else pg_describe_object(d.classid, d.objid, 0) end
    from pg_depend d
    left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    left join pg_class c on c.oid = r.ev_class
    left join pg_constraint k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid and k.contype = 'f'
    left join pg_trigger t on d.classid = 'pg_trigger'::regclass and t.oid = d.objid and not t.tgisinternal
    where d.refclassid = 'pg_class'::regclass and d.refobjid = %(table)s::regclass and (
        r.oid is not null or k.oid is not null or t.oid is not null or d.classid in
        ('pg_policy'::regclass, 'pg_publication_rel'::regclass, 'pg_proc'::regclass))
    union all select 'publication ' || pubname || ' of all tables' from pg_publication where puballtables
    union all select 'table ' || inhrelid::regclass::text || ', which inherits'
        from pg_inherits where inhparent = %(table)s::regclass
    union all select 'table ' || inhparent::regclass::text || ', which it is a part of'
        from pg_inherits where inhrelid = %(table)s::regclass
    union all select 'row-level security' from pg_class where oid = %(table)s::regclass and relrowsecurity
    order by 1
"""
# Since PostgreSQL 15.
_SCHEMA_PUBLICATIONS = """
    select 'publication ' || p.pubname || ' of its schema' from pg_publication_namespace n
    join pg_publication p on p.oid = n.pnpubid
    where n.pnnspid = (select relnamespace from pg_class where oid = %(table)s::regclass)
"""
# A table that is referred to can't be emptied, not even in a transaction that fills it again.
_REFERENCES = """
    select pg_describe_object('pg_constraint'::regclass, oid, 0) from pg_constraint
    where contype = 'f' and confrelid = %(table)s::regclass
"""
_GRANTS = """
    select format('grant %%s on %%s to %%s%%s', g.privilege_type, %(to)s::text,
        case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
        case when g.is_grantable then ' with grant option' else '' end)
    from pg_class c, aclexplode(c.relacl) g
    where c.oid = %(from)s::text::regclass and g.grantee <> c.relowner
    union all
    select format('grant %%s (%%I) on %%s to %%s', g.privilege_type, a.attname, %(to)s::text,
        case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end)
    from pg_attribute a, aclexplode(a.attacl) g, pg_attribute b
    where a.attrelid = %(from)s::text::regclass and b.attrelid = %(to)s::text::regclass
        and b.attname = a.attname and not b.attisdropped
"""
_OWNER = """
    select quote_ident(pg_get_userbyid(a.relowner)) from pg_class a, pg_class b
    where a.oid = %(from)s::regclass and b.oid = %(to)s::regclass and a.relowner <> b.relowner
"""


class PostgresSwitch(BuildSwitch):
    """Lets two builds of tables change names.

    Args:
        key: of the tail.
        connection: the database.
        tables: the outputs; see `BuildSwitch`.
    """

    def __init__(self, key: TailKey, connection: PostgresConnection, tables: Sequence[Table]) -> None:
        self._key = key
        self._connection = connection
        self._tables = tables
        self._builds = Name(connection.schema_, "pillowd_build")
        self._document = Name(connection.schema_, "pillowd_document")
        self._checkpoint = Name(connection.schema_, "pillowd_checkpoint")

    def list_obstacles(self, *, copies: bool = False) -> Sequence[str]:
        """Return what refers to a table, by name; see `BuildSwitch.list_obstacles`."""
        with self._transaction() as cursor:
            return self._find_obstacles(cursor, copies=copies)

    def estimate_copy_seconds(self) -> float:
        """Return how long a copy takes, by the number of rows that the server estimates."""
        with self._transaction() as cursor:
            rows = 0
            for table in self._tables:
                found = cursor.execute(
                    "select greatest(reltuples, 0)::bigint from pg_class where oid = to_regclass(%s)",
                    (_to_text(table.schema, table.live_name),),
                ).fetchone()
                rows += found[0] if found else 0
            return rows / _COPIED_ROWS_A_SECOND

    def exchange(self, exchange: Exchange, *, copies: bool = False) -> None:
        """Exchange the names in one transaction; see `BuildSwitch.exchange`."""
        require_live((table.build for table in self._tables), live=True)
        with self._transaction() as cursor:
            if all(self._get_build(cursor, table) == exchange.incoming for table in self._tables):
                return
            if obstacles := self._find_obstacles(cursor, copies=copies):
                raise ConfigError(f"{'; '.join(obstacles)}.")
            for table in self._tables:
                self._require_build(cursor, table, exchange.incoming)
            if copies:
                self._copy_rows(cursor, exchange)
                self._hand_over(cursor, exchange, copies=True)
            else:
                self._prepare(cursor, exchange)
                self._hand_over(cursor, exchange, copies=False)
                self._rename_and_commit(cursor, exchange)

    def drop(self) -> None:
        """Drop the tables of a build, its guards and its tail's checkpoint; see `BuildSwitch.drop`."""
        require_live((table.build for table in self._tables), live=False)
        with self._transaction() as cursor:
            for table in self._tables:
                if not is_build(cursor, self._builds, table.path):
                    continue  # gone already; a table of that name is somebody else's
                for statement in (  # the guard's rows, the guard, the table
                    "delete from {document} d using {builds} b where d.output = guard and b.output = {path}",
                    "delete from {builds} where output = {path}",
                    "drop table if exists {table}",
                ):
                    names = {"builds": self._builds, "document": self._document, "path": literal(table.path)}
                    made = sql.SQL(statement).format(**names, table=Name(table.schema, table.name))
                    cursor.execute(made, ())
            self._delete_checkpoint(cursor, self._key)

    # -- an exchange

    def _require_build(self, cursor: psycopg.Cursor, table: Table, number: int) -> None:
        """Refuse to make a table live that only has the name of a build."""
        path = f"{table.schema}.{_park(table, number)}"
        if not is_build(cursor, self._builds, path):
            raise ConfigError(
                f"{path} is not a build of {table.configured_path}.",
                remedy="`pillowd rebuild cancel KEY`, and rebuild again",
            )

    def _prepare(self, cursor: psycopg.Cursor, exchange: Exchange) -> None:
        """Take the steps for which no reader of the live tables waits: lock the others, copy privileges."""
        live = [Name(table.schema, table.live_name) for table in self._tables]
        incoming = [Name(table.schema, _park(table, exchange.incoming)) for table in self._tables]
        self._set_lock_timeout(cursor, _SHARED_LOCK_SECONDS)
        lock = sql.SQL("lock table {} in share update exclusive mode")
        cursor.execute(lock.format(join_commas([*live, *incoming])), ())
        self._set_lock_timeout(cursor, LOCK_SECONDS)
        cursor.execute(sql.SQL("lock table {} in access exclusive mode").format(join_commas(incoming)), ())
        for table in self._tables:
            names = table.live_name, _park(table, exchange.incoming)
            self._copy_privileges(cursor, *(_to_text(table.schema, name) for name in names))

    def _rename_and_commit(self, cursor: psycopg.Cursor, exchange: Exchange) -> None:
        """Lock the live tables against everybody, rename, and commit: in one message.

        While the lock is held, other sessions never wait for this process, even if it is busy or suspended.
        """
        lock_ms = max(1, round(LOCK_SECONDS * 1000 / len(self._tables)))
        statements = [sql.SQL("set local lock_timeout = {}").format(sql.Literal(lock_ms))]
        for table in self._tables:
            path = Name(table.schema, table.live_name)
            statements.append(sql.SQL("lock table {} in access exclusive mode").format(path))
        for table in self._tables:
            live = table.live_name
            names = (live, _park(table, exchange.outgoing)), (_park(table, exchange.incoming), live)
            for before, after in names:
                rename = sql.SQL("alter table {} rename to {}")
                statements.append(rename.format(Name(table.schema, before), Name(after)))
        cursor.execute(sql.SQL("; ").join([*statements, sql.SQL("commit")]), ())

    def _copy_privileges(self, cursor: psycopg.Cursor, live: str, incoming: str) -> None:
        names = {"from": live, "to": incoming}
        for (owner,) in cursor.execute(_OWNER, names).fetchall():
            cursor.execute(f"alter table {incoming} owner to {owner}".replace("%", "%%").encode(), ())
        for (grant,) in cursor.execute(_GRANTS, names).fetchall():
            cursor.execute(grant.replace("%", "%%").encode(), ())

    def _copy_rows(self, cursor: psycopg.Cursor, exchange: Exchange) -> None:
        """Replace the rows of the live tables by those of the others, which are dropped."""
        self._set_lock_timeout(cursor, LOCK_SECONDS)
        cursor.execute(f"set local statement_timeout = '{_LONG_SECONDS:.0f}s'".encode())
        paths = [Name(table.schema, table.live_name) for table in self._tables]
        cursor.execute(sql.SQL("lock table {} in access exclusive mode").format(join_commas(paths)), ())
        create_missing(cursor, self._tables, self._connection.schema_)
        for table, path in zip(self._tables, paths, strict=True):
            columns = join_commas([Name(name) for name in (*table.kept, *table.types, *table.marks)])
            incoming = Name(table.schema, _park(table, exchange.incoming))
            cursor.execute(sql.SQL("truncate {}").format(path), ())
            copy = sql.SQL("insert into {} ({columns}) select {columns} from {}")
            cursor.execute(copy.format(path, incoming, columns=columns), ())
            cursor.execute(sql.SQL("drop table {}").format(incoming), ())

    def _hand_over(self, cursor: psycopg.Cursor, exchange: Exchange, *, copies: bool) -> None:
        """Give both builds' guards and their tails' checkpoints the other names."""
        for table in self._tables:
            live = literal(table.configured_path)
            names = {
                "builds": self._builds,
                "document": self._document,
                "live": live,
                "incoming": literal(f"{table.schema}.{_park(table, exchange.incoming)}"),
                "parked": literal(f"{table.schema}.{_park(table, exchange.outgoing)}"),
                "outgoing_number": sql.Literal(exchange.outgoing),
                "incoming_number": sql.Literal(exchange.incoming),
            }
            outgoing = ["update {builds} set output = {parked} where output = {live}"]
            if copies:  # it is gone
                outgoing = [
                    "delete from {document} d using {builds} b where d.output = guard and b.output = {live}",
                    "delete from {builds} where output = {live}",
                ]
            for statement in (
                "insert into {builds} values ({live}, {outgoing_number}, {live}) on conflict do nothing",
                "delete from {builds} where output = {parked}",
                *outgoing,
                "update {builds} set output = {live}, build = {incoming_number} where output = {incoming}",
            ):
                cursor.execute(sql.SQL(statement).format(**names), ())
        self._delete_checkpoint(cursor, exchange.parked)
        if copies:
            self._delete_checkpoint(cursor, exchange.key)
        else:
            self._name_checkpoint(cursor, exchange.key, exchange.parked)
        self._name_checkpoint(cursor, exchange.shadow, exchange.key)

    def _name_checkpoint(self, cursor: psycopg.Cursor, before: TailKey, after: TailKey) -> None:
        statement = sql.SQL(
            "update {} set pillow = %(after)s where pillow = %(before)s and source = %(source)s"
        )
        names = {"before": before.pillow, "after": after.pillow, "source": before.source}
        cursor.execute(statement.format(self._checkpoint), names)

    def _delete_checkpoint(self, cursor: psycopg.Cursor, key: TailKey) -> None:
        statement = sql.SQL("delete from {} where pillow = %s and source = %s").format(self._checkpoint)
        cursor.execute(statement, (key.pillow, key.source))

    def _get_build(self, cursor: psycopg.Cursor, table: Table) -> int:
        query = sql.SQL("select build from {} where output = {}")
        return fetch_value(cursor, query.format(self._builds, literal(table.configured_path)).as_bytes()) or 1

    # -- obstacles

    def _find_obstacles(self, cursor: psycopg.Cursor, *, copies: bool) -> list[str]:
        found = []
        by_schema = fetch_value(cursor, b"select to_regclass('pg_publication_namespace') is not null")
        queries = [_REFERENCES] if copies else [_DEPENDENTS, *([_SCHEMA_PUBLICATIONS] if by_schema else [])]
        for table in self._tables:
            if table.shared:
                found.append(f"{table.path} is shared with other sources, whose rows would go, too")
            elif not table_exists(cursor, table.schema, table.live_name):
                found.append(f"{table.configured_path} does not exist: let the pillow run first")
            elif len(_park(table, 99).encode()) > _NAME_BYTES:
                found.append(f"the name {table.live_name} is too long for a number behind it")
            else:
                parameters = {"table": _to_text(table.schema, table.live_name)}
                for query in queries:
                    names = [name for (name,) in cursor.execute(query.encode(), parameters).fetchall()]
                    found += [f"{name} hangs on {table.configured_path}" for name in names]
        return found

    # -- shared

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor]:
        patient = self._connection.model_copy(
            update={"write_timeout": _LONG_SECONDS, "statement_timeout": _LONG_SECONDS}
        )
        application = f"pillowd rebuild {self._key}"
        server = ServerConnection(patient, application=application, prepare=lambda *_: None)
        with closing(server), server.transaction() as cursor:
            yield cursor

    def _set_lock_timeout(self, cursor: psycopg.Cursor, seconds: float) -> None:
        cursor.execute(f"set local lock_timeout = '{max(1, round(seconds * 1000))}ms'".encode())


def _park(table: Table, number: int) -> str:
    """Return the name of an output's table in a build that is not live."""
    return name_table(table.live_name, number)


def _to_text(schema: str, name: str) -> str:
    """Return a path as `regclass` reads it."""
    return sql.Identifier(schema, name).as_string()
