"""Find the decisions that a filter can make before documents are fetched."""

from __future__ import annotations

from collections.abc import Callable

from pillows.models import Change
from pillows.stages.filters import Filter, KeepAll

#: Returns whether the feed should include a change's document; None: always.
Prefilter = Callable[[Change], bool] | None


def make_prefilter(filter: Filter) -> Prefilter:
    """Return the check that a filter can make before documents are fetched; None if it needs documents."""
    if filter.needs_document or isinstance(filter, KeepAll):
        return None
    return lambda change: not change.deleted and filter(change)
