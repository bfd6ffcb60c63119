"""Rebuilds: begin and show one, switch, roll back, remove the other build."""

from __future__ import annotations

from typing import Any

from checkpoints import TailKey
from daemon.control.api import ControlApi
from daemon.http.durations import parse_seconds
from daemon.http.messages import Answer


def start_rebuild(
    api: ControlApi, *, key: str, source: str | None = None, body: dict[str, Any] | None = None
) -> Answer:
    """Begin to build new outputs of a pillow beside the live ones."""
    given = dict(body or {})
    if (keep := given.pop("keep", None)) is not None:
        given["keep_seconds"] = parse_seconds(keep)
    return Answer(status=202, body=api.rebuilds.start(_find(api, key, source), **given))


def get_rebuild(api: ControlApi, *, key: str, source: str | None = None) -> dict[str, Any]:
    """Return the state of a pillow's rebuild."""
    return api.rebuilds.get(_find(api, key, source))


def switch_rebuild(api: ControlApi, *, key: str, source: str | None = None) -> Answer:
    """Switch to the other build as soon as it is ready."""
    return Answer(status=202, body=api.rebuilds.switch(_find(api, key, source)))


def roll_back_rebuild(api: ControlApi, *, key: str, source: str | None = None) -> Answer:
    """Switch back to the former build."""
    return Answer(status=202, body=api.rebuilds.roll_back(_find(api, key, source)))


def cancel_rebuild(api: ControlApi, *, key: str, source: str | None = None) -> Answer:
    """Remove the build that was to become live."""
    return Answer(
        status=202,
        body=api.rebuilds.drop(_find(api, key, source), coming=True),
    )


def drop_rebuild(api: ControlApi, *, key: str, source: str | None = None) -> Answer:
    """Remove the former build."""
    return Answer(
        status=202,
        body=api.rebuilds.drop(_find(api, key, source), coming=False),
    )


def _find(api: ControlApi, key: str, source: str | None) -> TailKey:
    return api.tails.supervised(key, source, of_one_database=True)
