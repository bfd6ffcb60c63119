"""A PostgreSQL database as the tests see it: read and disturbed by connections of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from checkpoints import TailKey
from pillows.transports.postgres.options import PostgresConnection, PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from tests.conformance.target import KEY, Target
from tests.servers.postgres import Postgres
from tests.servers.tcp_proxy import Fault, TcpProxy

OUTPUTS = {
    "docs": PostgresOutput(table="docs"),
    "other": PostgresOutput(table='Other "docs" %s'),
    "typed": PostgresOutput(table="typed", columns={"n": "n integer"}),
    "lines": PostgresOutput(table="lines", many=True, schema="child rows"),
}

#: SQLSTATEs that a busy server answers with; a trigger raises them in its place.
BUSY_STATES = {
    "deadlock": "40P01",
    "serialization": "40001",
    "disk-full": "53100",
    "out-of-memory": "53200",
    "too-many-connections": "53300",
    "read-only": "25006",
    "internal": "XX000",
}


def options(dsn: str, **more: Any) -> PostgresConnection:
    """A connection's options."""
    return PostgresConnection.model_validate({"dsn": dsn} | more)


def address(dsn: str) -> tuple[str, int]:
    """Where the server listens."""
    parts = conninfo_to_dict(dsn)
    return str(parts.get("host", "127.0.0.1")), int(parts.get("port") or 5432)


def through(proxy: TcpProxy, dsn: str) -> str:
    """The same database through a proxy, without TLS, so that the proxy sees the protocol."""
    return make_conninfo(dsn, host="127.0.0.1", port=proxy.port, sslmode="disable")


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


class PostgresDatabase(Target):
    """One database.

    Args:
        dsn: where it is.
        proxy: a proxy before the server, through which transports connect.
        server: the server, where the test may restart it.
        outputs: the outputs that transports are given, by name.
        more: settings of the connections.
    """

    transactional = True
    tells_others = True
    busy_faults = ("locked", "away", *BUSY_STATES)
    cut_places = ("before", "in-copy", "before-commit", "after-commit", "reset")

    def __init__(
        self,
        dsn: str,
        *,
        proxy: TcpProxy | None = None,
        server: Postgres | None = None,
        outputs: Mapping[str, PostgresOutput] = OUTPUTS,
        **more: Any,
    ) -> None:
        self.dsn = dsn
        self.proxy = proxy
        self.server = server
        self.outputs = outputs
        self.more = more

    def transport(self, *outputs: str, key: TailKey = KEY, **more: Any) -> PostgresTransport:
        dsn = through(self.proxy, self.dsn) if self.proxy else self.dsn
        return PostgresTransport(
            "warehouse", key, options(dsn, **self.more | more), {o: self.outputs[o] for o in outputs}
        )

    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        many = self.outputs[output].many
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.query(f"select * from {self.table(output)} order by _id{', _row' if many else ''}"):
            row.pop("_row", None)
            row.pop("_source", None)
            found.setdefault(row["_id"], []).append(row.get("doc", row))
        return found

    def write_version(self, output: str, id: str) -> int | None:
        table = self.outputs[output]
        path = f"{table.schema_ or 'public'}.{table.table}{f' {KEY.source}' if table.shared else ''}"
        found = self.query("select version from pillowd_document where output = %s and _id = %s", path, id)
        if not table.many:
            found += self.query(f"select _version as version from {self.table(output)} where _id = %s", id)
        assert len(found) <= 1, "one guard a document"
        return found[0]["version"] if found else None

    def table(self, output: str) -> str:
        """An output's table, quoted, for a query with parameters."""
        table = self.outputs[output]
        path = f"{quoted(table.schema_ or 'public')}.{quoted(table.table)}"
        return path.replace("%", "%%")

    def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Runs a statement in its own connection and gives its rows."""
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def open_connections(self) -> int:
        found = self.query(
            "select count(*) as n from pg_stat_activity"
            " where datname = current_database() and application_name like 'pillowd %%'"
        )
        return found[0]["n"]

    def running(self) -> list[str]:
        """Returns the statements that the transports' sessions run now."""
        found = self.query(
            "select query from pg_stat_activity where datname = current_database()"
            " and application_name like 'pillowd %%' and state = 'active'"
        )
        return [row["query"] for row in found]

    def restart(self) -> None:
        assert self.server
        self.server.restart()

    @contextmanager
    def busy(self, fault: str) -> Iterator[None]:
        if fault == "locked":
            with psycopg.connect(self.dsn) as connection:
                connection.execute("lock table docs in access exclusive mode")
                yield
        elif fault == "away":
            assert self.proxy
            with self.proxy.refusing():
                yield
        else:
            with self.raising("docs", BUSY_STATES[fault]):
                yield

    @contextmanager
    def raising(self, table: str, sqlstate: str) -> Iterator[None]:
        """While open, every insert into a table is answered with that SQLSTATE."""
        self.query(
            "create function fail() returns trigger language plpgsql as"
            f" $$ begin raise exception 'as the test wishes' using errcode = '{sqlstate}'; end $$"
        )
        self.query(f"create trigger failing before insert on {table} for each row execute function fail()")
        try:
            yield
        finally:
            self.query("drop function fail() cascade")

    @contextmanager
    def cut(self, place: str) -> Iterator[None]:
        assert self.proxy
        faults = {
            "before": Fault(kind="cut", direction="to_server", after_bytes=0),
            "in-copy": Fault(kind="cut", direction="to_server", after_text=b"from stdin"),
            "before-commit": Fault(kind="reset", direction="to_server", after_text=b"release savepoint"),
            "after-commit": Fault(kind="cut", direction="to_client", after_text=b"COMMIT"),
            "reset": Fault(kind="reset", direction="to_client", after_text=b"SAVEPOINT"),
        }
        self.proxy.fail(faults[place])
        with suppress(OSError):
            self.proxy.cut()
        yield
