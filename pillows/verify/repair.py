"""Send documents again, in their current state, through the ordinary pipeline.

The tail must not run meanwhile. A document that a target lacks, or holds in an older version, is written as
usual: a lagging copy of the source cannot replace a newer state by an older one. Refused documents are
re-checked (`pillows.delivery.stale_writes`): a document is written under a raised epoch if the source reports
three times that it is older than the target's. A document that a target holds in the source's own version is
rewritten the same way: it was compared as different, so its row was altered, or lost while its version was
kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from gevent.event import Event

from pillows.models import ChangeBatch
from pillows.observer import Observer
from pillows.runtime.tail_monitor import TailMonitor
from pillows.runtime.tail_run import TailRun
from pillows.runtime.tail_settings import TailServices, TailSettings

#: Documents that are fetched at once.
_FETCHED = 200


class DocumentRepair:
    """Delivers given documents in place of the feed's.

    Args:
        settings: the tail's.
        services: the tail's.
        ids: the documents.
        halt: ends the retries of unreachable servers.
    """

    def __init__(
        self, settings: TailSettings, services: TailServices, ids: Sequence[str], *, halt: Event
    ) -> None:
        monitor = TailMonitor(settings.key, services.clock, Observer())
        self._run = TailRun(settings, services, monitor, halt=halt, trust_equal=False)
        self._ids = ids

    def run(self) -> None:
        """Send the documents, and save the checkpoint.

        Raises:
            FatalError: the tail cannot run.
            StoppedError: `halt` was set while something was retried.
        """
        with self._run.open() as pipeline, ExitStack() as stack:
            self._run.build_carrier(stack, pipeline).carry(self._read(), lambda _: None)

    def _read(self) -> Iterator[ChangeBatch]:
        for start in range(0, len(self._ids), _FETCHED):
            read = partial(self._run.feed.current, self._ids[start : start + _FETCHED])
            changes = self._run.retrier.retry_write("source", read)
            yield ChangeBatch(changes=changes, seq=None)
