"""Decide which documents the feed includes, and which are left to worker processes."""

from __future__ import annotations

from daemon.assembly.prefilters import Prefilter
from daemon.config.models import PillowConfig
from pillows.models import Change


class LeftToWorkers:
    """Wants no document while workers run: they fetch documents over connections of their own.

    This only saves time. If workers end or cannot be started, the daemon processes the change itself, and its
    pipeline fetches the document.

    Args:
        otherwise: decides while no workers run.

    Attributes:
        workers: how many run.
    """

    def __init__(self, otherwise: Prefilter) -> None:
        self.workers = 0
        self._otherwise = otherwise

    def __call__(self, change: Change) -> bool:
        """Return whether a change's document is wanted with the feed."""
        return not self.workers and (self._otherwise is None or self._otherwise(change))


def choose_documents(settings: PillowConfig, prefilter: Prefilter) -> Prefilter:
    """Return the function that decides which documents the feed includes.

    Args:
        settings: the pillow's.
        prefilter: the check that the filter can make before documents are fetched.
    """
    apart = settings.source.documents == "bulk_get"
    if settings.isolate:  # a filter may be a function of the user: it is called in a worker only
        return (lambda _: False) if apart or prefilter is not None else None
    return LeftToWorkers(prefilter) if apart and settings.load.workers else prefilter
