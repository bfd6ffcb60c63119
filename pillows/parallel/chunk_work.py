"""Process a chunk in a worker: fetch its documents, and filter and transform them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import ParamSpec, Protocol, TypeVar

import msgspec

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.delivery.items import Item, transform_chunks
from pillows.errors import RetryableError, StoppedError
from pillows.models import Change, ChangeBatch, Document
from pillows.observer import Observer
from pillows.parallel.outcomes import Outcomes, decode_changes, encode_outcome
from pillows.parallel.worker import Channel
from pillows.pillow import Pillow, Pipeline
from pillows.progress.watermark import Watermark
from pillows.stages.transforms import ChunkedTransform

P = ParamSpec("P")
T = TypeVar("T")


class ChunkSource(Protocol):
    """Reads documents of the source over this worker's connection. No method retries a failure.

    All methods raise RetryableError and FatalError as `SourceLookup` does.
    """

    def load(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Return the changes in the same order, with missing documents added if the pillow needs them."""

    def fetch(self, change: Change) -> Document:
        """Fetch the document of a change."""

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Read an attachment; see `SourceLookup.attachment`."""

    def close(self) -> None:
        """Close every connection."""


class _Interrupted(StoppedError):
    """The source can't be reached: the failure is not a document's."""


class ChunkWork:
    """Processes chunks of one tail.

    Args:
        pillow: the pipeline's parts.
        tail: the tail's key.
        source: reads documents that the coordinator has not sent.
        channel: for signs of life and warnings.
        clock: for the pipeline.
        as_json: as in `encode_outcome`.
        with_text: as `ErrorOptions.exception_text`.
    """

    def __init__(
        self,
        pillow: Pillow,
        *,
        tail: TailKey,
        source: ChunkSource,
        channel: Channel,
        clock: Clock,
        as_json: bool,
        with_text: bool,
    ) -> None:
        self._pillow = pillow
        self._tail = tail
        self._source = source
        self._channel = channel
        self._clock = clock
        self._as_json = as_json
        self._with_text = with_text
        self._trigger = pillow.trigger(_interrupting(source.fetch), _interrupting(source.attachment))

    def run(self, payload: msgspec.Raw) -> Outcomes:
        """Return the outcomes of the changes in a task.

        Raises:
            RetryableError, FatalError: the source can't be reached, or denies access; nothing was done.
        """
        changes = decode_changes(payload)
        loaded = self._source.load(changes)
        began = perf_counter()
        collector, report = _Collector(self._channel.tick), _Report(self._channel)
        pipeline = Pipeline(
            self._pillow,
            trigger=self._trigger,
            pusher=collector,
            watermark=Watermark(),
            observer=report,
            tail=self._tail,
            clock=self._clock,
            with_text=self._with_text,
        )
        try:
            pipeline.carry([ChangeBatch(changes=loaded, seq=None)], lambda _: None)
        except _Interrupted as interrupted:
            raise interrupted.__cause__ or interrupted from None
        items = self._transform_chunks(collector.items, report)
        return Outcomes(
            [
                encode_outcome(self._tail, change, outcome, as_json=self._as_json, with_text=self._with_text)
                for change, (_, outcome) in zip(changes, items, strict=True)
            ],
            report.kept,
            report.filtered,
            report.seconds,
            perf_counter() - began,
        )

    def close(self) -> None:
        """Close every connection."""
        self._source.close()

    def _transform_chunks(self, items: list[Item], report: _Report) -> list[Item]:
        """Transform documents together, if the transform takes several at a time (`transform.chunk`)."""
        if not isinstance(self._pillow.transform, ChunkedTransform):
            return items
        began = perf_counter()
        made = transform_chunks(self._tail, items, self._pillow.transform, with_text=self._with_text)
        report.stage(self._tail, stage="transform", seconds=perf_counter() - began)
        return made


def _interrupting(read: Callable[P, T]) -> Callable[P, T]:
    """Wrap a call of the source, so that an unreachable source ends the chunk and makes no dead letter."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except RetryableError as error:
            raise _Interrupted from error

    return call


class _Collector:
    """Collects the items that the pipeline pushes."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.items: list[Item] = []
        self._tick = tick

    def expect(self, *, more: bool) -> None:
        """Do nothing: no caller waits for items."""

    def push(self, item: Item, size_bytes: int) -> bool:  # noqa: ARG002 - a pusher's
        """Keep an item. Return False: the caller did not have to wait."""
        self.items.append(item)
        self._tick()
        return False


class _Report(Observer):
    """Sums up the reports of the pipeline, and passes on warnings."""

    def __init__(self, channel: Channel) -> None:
        self.kept = self.filtered = 0
        self.seconds: dict[str, float] = {}
        self._channel = channel

    def change(self, tail: TailKey, *, count: int, kept: int, filtered: int) -> None:  # noqa: ARG002 - an observer's
        """Count changes."""
        self.kept += kept
        self.filtered += filtered

    def stage(self, tail: TailKey, *, stage: str, seconds: float) -> None:  # noqa: ARG002 - an observer's
        """Add the time of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def warning(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:  # noqa: ARG002 - as above
        """Pass on a warning to the coordinator."""
        self._channel.note(event, **details)
