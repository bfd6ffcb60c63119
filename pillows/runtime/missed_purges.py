"""Close the gap when purges were missed: while pillowd was down, more were made than the source still lists.

CouchDB's feed has no row for a purge, and the source keeps a limited number of them (`purged_infos_limit`).
Documents of dropped purges stay in the targets. So the documents that each target holds are looked up in
the source. Those that are absent twice, longer apart than any copy of the database lags, are deleted in the
targets like other purged documents.

Until then the checkpoint keeps the earlier purge position: after a restart the gap is found again. Of a
partition the checkpoint also stays before the record that told of the gap, since nothing else would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from pillows.errors import FatalError, PurgesMissedError
from pillows.feed.base import PURGED_REV, SIGN_OF_LIFE, SourceLookup
from pillows.models import Change, ChangeBatch
from pillows.retry.retrier import Retrier
from pillows.runtime.housekeeping import Job
from pillows.transports.base import KeyedTransport, Transport

#: Documents that are looked up in the source in one request, or deleted in one batch.
GROUP_DOCUMENTS = 200

#: Share of a target's documents that are removed without asking, whatever the configured number is.
REMOVABLE_SHARE = 0.01

#: Of a replica, design documents that the source does not know may be its own; a sweep keeps them, too.
_DESIGN = "_design/"


class MissedPurgesOptions(Struct, frozen=True, kw_only=True):
    """The limits within which a tail removes documents by itself.

    Attributes:
        max_documents: the most documents that are removed, or 1 % of a target's if that is more.
        overlap_seconds: time between the two looks: longer than the lag of any copy of the database.
    """

    max_documents: int = 10_000
    overlap_seconds: float = 60.0


class Comparison(Struct, frozen=True, kw_only=True):
    """The result of a comparison.

    Attributes:
        absent: documents that targets hold and the source does not know.
        documents: how many the largest output holds.
        purges: how many purges were missed when it began.
    """

    absent: Sequence[str]
    documents: int
    purges: int


class MissedPurges:
    """Watches a tail's batches for missed purges, and adds the deletions that close the gap.

    Args:
        source: looks documents up.
        make_transports: makes transports that list what the targets hold; they are closed here.
        retrier: retries unreachable servers; has the tail and its observer.
        options: limits the automatic repair.
        start: starts the job, which runs while the tail does; its errors end the tail.
        note: receives why the targets may differ from the source; "" when they don't.
        is_ours: whether a document is one of the tail's; the others are left alone.
        is_part: see `TailSettings`.

    Attributes:
        job: compares what the targets hold with what the source knows.
    """

    def __init__(
        self,
        *,
        source: SourceLookup,
        make_transports: Callable[[], Sequence[Transport]],
        retrier: Retrier,
        options: MissedPurgesOptions,
        start: Callable[[Job], None],
        note: Callable[[str], None],
        is_ours: Callable[[str], bool] = lambda _id: True,
        is_part: bool = False,
    ) -> None:
        self.job = Job(self._compare)
        self._tail = retrier.tail
        self._source = source
        self._make_transports = make_transports
        self._retrier = retrier
        self._options = options
        self._start = start
        self._note = note
        self._is_ours = is_ours
        self._is_part = is_part
        self._purges = 0  # missed since the gap was noticed
        self._purge_seq: str | None = None  # the newest position, which the checkpoint gets at the end
        self._held: ChangeBatch | None = None  # the newest with a position, which it gets then, too
        self._result: Comparison | None = None

    def follow(self, batches: Iterable[ChangeBatch]) -> Iterator[ChangeBatch]:
        """Yield the batches; after a comparison also the deletions, with the newest purge position."""
        for batch in batches:
            yield self._hold_back(batch)
            if self._result is not None:
                result, self._result = self._result, None
                yield from self._delete(result)

    def _hold_back(self, batch: ChangeBatch) -> ChangeBatch:
        """Return the batch without what the checkpoint may not pass while there is a gap before it."""
        if batch.purges_missed:
            self._purges += batch.purges_missed
            if not self._purge_seq:
                self._begin()
        if not self._purges:
            return batch
        if batch.purge_seq is not None:
            self._purge_seq = batch.purge_seq
            batch = replace(batch, purge_seq=None)
        if self._is_part and batch.seq is not None:
            self._held = batch
            batch = replace(batch, seq=None)
        return batch

    def _begin(self) -> None:
        self._note(f"{self._purges} purges were missed: what targets hold is compared with the source")
        self._start(self.job)

    def _delete(self, result: Comparison) -> Iterator[ChangeBatch]:
        """Yield the deletions that a comparison asks for, and at the end of the gap the purge position."""
        details = {"documents": result.documents, "removed": len(result.absent)}
        self._retrier.observer.warning(self._tail, event="purges.compared", details=details)
        for begin in range(0, len(result.absent), GROUP_DOCUMENTS):
            group = result.absent[begin : begin + GROUP_DOCUMENTS]
            yield ChangeBatch(changes=[Change(id, (PURGED_REV,), 0, deleted=True) for id in group], seq=None)
        if self._purges > result.purges:  # more were missed meanwhile
            self._begin()
            return
        held, self._held = self._held or SIGN_OF_LIFE, None
        purge_seq, self._purge_seq, self._purges = self._purge_seq, None, 0
        # Removing rows has raised the epoch already.
        yield replace(
            held, changes=(), purge_seq=purge_seq, purges_missed=0, recreated=not result.absent, size_bytes=0
        )
        self._note("")

    def _compare(self) -> None:
        """Compare what the targets hold with what the source knows.

        Raises:
            FatalError: more documents are absent than are removed without asking.
            PurgesMissedError: a target can't list its documents.
            StoppedError: a stop was requested.
        """
        purges, documents = self._purges, 0
        absent: set[str] = set()
        with ExitStack() as stack:
            for transport in self._make_transports():
                stack.callback(transport.close)
                if not isinstance(transport, KeyedTransport):
                    continue  # what was appended stays
                if not transport.verifiable:
                    raise PurgesMissedError(
                        f"{purges} purges were missed, and {transport.name} can't tell what it holds.",
                        remedy="`pillowd checkpoint reset KEY`",
                    )
                for output in transport.outputs:
                    find = partial(self._find_absent, transport, output)
                    held, missing = self._retrier.retry_read(transport.name, find)
                    documents = max(documents, held)
                    absent |= missing
        if absent:
            self._retrier.waiter.wait(self._options.overlap_seconds)
        still = self._look_up(sorted(absent))
        self._check_number(len(still), documents, purges)
        self._result = Comparison(absent=still, documents=documents, purges=purges)

    def _find_absent(self, transport: KeyedTransport, output: str) -> tuple[int, set[str]]:
        """Return how many documents an output holds, and which of them the source does not know."""
        held = 0
        absent: set[str] = set()
        for page in transport.stored(output):
            ours = [each for each in page if self._is_ours(each.id)]
            held += len(ours)
            ids = [
                each.id for each in ours if each.write_version is not None or not each.id.startswith(_DESIGN)
            ]
            absent.update(self._look_up(ids))
        return held, absent

    def _look_up(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that the source does not know."""
        absent: list[str] = []
        for begin in range(0, len(ids), GROUP_DOCUMENTS):
            group = ids[begin : begin + GROUP_DOCUMENTS]
            known = self._retrier.retry_read("source", partial(self._source.leaves, group))
            absent += [id for id in group if id not in known]
        return absent

    def _check_number(self, absent: int, documents: int, purges: int) -> None:
        """Refuse to remove many: a copy that lags, or was restored, must not empty a target."""
        share = int(documents * REMOVABLE_SHARE)
        most = min(max(self._options.max_documents, share), max(purges, share))
        if absent > most:
            raise FatalError(
                f"After {purges} missed purges the source does not know {absent} of {documents} documents "
                f"that targets hold; at most {most} are removed without asking.",
                remedy="check that the source is whole; then "
                + (
                    "`pillowd verify KEY --repair`, and `pillowd restart KEY`"
                    if not self._is_part  # of which nothing is compared or repaired beyond the gap
                    else "`pillowd checkpoint reset KEY`"
                ),
            )
