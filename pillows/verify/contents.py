"""Run documents of the source through the pillow, and let the targets compare the rows.

Versions show what a target has missed. They don't show an edit in the target itself: that keeps the version
and changes the row. A document and a target's rows are compared only in the same leaf version, so what the
pillow writes meanwhile is never a difference.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter

import gevent
from gevent.event import Event
from msgspec import Struct

from pillows.clock import Clock
from pillows.errors import FatalError, PermanentError, RetryableError
from pillows.feed.base import Feed
from pillows.halving import send_in_halves
from pillows.models import Change, Document, DocumentRows, Row
from pillows.pillow import TURN_SECONDS, Pillow
from pillows.stages.transforms import ChunkedTransform
from pillows.transports.base import KeyedTransport
from pillows.user_code import confine
from pillows.verify.comparison_table import ComparisonTable

#: Documents that are read and compared at once.
GROUP_DOCUMENTS = 200

#: Interval of attempts while the source is away.
RETRY_SECONDS = 1.0


class Target(Struct, frozen=True, kw_only=True):
    """One output of one transport.

    Attributes:
        transport: compares rows with those that it holds.
        output: the output's name.
        bit: this output's bit in a document's `outputs`.
    """

    transport: KeyedTransport
    output: str
    bit: int

    @property
    def name(self) -> str:
        """The name shown to the operator."""
        return f"{self.transport.name}/{self.output}"


class ContentSelection(Struct, frozen=True, kw_only=True):
    """The choice of documents whose rows are compared.

    Attributes:
        sample: number of documents, drawn at random; None for all.
        seed: of the sample. As long as the source has the same ids, a seed draws the same documents.
    """

    sample: int | None = None
    seed: int = 0

    def select(self, table: ComparisonTable) -> Iterator[Sequence[str]]:
        """Yield groups of ids, in byte order.

        Args:
            table: has the source's documents.
        """
        count, number = table.count_comparable(), 0
        sample = None if self.sample is None else min(self.sample, count)
        chosen = None if sample is None else set(random.Random(self.seed).sample(range(count), sample))  # noqa: S311 - no secret
        after: str | None = None
        while ids := table.comparable(after, GROUP_DOCUMENTS if chosen is None else 10_000):
            after = ids[-1]
            if chosen is not None:
                ids = [id for place, id in enumerate(ids, number) if place in chosen]
            number += len(ids) if chosen is None else 10_000
            for start in range(0, len(ids), GROUP_DOCUMENTS):
                yield ids[start : start + GROUP_DOCUMENTS]

    def count(self, table: ComparisonTable) -> int:
        """Return how many documents `select` yields."""
        count = table.count_comparable()
        return count if self.sample is None else min(self.sample, count)


class ContentComparison:
    """Finds the documents whose rows in a target are not those that the pipeline makes.

    Args:
        pillow: the pipeline.
        feed: reads the documents.
        targets: asked whether they hold the rows.
        clock: for waits.
        source_timeout_seconds: how long to wait for a source that is away.

    Attributes:
        incomparable: number of a target -> why its rows can't be compared.
    """

    def __init__(
        self,
        pillow: Pillow,
        feed: Feed,
        targets: Sequence[Target],
        *,
        clock: Clock,
        source_timeout_seconds: float,
    ) -> None:
        self._pillow = pillow
        self._feed = feed
        self._trigger = pillow.trigger(feed.fetch, feed.attachment)
        self._clock = clock
        self._timeout_seconds = source_timeout_seconds
        reasons = [each.transport.describe_incomparable(each.output) for each in targets]
        self.incomparable = {number: reason for number, reason in enumerate(reasons) if reason}
        self._targets = {n: each for n, each in enumerate(targets) if n not in self.incomparable}

    def find_altered(self, ids: Sequence[str]) -> Mapping[int, set[str]]:
        """Return, for each target that can be compared, the documents with other rows there.

        A document whose rows can't be made is altered in every target.

        Args:
            ids: documents of the source, `GROUP_DOCUMENTS` at most.

        Raises:
            RetryableError: the source or the target can't be reached.
            FatalError: the pipeline can't run.
        """
        altered: dict[int, set[str]] = {number: set() for number in self._targets}
        for documents, failed in send_in_halves(ids, self._make_rows, _is_too_large):
            for number, target in self._targets.items():
                here = [document for document in documents if document.rows.get(target.output)]
                if here:
                    altered[number] |= target.transport.find_altered(target.output, here)
                altered[number].update(failed)
        return altered

    def _make_rows(self, ids: Sequence[str]) -> tuple[list[DocumentRows], list[str]]:
        """Return the rows of documents as they are now, and the ids of those whose rows can't be made."""
        kept: list[Document] = []
        failed: list[str] = []
        turn_began = perf_counter()
        for change in self._read(ids):
            try:
                document = self._extract(change)
            except (RetryableError, FatalError):
                raise
            except BaseException as error:  # noqa: BLE001 - a user's code
                confine(error)
                failed.append(change.id)
            else:
                kept += [document] if document is not None else []
            if perf_counter() - turn_began > TURN_SECONDS:
                gevent.sleep(0)
                turn_began = perf_counter()
        made: list[DocumentRows] = []
        for document, rows in self._transform(kept):
            if isinstance(rows, Exception):
                failed.append(document.id)
            else:
                made.append(
                    DocumentRows(
                        id=document.id, rev=document.rev, leaf_version=document.leaf_version, rows=rows
                    )
                )
        return made, failed

    def _read(self, ids: Sequence[str]) -> Sequence[Change]:
        """Read the documents' current state; try again while the source is away."""
        give_up_at = self._clock.monotonic() + self._timeout_seconds
        while True:
            try:
                return self._feed.current(ids)
            except PermanentError as error:
                if len(ids) > 1:
                    raise
                return [Change(ids[0], ("0-",), 0, defect=str(error))]
            except RetryableError:
                if self._clock.monotonic() >= give_up_at:
                    raise
            self._clock.wait(Event(), RETRY_SECONDS)

    def _extract(self, change: Change) -> Document | None:
        """Return the document; None if it should have no rows."""
        if change.defect:
            raise PermanentError(change.defect)
        if change.deleted or not self._pillow.filter(change):
            return None
        document = self._trigger(change)
        return None if document.deleted else document

    def _transform(
        self, documents: Sequence[Document]
    ) -> Iterator[tuple[Document, Mapping[str, Sequence[Row]] | Exception]]:
        transform = self._pillow.transform
        if isinstance(transform, ChunkedTransform):
            yield from zip(documents, transform.many(documents), strict=True)
            return
        turn_began = perf_counter()
        for document in documents:
            rows: Mapping[str, Sequence[Row]] | Exception
            try:
                rows = transform(document)
            except (RetryableError, FatalError):
                raise
            except BaseException as error:  # noqa: BLE001 - a user's code
                rows = confine(error)
            yield document, rows
            if perf_counter() - turn_began > TURN_SECONDS:
                gevent.sleep(0)
                turn_began = perf_counter()


def _is_too_large(error: Exception) -> bool:
    return isinstance(error, PermanentError)
