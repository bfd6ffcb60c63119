"""Compare the targets of a pillow with its source now."""

from __future__ import annotations

from typing import Any

from daemon.control.api import ControlApi
from daemon.control.audit import Act
from daemon.errors import UnavailableError
from daemon.http.messages import Answer
from daemon.verification.comparisons import to_json


def verify_pillow(
    api: ControlApi, *, act: Act, key: str, body: dict[str, Any] | None = None, source: str | None = None
) -> Answer:
    """Start a comparison; if one is running, it starts after that."""
    tail = api.tails.supervised(key, source)
    if api.verification is None:
        raise UnavailableError(
            "the daemon is not running, or has no configuration file", remedy=f"`pillowd verify {key}`"
        )
    compare = api.verification.compare_now
    repair = bool((body or {}).get("repair"))
    started = api.operations.start(act, lambda _: to_json(compare(tail, repair=repair)))
    return Answer(status=202, body=started.to_json(), headers={"Location": f"/v1/operations/{started.id}"})
