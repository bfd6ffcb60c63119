"""The audit log: who asked for which operation."""

from __future__ import annotations

from typing import Any

from daemon.control.api import ControlApi


def list_audit(api: ControlApi, *, limit: int = 1000, after: str = "") -> dict[str, Any]:
    """Return a page of the audit log, oldest line first."""
    lines, place = api.audit.read(after, limit)
    return {"audit": lines, "next": place if lines else None}
