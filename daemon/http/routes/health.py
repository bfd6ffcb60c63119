"""Liveness, readiness and version of the process, and its use of time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.control.api import ControlApi
from daemon.control.health import Check
from daemon.errors import UnavailableError
from daemon.http.contract import load_contract
from daemon.http.messages import Answer
from daemon.process.memory import measure_memory
from daemon.supervision.stacks import list_stacks

#: Greenlets of an answer.
MAX_GREENLETS = 1000


def get_livez(api: ControlApi, *, verbose: bool = False) -> Answer:
    """Answer `ok` while the supervisor ticks."""
    return _to_answer([] if api.health is None else api.health.live(), verbose=verbose)


def get_readyz(api: ControlApi, *, verbose: bool = False, strict: bool = False) -> Answer:
    """Answer `ok` when every pillow has tried once and none has failed."""
    if api.health is None:
        raise UnavailableError("the daemon is not running", remedy="`pillowd run`")
    return _to_answer(api.health.ready(api.snapshots.get().statuses, strict=strict), verbose=verbose)


def get_version(api: ControlApi) -> dict[str, Any]:
    """Return the versions of pillowd and its libraries, and the digest of the configuration."""
    return api.describe_version()


def list_greenlets(api: ControlApi) -> dict[str, Any]:
    """Return where each greenlet waits, those of pillows first."""
    del api
    stacks = list_stacks()
    shown = [
        {"name": each.name, "pillow": each.pillow, "stack": [line.rstrip() for line in each.lines]}
        for each in stacks[:MAX_GREENLETS]
    ]
    return {"greenlets": shown, "count": len(stacks)}


def get_memory(api: ControlApi) -> dict[str, Any]:
    """Return how much memory the process has, and which objects there are most of."""
    del api
    return measure_memory()


def get_openapi(api: ControlApi) -> dict[str, Any]:
    """Return the description of this API."""
    del api
    return load_contract().document


def _to_answer(checks: Sequence[Check], *, verbose: bool) -> Answer:
    is_well = all(check.passed for check in checks)
    lines = ["ok" if is_well else "failed"]
    if verbose:
        lines += [f"{'ok' if c.passed else 'failed'} {c.name}: {c.detail}" for c in checks]
    text = "\n".join(lines) + "\n"
    return Answer(status=200 if is_well else 503, body=text, media_type="text/plain")
