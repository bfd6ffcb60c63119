"""What an operator may set for PostgreSQL."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, Field, model_validator

from pillows.options import Duration, Options, Secret, SecretAddress
from pillows.transports.common.addresses import to_host_address
from pillows.transports.common.columns import TableOutput

#: Longer names are cut by the server (`NAMEDATALEN` - 1), so that two of ours could become one.
NAME_BYTES = 63


def _connection_string(dsn: SecretAddress) -> SecretAddress:
    try:
        conninfo_to_dict(dsn.get_secret_value())
    except psycopg.ProgrammingError:
        # libpq's own message may quote the part with the password.
        raise ValueError(
            "is no connection string, such as postgresql://user@host:5432/database or host=/run/postgresql"
        ) from None
    return dsn


def _name(name: str) -> str:
    if not name.strip() or "\0" in name or len(name.encode()) > NAME_BYTES:
        raise ValueError(f"{name!r} cannot be a name; use 1 to {NAME_BYTES} bytes, none of them NUL")
    return name


def _names(columns: dict[str, str]) -> dict[str, str]:
    for column in columns:
        _name(column)
    return columns


#: The name of a schema, table or column, as it is: case counts, any character is allowed.
Name = Annotated[str, AfterValidator(_name)]


class PostgresConnection(Options):
    """A PostgreSQL database.

    Attributes:
        dsn: libpq's connection string or URL; TLS, several hosts and the like are its own parameters.
        password: goes before one in the dsn.
        schema_: where tables are that name none, and `pillowd_checkpoint` and `pillowd_document`.
        connect_timeout: how long connecting may take.
        statement_timeout: how long the server works on one statement.
        lock_timeout: how long a statement waits for another session's lock.
        write_timeout: how long one batch may take in all, on our own clock.
        tombstone_ttl: how long a deleted document's version is remembered.
    """

    dsn: Annotated[SecretAddress, AfterValidator(_connection_string)]
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
        table, columns, many: see `TableOutput`.
        schema_: the table's schema; the connection's unless given.
        shared: pillows on other sources write to the table too: `_source` becomes part of its key.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("schema", "table")

    table: Name
    columns: Annotated[dict[str, str], AfterValidator(_names)] = Field(default_factory=dict)
    schema_: Name | None = Field(None, alias="schema")
    shared: bool = False

    @property
    def is_per_source(self) -> bool:
        """Whether the table is shared; see `OutputOptions.is_per_source`."""
        return self.shared

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        """The table in its database, by each of the hosts in the dsn; see `OutputOptions.addresses`."""
        table = (self.schema_ or connection.schema_, self.table)
        return frozenset((*database, *table) for database in _databases(connection))

    @model_validator(mode="after")
    def _leaves_source_alone(self) -> Self:
        if self.shared and "_source" in self.columns:
            raise ValueError("column '_source' is pillowd's own in a shared table; give yours another name")
        return self


def _databases(connection: PostgresConnection) -> list[tuple[str, ...]]:
    """Server, port and database of every host in a dsn, as far as it says them (libpq, 34.1.2)."""
    given = conninfo_to_dict(connection.dsn.get_secret_value())
    hosts = str(given.get("hostaddr") or given.get("host") or "").split(",")
    ports = str(given.get("port") or "5432").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    name = str(given.get("dbname") or given.get("user") or "")
    return [
        ("postgres", to_host_address(host), port or "5432", name)
        for host, port in zip(hosts, ports, strict=True)
    ]
