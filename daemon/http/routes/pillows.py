"""The state of pillows; pause, resume, stop and restart."""

from __future__ import annotations

from typing import Any

from daemon.control.api import ControlApi
from daemon.control.audit import Actor


def list_pillows(
    api: ControlApi, *, by: Actor, state: str | None = None, limit: int = 1000, after: str = ""
) -> dict[str, Any]:
    """Return the state of the daemon and a page of its pillows."""
    found = api.pillows.list_page(state=state, limit=limit, after=after)
    return found | {"pillows": [_for(by, pillow) for pillow in found["pillows"]]}


def get_pillow(api: ControlApi, *, by: Actor, key: str, source: str | None = None) -> dict[str, Any]:
    """Return the state of one pillow."""
    return _for(by, api.pillows.get(key, source))


def _for(by: Actor, pillow: dict[str, Any]) -> dict[str, Any]:
    """Return a state as the asker may see it: a token is a position in data, and not for everybody."""
    return pillow | {"seq": None} if by.via == "http" else pillow
