"""SQLite as a mirror's target."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from pillows.errors import ConfigError
from pillows.transports.common.mirroring import Endpoint, MirrorSupport
from pillows.transports.sqlite.errors import to_pillow_error

#: How SQLite's types are written in a configuration; `any` has numbers, `integer` booleans.
_CONFIGURED = {"TEXT": "text", "ANY": "any", "INTEGER": "integer", "REAL": "double precision"}


class SqliteMirror(MirrorSupport):
    """A table in an SQLite file."""

    SCHEMES: ClassVar[tuple[str, ...]] = ("sqlite",)
    FORM: ClassVar[str] = "sqlite:///FILE"
    COLUMN_TYPES: ClassVar[Mapping[str, str]] = {"text": "text", "number": "any", "boolean": "integer"}

    def parse(self, text: str) -> Endpoint:
        """Return the file; see `MirrorSupport.parse`."""
        path = unquote(text.removeprefix("sqlite:///"))
        if not text.startswith("sqlite:///") or not path:
            raise ConfigError(
                f"{text} does not name a file.",
                remedy="write sqlite:///FILE, or sqlite:////PATH for one from the root",
            )
        file = Path(path).absolute()
        return Endpoint(connection={"type": "sqlite", "path": str(file)}, folder=file.parent)

    def make_output(self, name: str) -> Mapping[str, Any]:
        """Return a table of that name."""
        return {"table": name}

    def read_columns(self, connection: Any, output: Any) -> Mapping[str, str]:
        """Return the table's columns; see `MirrorSupport.read_columns`."""
        if not connection.path.exists():
            return {}
        query = "select name, type from pragma_table_info(?)"
        try:
            with closing(sqlite3.connect(connection.path, timeout=connection.busy_timeout)) as database:
                rows = database.execute(query, (output.table,)).fetchall()
        except sqlite3.Error as error:
            raise to_pillow_error(error, connection.path) from error
        return {name: _CONFIGURED.get(type.upper(), type) for name, type in rows}
