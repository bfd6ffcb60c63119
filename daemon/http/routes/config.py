"""The configuration in effect."""

from __future__ import annotations

from typing import Any

from daemon.control.api import ControlApi


def get_config(api: ControlApi) -> dict[str, Any]:
    """Return every setting, with defaults filled in and secrets masked."""
    return api.dump_config()
