"""Triggers: extract the document that a change speaks of, or that it is gone."""

from __future__ import annotations

from collections.abc import Callable

from pillows.models import Change, Document


class DocumentTrigger:
    """Takes the document that came with the change; fetches it where the feed did not bring it.

    Args:
        fetch: reads one document from the source; used only when the feed brought none.
    """

    def __init__(self, fetch: Callable[[Change], Document]) -> None:
        self._fetch = fetch

    def __call__(self, change: Change) -> Document:
        """The winning document of a change. One that was deleted has no body."""
        if change.body is None and not change.deleted:
            return self._fetch(change)
        return Document(
            id=change.id,
            rev=change.rev,
            version=change.version,
            deleted=change.deleted,
            raw=None if change.deleted else change.body,
            parsed=change.parsed,
        )
