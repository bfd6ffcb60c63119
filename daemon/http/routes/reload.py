"""Reload the configuration, or describe the changes of a reload."""

from __future__ import annotations

from typing import Any

from daemon.control.api import ControlApi
from daemon.errors import UnavailableError
from daemon.reload.reloader import Reloaded, Reloader, summarize


def reload_config(api: ControlApi) -> dict[str, Any]:
    """Put the configuration into effect, and return the changes."""
    return _to_json(_require(api).reload())


def validate_config(api: ControlApi) -> dict[str, Any]:
    """Return the changes that a reload would make."""
    return _to_json(_require(api).validate())


def _require(api: ControlApi) -> Reloader:
    if api.reloader is None:
        raise UnavailableError("the daemon is not running", remedy="`pillowd run` reads the configuration")
    return api.reloader


def _to_json(reloaded: Reloaded) -> dict[str, Any]:
    return {**summarize(reloaded.difference), "notes": list(reloaded.notes)}
