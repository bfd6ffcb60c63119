"""Send chosen documents through a pillow again, while it follows its feed."""

from __future__ import annotations

from typing import Any

from daemon.backfill.backfills import make_selection
from daemon.control.api import ControlApi
from daemon.http.messages import Answer


def list_backfills(api: ControlApi, *, key: str | None = None, source: str | None = None) -> dict[str, Any]:
    """Return the backfills of a pillow, or of all, oldest first."""
    tail = None if key is None else api.tails.known(key, source)
    return {"backfills": [api.backfills.to_json(each) for each in api.backfills.list(tail)]}


def start_backfill(api: ControlApi, *, key: str, body: dict[str, Any], source: str | None = None) -> Answer:
    """Start a backfill; it waits for those of the pillow that were started before."""
    selection = make_selection(body)
    tail = api.tails.of_one_database(key, source)
    started = api.backfills.start(tail, selection, body.get("ids", ()), more=bool(body.get("more")))
    location = {"Location": f"/v1/backfills/{started.id}"}
    return Answer(status=201, body=api.backfills.to_json(started), headers=location)


def get_backfill(api: ControlApi, *, id: str) -> dict[str, Any]:
    """Return a backfill with its progress."""
    return api.backfills.to_json(api.backfills.get(id))


def add_backfill_ids(api: ControlApi, *, id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Add ids to a backfill that was started with `more`."""
    return api.backfills.to_json(api.backfills.add_ids(id, body["ids"], last=not body.get("more")))


def retry_backfill(api: ControlApi, *, id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a range of an ended backfill again."""
    return api.backfills.to_json(api.backfills.retry(id, body["range"]))


def cancel_backfill(api: ControlApi, *, id: str) -> dict[str, Any]:
    """Cancel a backfill; documents already sent are not undone."""
    return api.backfills.to_json(api.backfills.cancel(id))
