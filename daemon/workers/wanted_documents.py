"""Which documents the feed brings along, and which are left to worker processes."""

from __future__ import annotations

from daemon.assembly.feeds import Prefilter
from daemon.config.models import PillowConfig
from pillows.models import Change


class LeftToWorkers:
    """Wants no document while workers run: they fetch documents over connections of their own.

    This only saves time. A change that was read without its document may still be carried here, when
    workers end or cannot be started: then the pipeline fetches it.

    Args:
        otherwise: what is wanted while none run.

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
    """Return which documents the feed brings along.

    Args:
        settings: the pillow's.
        prefilter: what its filter can decide before documents are fetched.
    """
    apart = settings.source.documents == "bulk_get"
    if settings.isolate:  # a filter may be a function of the user: it is called in a worker only
        return (lambda _: False) if apart or prefilter is not None else None
    return LeftToWorkers(prefilter) if apart and settings.load.workers else prefilter
