"""The statements that write rows into one output's table.

A batch is copied into a temporary table of texts, `_n` (the document's number in the batch), `_row`
(NULL: the document has no row here), `_id`, `_rev`, `_version` and the columns, and moved from there,
so that a value which does not fit its column fails in a statement that can be repeated for half of the
documents without sending them again.

Stored rows are looked up by scalar subqueries and arrays of ids, which force the planner to use the
index: joins with a table without statistics became hash joins that read the whole target (16 us per
document with 30,000 stored rows, where the index takes 2).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import psycopg
from psycopg import sql
from psycopg.abc import AdaptContext

from pillows.models import KEY_SEPARATOR
from pillows.transports.common.columns import Column
from pillows.transports.postgres.options import PostgresOutput


class Name(sql.Identifier):
    """An identifier that is safe in a statement with parameters, where psycopg reads `%`."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        """Return the quoted name."""
        return super().as_bytes(context).replace(b"%", b"%%")


def literal(text: str) -> sql.Literal:
    """Return a text that is safe in a statement with parameters."""
    return sql.Literal(text.replace("%", "%%"))


def join_commas(parts: Sequence[sql.Composable]) -> sql.Composed:
    """Return the parts, separated by commas."""
    return sql.SQL(", ").join(parts)


class Table:
    """One output's table.

    Args:
        number: of the table in the transport; part of the staging table's name.
        output: the output's name.
        options: its settings.
        schema: of tables without a schema, and of pillowd's own tables.
        source: of the documents; part of the key if the table is shared.
        connection: the source's connection, if documents of several databases come; see `Transport.share`.

    Attributes:
        path: `schema.table`.
        configured_path: the same as it is configured, which another build keeps.
        live_name: the configured name.
        build: the build that the table belongs to.
        shared: other sources write to the table too, so `_source` is part of its key.
        columns: picked out of a row; if there are none the whole row goes into `doc`.
        many: any number of rows per document.
        mark: the column that marks rows of deleted documents; empty if such rows are removed.
        derived: column -> its definition, for a column that the server fills: `_source`, out of the key.
        casts: column -> the type that its text is cast to. Set by `list_missing`.
        value_pattern: matches lines whose values fit their columns for certain; set together with `casts`.
        precheck_values: a value did not fit, so values are checked before they are written.
        tombstoned: `pillowd_document` may hold write versions of this table, so they have to be looked at.
    """

    def __init__(
        self,
        number: int,
        output: str,
        options: PostgresOutput,
        schema: str,
        source: str,
        *,
        connection: str | None = None,
    ) -> None:
        self.output = output
        self.schema = options.schema_ or schema
        self.name = options.table_name
        self.path = f"{self.schema}.{self.name}"
        self.live_name = options.table
        self.configured_path = f"{self.schema}.{self.live_name}"
        self.build = options.build
        self.many = options.many
        self.mark = options.mark
        self.shared = options.shared
        self.columns: Sequence[Column] = options.parsed
        self.derived = {} if connection is None else {"_source": _derive_source(connection)}
        self.casts: Mapping[str, str] = {}
        self.value_pattern = re.compile(b"")
        self.precheck_values = False
        self.tombstoned = True
        self.stage = f"pillowd_stage_{number}"
        self._names = {
            "table": Name(self.schema, self.name),
            "stage": Name("pg_temp", self.stage),
            "document": Name(schema, "pillowd_document"),
            "columns": join_commas([Name(name) for name in self.types]),
            "path": self._make_guard(Name(schema, "pillowd_build"), source),
            # A shared table is only ever looked at through its `_source`.
            "mine": sql.SQL("_source = {} and").format(literal(source)) if self.shared else sql.SQL(""),
            "key": sql.SQL("_source, _id" if self.shared else "_id"),
            "ids": sql.SQL("{}, _id").format(literal(source)) if self.shared else sql.SQL("_id"),
            "mark": Name(self.mark),
            "unmarked": sql.SQL("and {} is null").format(Name(self.mark)) if self.mark else sql.SQL(""),
        }

    def _make_guard(self, builds: Name, source: str) -> sql.Composable:
        """Return the guard, by which `pillowd_document` names the table; see `PostgresSwitch`."""
        if self.shared:  # it is never switched
            return literal(f"{self.path} {source}")
        # Looked up by each statement, once: another connection may switch the table at any time.
        return sql.SQL(
            "(select coalesce(max(b.guard), {path}) from {builds} b where b.output = {path})"
        ).format(path=literal(self.path), builds=builds)

    @property
    def types(self) -> Mapping[str, str]:
        """The configured columns and their types; `doc` where there are none."""
        return {column.name: column.type for column in self.columns} or {"doc": "jsonb"}

    @property
    def marks(self) -> Mapping[str, str]:
        """The column that marks rows of deleted documents, and its type; none if such rows are removed."""
        return {self.mark: "timestamptz"} if self.mark else {}

    @property
    def kept(self) -> Mapping[str, str]:
        """The columns that pillowd itself keeps, and their types."""
        key = {"_source": "text", "_id": "text"} if self.shared else {"_id": "text"}
        return key | ({"_row": "integer"} if self.many else {"_rev": "text", "_version": "bigint"})

    # -- copying

    @cached_property
    def copy_stage(self) -> bytes:
        """Takes lines of `_n`, `_row` and what `encode_rows` gives."""
        copy = self.compose("copy {stage} (_n, _row, _id, _rev, _version, {columns}) from stdin")
        return copy.replace(b"%%", b"%")  # COPY has no parameters

    @cached_property
    def copy_direct(self) -> bytes:
        """Takes lines as `encode_rows` gives them straight into the table."""
        copy = self.compose("copy {table} (_id, _rev, _version, {columns}) from stdin")
        return copy.replace(b"%%", b"%")

    # -- reading stored documents

    @cached_property
    def is_empty_query(self) -> bytes:
        """The query that returns whether the table has no row."""
        return self.compose("select not exists (select from {table} where {mine} true)")

    @cached_property
    def highest_version_query(self) -> bytes:
        """The query for the highest write version of all documents, with and without rows; null if none."""
        if self.many:
            return self.compose("select max(version) from {document} where output = {path}")
        return self.compose(
            "select greatest((select max(_version) from {table} where {mine} true),"
            " (select max(version) from {document} where output = {path}))"
        )

    @cached_property
    def has_versions_query(self) -> bytes:
        """The query that returns whether `pillowd_document` has a write version of this table."""
        return self.compose("select exists (select from {document} where output = {path})")

    @cached_property
    def has_version_of_query(self) -> bytes:
        """The query whether `pillowd_document` has a write version of one of the ids, its parameter."""
        return self.compose("select exists (select from {document} where output = {path} and _id = any(%s))")

    def stored(self, *, some: bool) -> bytes:
        """Return the query for a page of the documents that have rows: id, revision, write version.

        Args:
            some: of the documents `ids`, rather than those after the id `after`.
        """
        after = "_id > %(after)s and (%(before)s::text is null or _id < %(before)s)"
        which = sql.SQL("_id = any(%(ids)s)" if some else after)
        page = sql.SQL("" if some else "order by _id limit %(page)s")
        if not self.many:
            return self.compose(
                "select _id, _rev, _version from {table} where {mine} {which} {unmarked} {page}",
                which=which,
                page=page,
            )
        return self.compose(
            "select t._id, null, d.version from"
            " (select distinct _id from {table} where {mine} {which} {unmarked} {page}) t"
            " left join {document} d on d.output = {path} and d._id = t._id order by t._id",
            which=which,
            page=page,
        )

    @property
    def refusals(self) -> Sequence[bytes]:
        """The queries for staged documents that are refused: their numbers, and the stored write version."""
        if self.many:
            return [self._refusing_versions]
        return [self._refusing_rows, self._refusing_versions] if self.tombstoned else [self._refusing_rows]

    @cached_property
    def unstage(self) -> bytes:
        """Removes the documents whose numbers are its parameter from the staging table."""
        return self.compose("delete from {stage} where _n = any(%s)")

    # -- moving a range of staged documents; parameters `low`, `high`, `first_pass`, and `rowless`: numbers of
    # documents without rows in any output, whose rows are marked rather than removed

    def move(self, *, present: bool, gone: bool) -> Sequence[bytes]:
        """Return statements that replace the rows of documents `low` to `high` with the staged ones.

        Args:
            present: some of the documents have rows.
            gone: some of them have none.
        """
        if self.many:
            removal = [*([self._mark_many] if self.mark and gone else []), self._delete_many]
            return [self._store_versions, *removal, *([self._insert_many] if present else [])]
        statements = [self._upsert] if present else []
        if present and self.tombstoned:
            statements.append(self._forget_tombstones)
        if gone and self.mark:
            statements.append(self._mark)
        return [*statements, self._remove] if gone else statements

    @cached_property
    def _refusing_rows(self) -> bytes:
        return self.compose(
            "select _n, stored from (select _n, _version, (select t._version from {table} t"
            " where {mine} t._id = s._id) as stored from {stage} s) known where stored >= _version"
        )

    @cached_property
    def _refusing_versions(self) -> bytes:
        return self.compose(
            "select _n, stored from (select _n, _version, (select d.version from {document} d"
            " where d.output = {path} and d._id = s._id) as stored from {stage} s"
            " where coalesce(_row, 0) = 0) known where stored >= _version"
        )

    @cached_property
    def _upsert(self) -> bytes:
        settings = [sql.SQL("{0} = excluded.{0}").format(Name(name)) for name in self.types]
        settings += [sql.SQL("{} = null").format(Name(name)) for name in self.marks]
        return self.compose(
            "insert into {table} as t ({key}, _rev, _version, {columns})"
            " select {ids}, _rev, _version, {cast} from {stage}"
            " where _row is not null and _n between %(low)s and %(high)s"
            " on conflict ({key}) do update"
            " set _rev = excluded._rev, _version = excluded._version, {settings}"
            " where t._version < excluded._version",
            cast=self._cast(),
            settings=join_commas(settings),
        )

    @cached_property
    def _forget_tombstones(self) -> bytes:
        return self.compose(
            "delete from {document} where output = {path} and _id = any(array(select _id from {stage}"
            " where _row is not null and _n between %(low)s and %(high)s))"
        )

    @cached_property
    def _remove(self) -> bytes:
        # In a first pass, a document that was never stored needs no tombstone; an existing one keeps the
        # newest version.
        return self._leave(
            "removed as (delete from {table} where {mine} _id = any(array(select _id from gone))"
            " returning _id)",
            "not _n = any(%(rowless)s)",
            "true",
            "_id in (select _id from removed)",
        )

    @cached_property
    def _mark(self) -> bytes:
        # A marked row keeps the write version; without one, a tombstone does. The first mark stays.
        return self._leave(
            "removed as (update {table} t set {mark} = coalesce(t.{mark}, now()), _rev = g._rev,"
            " _version = g._version from gone g where {mine} t._id = g._id"
            " and t._id = any(array(select _id from gone)) returning t._id)",
            "_n = any(%(rowless)s)",
            "_id not in (select _id from removed)",
            "false",
        )

    def _leave(self, removal: str, marked: str, needs_tombstone: str, had_row: str) -> bytes:
        """Return the statement that takes documents without rows out of the table, and leaves tombstones."""
        return self.compose(
            "with gone as (select _id, _rev, _version from {stage}"
            " where _row is null and _n between %(low)s and %(high)s and {which}), {removal}"
            " insert into {document} as d (output, _id, version, deleted_at)"
            " select {path}, _id, _version, now() from gone where {needs_tombstone}"
            " and (not %(first_pass)s or {had_row}"
            " or exists (select from {document} o where o.output = {path} and o._id = gone._id))"
            " on conflict (output, _id) do update set version = excluded.version,"
            " deleted_at = excluded.deleted_at where d.version < excluded.version",
            removal=sql.SQL(removal).format(**self._names),
            which=sql.SQL(marked if self.mark else "true"),
            needs_tombstone=sql.SQL(needs_tombstone),
            had_row=sql.SQL(had_row),
        )

    @cached_property
    def _mark_many(self) -> bytes:
        return self.compose(
            "update {table} t set {mark} = coalesce(t.{mark}, now())"
            " where {mine} _id = any(array(select _id from {stage}"
            " where _row is null and _n between %(low)s and %(high)s and _n = any(%(rowless)s)))"
        )

    @cached_property
    def _store_versions(self) -> bytes:
        return self.compose(
            "insert into {document} as d (output, _id, version, deleted_at)"
            " select {path}, _id, _version, case when _row is null then now() end from {stage} s"
            " where coalesce(_row, 0) = 0 and _n between %(low)s and %(high)s"
            " and (_row is not null or not %(first_pass)s"
            " or exists (select from {document} o where o.output = {path} and o._id = s._id))"
            " on conflict (output, _id) do update set version = excluded.version,"
            " deleted_at = excluded.deleted_at where d.version < excluded.version"
        )

    @cached_property
    def _delete_many(self) -> bytes:
        return self.compose(
            "delete from {table} where {mine} _id = any(array(select _id from {stage}"
            " where {which} and _n between %(low)s and %(high)s))",
            which=sql.SQL(
                "(_row = 0 or (_row is null and not _n = any(%(rowless)s)))"
                if self.mark
                else "coalesce(_row, 0) = 0"
            ),
        )

    @cached_property
    def _insert_many(self) -> bytes:
        return self.compose(
            "insert into {table} ({key}, _row, {columns}) select {ids}, _row, {cast} from {stage}"
            " where _row is not null and _n between %(low)s and %(high)s",
            cast=self._cast(),
        )

    # -- the end of a pass

    @cached_property
    def sweep(self) -> bytes:
        """Removes or marks a page of rows with a write version below `floor` that are not `kept`.

        Of ids after `after`, and before `before` unless that is null. Gives the page's last id and how many
        rows went.
        """
        before = sql.SQL("and (%(before)s::text is null or _id < %(before)s)")
        if self.many:
            return self.compose(
                "with page as (select _id, version from {document} where output = {path} and _id > %(after)s"
                " {before} order by _id limit %(page)s),"
                " old as (delete from {document} d using page p where d.output = {path} and d._id = p._id"
                " and d.version < %(floor)s"
                " and not exists (select from unnest(%(kept)s::text[]) k (id) where k.id = p._id)"
                " returning d._id),"
                " swept as ({swept} where {mine} t._id = old._id {unmarked} returning 1)"
                " select (select max(_id) from page), (select count(*) from swept)",
                before=before,
                swept=self._compose_sweep("old"),
            )
        return self.compose(
            "with page as (select _id, _version from {table} where {mine} _id > %(after)s"
            " {before} order by _id limit %(page)s),"
            " swept as ({swept} where {mine} t._id = page._id and page._version < %(floor)s {unmarked}"
            " and not exists (select from unnest(%(kept)s::text[]) k (id) where k.id = page._id)"
            " returning 1)"
            " select (select max(_id) from page), (select count(*) from swept)",
            before=before,
            swept=self._compose_sweep("page"),
        )

    def _compose_sweep(self, other: str) -> sql.Composed:
        """Return the start of the statement that removes or marks rows that join with `other`."""
        how = (
            "update {table} t set {mark} = now() from {other}"
            if self.mark
            else "delete from {table} t using {other}"
        )
        return sql.SQL(how).format(other=sql.SQL(other), **self._names)

    @cached_property
    def forget(self) -> bytes:
        """Removes a page of write versions of deleted documents: below `floor`, or older than `seconds`."""
        return self.compose(
            "delete from {document} where (output, _id) in (select output, _id from {document}"
            " where output = {path} and deleted_at is not null and (version < %(floor)s"
            " or deleted_at < now() - make_interval(secs => %(seconds)s)) limit %(page)s)"
        )

    def _cast(self) -> sql.Composed:
        # Not to the full type: an explicit cast to varchar(3) would cut silently, assignment refuses.
        casts = [(Name(name), sql.SQL(self.casts.get(name, type))) for name, type in self.types.items()]
        return join_commas([sql.SQL("cast({} as {})").format(name, type) for name, type in casts])

    def compose(self, statement: str, **more: sql.Composable) -> bytes:
        """Return a statement with the table's names (`{table}`, `{stage}`, ...) and `more` filled in."""
        return sql.SQL(statement).format(**self._names, **more).as_bytes()


def _derive_source(connection: str) -> str:
    """Return the definition of a column with the source of a row whose `_id` is `database:id`."""
    beginning = literal(f"{connection}/").as_string()
    return f"text generated always as ({beginning} || split_part(_id, '{KEY_SEPARATOR}', 1)) stored"


def fetch_value(cursor: psycopg.Cursor, query: bytes) -> Any:
    """Run a query without parameters and return its only value; None if there is no row."""
    found = cursor.execute(query, ()).fetchone()
    return found[0] if found else None


def select_storable(cursor: psycopg.Cursor, texts: Sequence[str]) -> Sequence[str]:
    """Return the texts that the database's encoding has characters for; no row can hold the others."""
    server = cursor.connection.info.parameter_status("server_encoding") or "UTF8"
    if server in ("UTF8", "SQL_ASCII"):
        return texts
    try:
        codec = codecs.lookup(server.replace("WIN", "cp"))
    except LookupError:  # known to PostgreSQL alone
        return texts
    return [text for text in texts if _has_form(text, codec)]


def _has_form(text: str, codec: codecs.CodecInfo) -> bool:
    try:
        codec.encode(text)
    except UnicodeEncodeError:
        return False
    return True
