"""Settings of a PostgreSQL database, and of one table in it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, Field, model_validator

from pillows.options import Duration, Options, Secret, SecretAddress
from pillows.redaction import STRAY_PASSWORD_REMEDY
from pillows.transports.common.addresses import to_host_address
from pillows.transports.common.columns import TableOutput

#: The server cuts longer names (`NAMEDATALEN` - 1), so two of ours could become one.
NAME_BYTES = 63


def _check_dsn(dsn: SecretAddress) -> SecretAddress:
    try:
        database = conninfo_to_dict(dsn.get_secret_value()).get("dbname") or ""
    except psycopg.ProgrammingError:
        # libpq's own message may quote the part with the password.
        raise ValueError(
            "is not a connection string, such as postgresql://user@host:5432/database or host=/run/postgresql"
        ) from None
    if "://" in dsn.get_secret_value() and "@" in str(database):
        # libpq has cut the URL at a `/` of the password: its host is a piece of it.
        raise ValueError(f"has an `@` after its host; {STRAY_PASSWORD_REMEDY}, in `password`")
    return dsn


def _check_name(name: str) -> str:
    if not name.strip() or "\0" in name or len(name.encode()) > NAME_BYTES:
        raise ValueError(f"{name!r} is not a valid name; use 1 to {NAME_BYTES} bytes without NUL")
    return name


def _check_names(columns: dict[str, str]) -> dict[str, str]:
    for column in columns:
        _check_name(column)
    return columns


#: The name of a schema, table or column: case counts, and any character is allowed.
Name = Annotated[str, AfterValidator(_check_name)]


class PostgresConnection(Options):
    """A PostgreSQL database.

    Attributes:
        dsn: libpq's connection string or URL, with its parameters for TLS, several hosts and so on.
        password: overrides one in the dsn.
        schema_: schema of tables without one, and of `pillowd_checkpoint` and `pillowd_document`.
        connect_timeout: longest time to open a connection.
        statement_timeout: longest time of one statement, in the server.
        lock_timeout: longest wait for another session's lock.
        write_timeout: longest time of one batch in all, on our own clock.
        tombstone_ttl: how long a deleted document's version is remembered.
    """

    dsn: Annotated[SecretAddress, AfterValidator(_check_dsn)]
    password: Secret | None = None
    schema_: Name = Field("public", alias="schema")
    connect_timeout: Duration = 10.0
    statement_timeout: Duration = 60.0
    lock_timeout: Duration = 10.0
    write_timeout: Duration = 120.0
    tombstone_ttl: Duration = 30 * 86400.0


class PostgresOutput(TableOutput):
    """One output that is a table.

    Attributes:
        table, columns, many, deletes, deleted_column: see `TableOutput`.
        schema_: the table's schema; the connection's unless given.
        shared: pillows on other sources write to the table, too; `_source` becomes part of its key.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("schema", "table")

    table: Name
    columns: Annotated[dict[str, str], AfterValidator(_check_names)] = Field(default_factory=dict)
    schema_: Name | None = Field(None, alias="schema")
    shared: bool = False

    @property
    def is_per_source(self) -> bool:
        """Whether the table is shared; see `OutputOptions.is_per_source`."""
        return self.shared

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        """Return the table's address, with its database, for each host in the dsn.

        See `OutputOptions.addresses`.
        """
        table = (self.schema_ or connection.schema_, self.table_name)
        return frozenset((*database, *table) for database in _list_databases(connection))

    @model_validator(mode="after")
    def _check_source_column(self) -> Self:
        if self.shared and "_source" in self.columns:
            raise ValueError("column '_source' is reserved in a shared table; give yours another name")
        return self


def _list_databases(connection: PostgresConnection) -> list[tuple[str, ...]]:
    """Return type, host, port and database for every host in a dsn (libpq, 34.1.2)."""
    given = conninfo_to_dict(connection.dsn.get_secret_value())
    hosts = str(given.get("hostaddr") or given.get("host") or "").split(",")
    ports = str(given.get("port") or "5432").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    name = str(given.get("dbname") or given.get("user") or "")
    return [
        ("postgres", to_host_address(host), port or "5432", name)
        for host, port in zip(hosts, ports, strict=True)
    ]
