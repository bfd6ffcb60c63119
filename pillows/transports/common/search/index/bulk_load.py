"""The settings of an index while its first pass fills it. Pure.

Without refreshes and copies the server indexes a document once, and writes fewer and larger segments
(https://www.elastic.co/docs/deploy-manage/production-guidance/optimize-performance/indexing-speed). The
values that were in effect before are kept in the index's `_meta`, so they can be put back after any crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COPIES = "index.number_of_replicas"

#: The settings of a first pass.
LOADING: Mapping[str, Any] = {"index.refresh_interval": "-1", _COPIES: 0}


def keep_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values to put back: setting -> value, None for one that the server's default gives.

    Args:
        settings: of the index, dotted.
    """
    # Then the server itself sets the number of copies.
    expands = settings.get("index.auto_expand_replicas", "false") != "false"
    return {name: settings.get(name) for name in LOADING if not (expands and name == _COPIES)}


def split_settings(
    settings: Mapping[str, Any], kept: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide changed settings into those to apply now, and those to put back later.

    Args:
        settings: what the configuration changes.
        kept: the values to put back; empty if the index is not being loaded.
    """
    now = {name: value for name, value in settings.items() if name not in kept}
    return now, {**kept, **{name: value for name, value in settings.items() if name in kept}}
