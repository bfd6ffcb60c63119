"""The columns of a table that is there already: a mirror without memory goes on with them.

Whoever lost the state folder, or names another one, still has the table. Columns inferred anew would be
others, and rows written before would have nothing in them.
"""

from __future__ import annotations

from collections.abc import Mapping

from daemon.config.models import Config
from daemon.mirror.columns import WHOLE, described
from daemon.mirror.fit_columns import FITS
from pillows import registry
from pillows.transports.common.columns import RESERVED


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
    connection = config.connections[target]
    support = registry.transport(connection.type).mirror
    found = support.read_columns(connection.options, output) if support else {}
    if "_id" not in found:
        return None
    return described({name: type for name, type in found.items() if _is_ours(name, type)})


def _is_ours(name: str, type: str) -> bool:
    return name != WHOLE and name not in RESERVED and type in FITS
