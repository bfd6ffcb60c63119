"""Sends documents again, as they are now, through the ordinary pipeline.

The tail must not run meanwhile. What a target does not have, or has in an older version, is written as
the feed would have it written: copies of the source that lag cannot bring an older state over a newer one.
What a target refuses is looked at as any refusal is (`pillows.delivery.stale_writes`): only what the
source says three times to be older than the target has it is written under a raised epoch. So is
what the target has in the very version of the source, since it differs all the same: a row
that was altered, or one that was lost while the target remembers its version.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from gevent.event import Event

from pillows.models import ChangeBatch
from pillows.pillow import Pipeline
from pillows.progress.checkpointer import Checkpointer
from pillows.progress.watermark import Watermark
from pillows.runtime.tail_run import TailRun
from pillows.runtime.tail_settings import TailSettings

#: Documents that are fetched at once.
_FETCHED = 200


class Repair(TailRun):
    """A run that carries given documents in place of the feed.

    Args:
        plan: of the tail.
        ids: the documents.
        halt: ends the tries at a place that is away.
    """

    _believes_equal = False

    def __init__(self, plan: TailSettings, ids: Sequence[str], *, halt: Event) -> None:
        super().__init__(
            plan,
            halt=halt,
            tick=lambda: None,
            on_retry=lambda _where, _error: None,
            on_batch=lambda _batch: None,
            on_advance=lambda _advance: None,
        )
        self._ids = ids

    def _carry(self, stack: ExitStack, keeper: Checkpointer) -> None:
        watermark = Watermark()
        pusher = self._pusher(keeper, watermark)
        stack.callback(pusher.kill)
        pipeline = Pipeline(
            self._plan.pillow,
            trigger=self._plan.pillow.trigger(self.feed.fetch, self.feed.attachment),
            pusher=pusher,
            watermark=watermark,
            observer=self._observer,
            tail=self._plan.key,
        )
        for start in range(0, len(self._ids), _FETCHED):
            ids = self._ids[start : start + _FETCHED]
            changes = self._retrier.tries("source").until_done(partial(self.feed.current, ids))
            pipeline.carry([ChangeBatch(changes=changes, seq=None)], lambda _: None)
        pusher.finish()
        if self._trouble is not None:
            raise self._trouble
        keeper.save()
