"""Dead letters: list, retry and discard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.control.api import ControlApi


def list_dead_letters(
    api: ControlApi,
    *,
    key: str,
    source: str | None = None,
    id: Sequence[str] = (),
    limit: int = 1000,
    after: str = "",
) -> dict[str, Any]:
    """Return a page of a pillow's dead letters, oldest first; or all those of some documents."""
    tail = api.tails.known(key, source)
    if id:
        return {"dead_letters": api.dead_letters.show(tail, id), "next": None}
    return api.dead_letters.list_page(tail, after, limit)


def list_dead_letter_ids(
    api: ControlApi, *, key: str, transport: str, source: str | None = None, after: str = ""
) -> dict[str, Any]:
    """Return a page of ids, in order, of documents with a dead letter of a transport or of the pipeline."""
    return api.dead_letters.ids(api.tails.known(key, source), transport, after)


def retry_dead_letters(
    api: ControlApi, *, key: str, body: dict[str, Any], source: str | None = None
) -> dict[str, Any]:
    """Retry dead letters with the current revisions of their documents."""
    return api.dead_letters.retry(api.tails.known(key, source), body.get("ids"))


def discard_dead_letters(
    api: ControlApi, *, key: str, body: dict[str, Any], source: str | None = None
) -> dict[str, Any]:
    """Discard dead letters; the target lacks their documents until they change."""
    return api.dead_letters.discard(api.tails.known(key, source), body.get("ids"))
