"""Backfills of one of many databases, which run in its turns."""

from __future__ import annotations

from collections.abc import Callable

from checkpoints import TailKey
from daemon.backfill.backfills import Backfills
from daemon.backfill.carrier import BackfillSource
from pillows.runtime.document_sender import DocumentSender


class TurnBackfill:
    """Runs the backfills of a database for one turn. The next turn continues them.

    Args:
        backfills: the backfills of all tails.
        key: the database's tail.
        source: of that tail.
        is_over: returns whether the turn should end; asked after each range.

    Attributes:
        is_running: whether the turn has to continue for the backfill.
    """

    def __init__(
        self, backfills: Backfills, key: TailKey, source: BackfillSource, is_over: Callable[[], bool]
    ) -> None:
        self.is_running = True
        self._backfills = backfills
        self._key = key
        self._source = source
        self._is_over = is_over

    def run(self, sender: DocumentSender) -> None:
        """Run the backfills.

        Raises:
            OSError, StoreError: a file can't be written or read.
            FatalError: the pillow's pipeline can't continue.
            StoppedError: the turn was ended.
        """
        try:
            self._backfills.run_all(self._key, self._source, sender, is_over=self._is_over)
        finally:
            self.is_running = False
