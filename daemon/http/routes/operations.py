"""Work that takes longer than a request: start it, and ask about it."""

from __future__ import annotations

from typing import Any

from daemon.control.api import ControlApi
from daemon.control.audit import Act
from daemon.http.durations import parse_wait
from daemon.http.messages import Answer


def repair_documents(
    api: ControlApi, *, act: Act, key: str, body: dict[str, Any], source: str | None = None
) -> Answer:
    """Send documents through the pipeline of a pillow again; it stops meanwhile."""
    tail = api.tails.configured(key, source)
    api.repair.check()
    started = api.operations.start(act, lambda _: api.repair.repair(tail, body["ids"]))
    return Answer(status=202, body=started.to_json(), headers={"Location": f"/v1/operations/{started.id}"})


def list_operations(api: ControlApi) -> dict[str, Any]:
    """Return the operations that run, and the last ones that have ended, oldest first."""
    return {"operations": [each.to_json() for each in api.operations.list()]}


def get_operation(api: ControlApi, *, id: str, wait: str = "") -> dict[str, Any]:
    """Return an operation; with `wait`, once it has ended or when the time is up."""
    seconds = parse_wait(wait) if wait else 0.0
    return api.operations.get(id, wait_seconds=seconds).to_json()
