"""Send documents again, as they are now, through the ordinary pipeline.

The tail must not run meanwhile. What a target does not have, or has in an older version, is written as
the feed would have it written: copies of the source that lag cannot bring an older state over a newer one.
What a target refuses is re-checked as any refusal is (`pillows.delivery.stale_writes`): only what the
source says three times to be older than the target has it is written under a raised epoch. So is
what the target has in the very version of the source, since it differs all the same: a row
that was altered, or one that was lost while the target remembers its version.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Carries given documents in place of the feed.

    Args:
        settings: the tail's.
        services: the tail's.
        ids: the documents.
        halt: ends the retries of what is unreachable.
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
        with self._run.open() as pipeline:
            for start in range(0, len(self._ids), _FETCHED):
                read = partial(self._run.feed.current, self._ids[start : start + _FETCHED])
                changes = self._run.retrier.retry_write("source", read)
                pipeline.carry([ChangeBatch(changes=changes, seq=None)], lambda _: None)
