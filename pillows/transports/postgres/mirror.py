"""PostgreSQL as a mirror's target."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace
from psycopg import ProgrammingError, conninfo

from pillows.errors import ConfigError
from pillows.redaction import STRAY_PASSWORD_REMEDY, redact_address
from pillows.transports.common.mirroring import TARGET_PASSWORD, Endpoint, MirrorSupport
from pillows.transports.postgres.open_connection import open_connection

_COLUMNS = """
    select attname, format_type(atttypid, atttypmod) from pg_attribute
    where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum
"""


class PostgresMirror(MirrorSupport):
    """A table in a PostgreSQL database."""

    SCHEMES: ClassVar[tuple[str, ...]] = ("postgresql", "postgres")
    FORM: ClassVar[str] = "postgresql://HOST/DATABASE"
    COLUMN_TYPES: ClassVar[Mapping[str, str]] = {"text": "text", "number": "numeric", "boolean": "boolean"}
    HAS_PASSWORD: ClassVar[bool] = True

    def parse(self, text: str) -> Endpoint:
        """Return the database; see `MirrorSupport.parse`. libpq's own parser knows every form of its URLs."""
        try:
            parts = conninfo.conninfo_to_dict(text)
        except ProgrammingError:  # its message may quote a piece of the password
            raise ConfigError(
                f"{redact_address(text)} is not a valid target.", remedy=f"write {self.FORM}"
            ) from None
        if "@" in str(parts.get("dbname") or ""):
            raise ConfigError(
                "The target has an `@` after its host.",
                remedy=f"{STRAY_PASSWORD_REMEDY}: {TARGET_PASSWORD}",
            )
        password = parts.pop("password", None)
        connection = {"type": "postgres", "dsn": conninfo.make_conninfo("", **parts)}
        if password is None:
            return Endpoint(connection=connection)
        connection["password"] = f"${{{TARGET_PASSWORD}}}"
        return Endpoint(connection=connection, secrets={TARGET_PASSWORD: str(password)})

    def trust(self, endpoint: Endpoint, ca_bundle: Path) -> Endpoint:
        """Return the endpoint with the certificates; the host name is verified unless the URL sets `sslmode`.

        See `MirrorSupport.trust`.
        """
        parts = {"sslmode": "verify-full"} | conninfo.conninfo_to_dict(endpoint.connection["dsn"])
        dsn = conninfo.make_conninfo("", **parts | {"sslrootcert": str(ca_bundle)})
        return replace(endpoint, connection={**endpoint.connection, "dsn": dsn})

    def make_output(self, name: str) -> Mapping[str, Any]:
        """Return a table of that name."""
        return {"table": name}

    def read_columns(self, connection: Any, output: Any) -> Mapping[str, str]:
        """Return the table's columns; see `MirrorSupport.read_columns`."""
        with closing(open_connection(connection, "pillowd mirror")) as database:
            path = f'"{connection.schema_}"."{output.table}"'  # a mirror's names need no escaping
            return dict(database.execute(_COLUMNS, (path,)).fetchall())
