"""Checkpoints: show, set, rewind, reset, import.

An edit names the state that it changes by `If-Match`, so only one of two simultaneous edits succeeds.
"""

from __future__ import annotations

import re
from typing import Any

from daemon.control.api import ControlApi
from daemon.control.checkpoints import Expected
from daemon.errors import InvalidRequestError, UnconditionalEditError
from daemon.http.messages import Answer


def get_checkpoint(api: ControlApi, *, key: str, source: str | None = None) -> Answer:
    """Return the checkpoint of a pillow; its `ETag` is the generation."""
    found = api.checkpoints.get(api.tails.known(key, source))
    return Answer(body=found, headers={"ETag": _format_etag(found)})


def list_checkpoints(api: ControlApi, *, orphans: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Return the saved checkpoints, or only those of pillows that are not configured."""
    return {"checkpoints": api.checkpoints.list_all(orphans=orphans)}


def list_checkpoint_history(
    api: ControlApi, *, key: str, source: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the earlier positions of a pillow, newest first."""
    return {"history": api.checkpoints.history(api.tails.known(key, source))}


def edit_checkpoint(
    api: ControlApi, *, key: str, body: dict[str, Any], source: str | None = None, if_match: str = ""
) -> Answer:
    """Set a pillow to a position, rewind it, or restore an exported checkpoint."""
    expected = _parse_etag(if_match)
    tail = api.tails.known(key, source)
    if "seq" in body:
        edited = api.checkpoints.set_seq(tail, body["seq"], expected)
    elif "to" in body:
        saved_before = None if body["to"] == "beginning" else body["to"]
        edited = api.checkpoints.rewind(tail, saved_before, expected)
    else:
        edited = api.checkpoints.import_(tail, body["exported"], expected)
    return Answer(body=edited, headers={"ETag": _format_etag(edited)})


def reset_checkpoint(api: ControlApi, *, key: str, source: str | None = None, if_match: str = "") -> Answer:
    """Read the whole source of a pillow again, in a new pass that rewrites every row."""
    edited = api.checkpoints.reset(api.tails.known(key, source), _parse_etag(if_match))
    return Answer(body=edited, headers={"ETag": _format_etag(edited)})


def _format_etag(checkpoint: dict[str, Any]) -> str:
    return f'"{checkpoint["generation"]}"'


def _parse_etag(if_match: str) -> Expected:
    """Return the generation that an edit expects; None for `*`, which accepts any.

    Raises:
        UnconditionalEditError: there is no `If-Match`.
        InvalidRequestError: the header is not the `ETag` of a checkpoint.
    """
    if not if_match:
        raise UnconditionalEditError(
            "an edit needs `If-Match`, so that it cannot undo another client's edit",
            remedy='send the `ETag` of GET, `"0"` if there is no checkpoint yet, or `*` for any state',
        )
    if if_match == "*":
        return None
    found = re.fullmatch(r'"([0-9]{1,18})"', if_match)
    if found is None:
        remedy = "send it with its quotes"
        raise InvalidRequestError("`If-Match` is not the `ETag` of a checkpoint", remedy=remedy)
    return int(found[1])
