"""Find the columns of an existing table, so that a mirror without its state folder continues with them.

Newly inferred columns could differ, and would be empty in rows that are there already.
"""

from __future__ import annotations

from collections.abc import Mapping

from daemon.config.models import Config
from daemon.mirror.columns import WHOLE, to_definitions
from daemon.mirror.fit_columns import FITS
from pillows import registry
from pillows.transports.common.columns import RESERVED


def find_existing_columns(config: Config, target: str) -> Mapping[str, str] | None:
    """Return the columns of a mirror's table, as in a configuration.

    Args:
        config: configuration of a mirror into an SQL target.
        target: name of the target's connection.

    Returns:
        Column -> `"path type"`, empty if the table has the whole document alone; None if pillowd made no
        such table.

    Raises:
        PillowError: the table cannot be read.
    """
    (pillow,) = config.pillows.values()
    (output,) = pillow.transport[0].outputs.values()
    connection = config.connections[target]
    support = registry.transport(connection.type).mirror
    found = support.read_columns(connection.options, output) if support else {}
    if "_id" not in found:
        return None
    return to_definitions({name: type for name, type in found.items() if _is_ours(name, type)})


def _is_ours(name: str, type: str) -> bool:
    return name != WHOLE and name not in RESERVED and type in FITS
