"""Replay recorded `_changes` responses from files: for previews, tests and the bench."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import gevent
from gevent.event import Event

from checkpoints import Seq
from pillows.clock import Clock, SystemClock
from pillows.errors import InvalidSeqError, PermanentError
from pillows.feed.base import SIGN_OF_LIFE, TICK_SECONDS, DatabaseIdentity
from pillows.feed.batch_cutter import BatchCutter
from pillows.feed.parsing.changes_parser import ChangesParser, ContinuousParser, PageParser
from pillows.models import Change, ChangeBatch, Document

_BLOCK_BYTES = 65536


class RecordedFeed:
    """Recorded responses, read in sequence as pages of one database.

    Bodies of `feed=normal`, `longpoll` and `continuous` are distinguished by their first line. Every
    document must be in the recording (`include_docs=true`). See `Feed` for the contract of the methods.

    Args:
        paths: the files, in the order of the feed.
        clock: for waits.
        skip_design: leave design documents out.
    """

    def __init__(self, *paths: Path, clock: Clock | None = None, skip_design: bool = True) -> None:
        self.last_byte_at: float | None = None
        self.trouble: str | None = None
        self._paths = paths
        self._clock = clock or SystemClock()
        self._skip_design = skip_design

    def identify(self) -> DatabaseIdentity:
        """Return an empty identity."""
        return DatabaseIdentity()

    def mark(self) -> bool:
        """Return False: there is no database to mark."""
        return False

    def start(self) -> Seq:
        """Return the beginning."""
        return Seq.BEGINNING

    def find_first(self) -> Seq:
        """Return the beginning."""
        return Seq.BEGINNING

    def batches(
        self,
        since: Seq,
        identity: DatabaseIdentity | None,  # noqa: ARG002 - there is none to compare
        stop: Event,
    ) -> Generator[ChangeBatch, None, None]:
        """Yield the recorded changes after `since`, then signs of life until `stop` is set."""
        found = since == Seq.BEGINNING
        batches = self._recorded()
        while not stop.is_set() and (batch := next(batches, None)) is not None:
            if found:
                yield batch
                gevent.sleep(0)  # reading a file never switches greenlets
            found = found or batch.seq == since
        if not found:
            raise InvalidSeqError(f"The recording has no position {since}.", remedy="begin at 0")
        while not self._clock.wait(stop, TICK_SECONDS):
            yield SIGN_OF_LIFE

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Return the leaf versions at the end of the recording."""
        wanted = set(ids)
        return {
            change.id: change.leaf_version
            for batch in self._recorded()
            for change in batch.changes
            if change.id in wanted
        }

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        """Return the states at the end of the recording."""
        last = {change.id: change for batch in self._recorded() for change in batch.changes}
        gone = {id: Change(id=id, revs=("0-",), leaf_version=0, deleted=True) for id in ids}
        return [last.get(id, gone[id]) for id in ids]

    def fetch(self, change: Change) -> Document:
        """Raise an error: nothing can be fetched.

        Raises:
            PermanentError: always.
        """
        raise PermanentError(f"The recording has no document for {change.id!r}.")

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:  # noqa: ARG002 - none
        """Return None: a recording has no attachments."""
        return None

    def pending(self, since: Seq) -> int | None:  # noqa: ARG002 - a recording does not say
        """Return None: unknown."""
        return None

    def close(self) -> None:
        """Do nothing: no connection is open."""

    def _recorded(self) -> Iterator[ChangeBatch]:
        for number, path in enumerate(self._paths, start=1):
            yield from self._file(path, last=number == len(self._paths))

    def _file(self, path: Path, *, last: bool) -> Iterator[ChangeBatch]:
        cutter = BatchCutter(skip_design=self._skip_design)
        with path.open("rb") as file:
            parser: ChangesParser = PageParser() if file.read(10) == b'{"results"' else ContinuousParser()
            file.seek(0)
            while block := file.read(_BLOCK_BYTES):
                self.last_byte_at = self._clock.monotonic()
                for change, size_bytes in parser.feed(block):
                    if (batch := cutter.add(change, size_bytes)) is not None:
                        yield batch
        if parser.end is not None:
            yield cutter.end(parser.end.seq, caught_up=last, pending=parser.end.pending)
        elif (batch := cutter.cut()) is not None:
            yield batch
