"""The columns of a table that is there already: a mirror without memory goes on with them.

Whoever lost the state folder, or names another one, still has the table. Columns inferred anew would be
others, and rows written before would have nothing in them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from daemon.config.models import Config
from daemon.mirror.columns import WHOLE, described
from daemon.mirror.fit_columns import FITS
from pillows.transports.common.columns import RESERVED
from pillows.transports.sqlite.errors import translated

#: How SQLite's types are written in a configuration; `any` has numbers, `integer` booleans.
_SQLITE = {"TEXT": "text", "ANY": "any", "INTEGER": "integer", "REAL": "double precision"}

_POSTGRES = """
    select attname, format_type(atttypid, atttypmod) from pg_attribute
    where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum
"""


def standing_columns(config: Config, target: str) -> Mapping[str, str] | None:
    """The columns of a mirror's table, as a configuration has them.

    Args:
        config: of a mirror into an SQL target that can be connected to.
        target: the target's connection.

    Returns:
        Column -> `"path type"`, empty where the table has the whole document alone; None where there
        is no table that pillowd made.

    Raises:
        PillowError: the table cannot be looked at.
    """
    (pillow,) = config.pillows.values()
    (output,) = pillow.transport[0].outputs.values()
    connection: Any = config.connections[target]
    found = _READERS[connection.type](connection.options, output)
    if "_id" not in found:
        return None
    return described({name: type for name, type in found.items() if _is_ours(name, type)})


def _is_ours(name: str, type: str) -> bool:
    return name != WHOLE and name not in RESERVED and type in FITS


def _sqlite(options: Any, output: Any) -> dict[str, str]:
    if not options.path.exists():
        return {}
    query = "select name, type from pragma_table_info(?)"
    try:
        with closing(sqlite3.connect(options.path, timeout=options.busy_timeout)) as database:
            rows = database.execute(query, (output.table,)).fetchall()
    except sqlite3.Error as error:
        raise translated(error, options.path) from error
    return {name: _SQLITE.get(type.upper(), type) for name, type in rows}


def _postgres(options: Any, output: Any) -> dict[str, str]:
    from pillows.transports.postgres.connection import connect  # noqa: PLC0415  only where that is the target

    with closing(connect(options, "pillowd mirror")) as connection:
        path = f'"{options.schema_}"."{output.table}"'  # a mirror's names need no escaping
        return dict(connection.execute(_POSTGRES, (path,)).fetchall())


_READERS: Mapping[str, Callable[[Any, Any], dict[str, str]]] = {"sqlite": _sqlite, "postgres": _postgres}
