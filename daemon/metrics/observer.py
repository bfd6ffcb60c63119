"""The observer that counts: each hook moves a few series, which were looked up when the tail was added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter, Gauge

from checkpoints import Checkpoint, TailKey
from daemon.metrics.catalogue import DEAD_STAGES, DIFFERENCES, PLACES, RESULTS, REWINDS, SAVES, STAGES
from daemon.metrics.facts import TailLabels
from daemon.metrics.families import Families
from pillows.clock import Clock
from pillows.observer import Observer, Rewind
from pillows.runtime.status import State


class MetricsObserver(Observer):
    """Counts what happens in the tails of the configuration.

    A tail is counted from its first start until it is removed; its labels are looked up at each start.

    Args:
        families: where it counts.
        clock: for the times of deliveries and comparisons.
        labels_of: returns the labels of a tail; None if the configuration does not have it.
    """

    def __init__(
        self, families: Families, clock: Clock, labels_of: Callable[[TailKey], TailLabels | None]
    ) -> None:
        self._families = families
        self._clock = clock
        self._labels_of = labels_of
        self._tails: dict[TailKey, _TailSeries] = {}

    def add(self, tail: TailKey) -> None:
        """Begin to count a tail, with every series at 0; drop those of transports that it no longer has."""
        labels = self._labels_of(tail)
        if labels is None:
            return
        self._families.note_change(tail.pillow)
        before = self._tails.get(tail)
        self._tails[tail] = series = _TailSeries(self._families, tail.pillow, labels)
        for gone in set(before.transports if before else ()) - set(series.transports):
            self._families.forget(pillow=tail.pillow, transport=gone)
        if labels.verifies and not (before and before.verifies):
            series.verified_at.set(self._clock.wall())

    def removed(self, tail: TailKey) -> None:
        """Drop every series of a tail, unless its pillow reads another source now."""
        if self._tails.pop(tail, None) and all(other.pillow != tail.pillow for other in self._tails):
            self._families.forget(pillow=tail.pillow)

    def _change(self, tail: TailKey) -> _TailSeries | None:
        """Return the series of a tail, and note that they change; None if the tail is not counted."""
        series = self._tails.get(tail)
        if series is not None:
            self._families.note_change(tail.pillow)
        return series

    def change(self, tail: TailKey, *, count: int, kept: int, filtered: int) -> None:  # noqa: ARG002 - an observer's
        """Count changes."""
        if series := self._change(tail):
            series.changes.inc(count)
            if filtered:
                series.filtered.inc(filtered)

    def stage(self, tail: TailKey, *, stage: str, seconds: float) -> None:
        """Add the time of a stage."""
        if series := self._change(tail):
            series.stages[stage].inc(seconds)

    def queue(self, tail: TailKey, *, documents: int, size_bytes: int) -> None:  # noqa: ARG002 - an observer's
        """Note the size of the queue."""
        if series := self._change(tail):
            series.queue.set(size_bytes)

    def in_flight(self, tail: TailKey, *, transport: str, batches: int) -> None:
        """Note the batches that are being written."""
        if (series := self._change(tail)) and (target := series.transports.get(transport)):
            target.in_flight.set(batches)

    def write(
        self, tail: TailKey, *, transport: str, documents: Mapping[str, int], size_bytes: int, seconds: float
    ) -> None:
        """Count a batch that one target has settled."""
        if (series := self._change(tail)) and (target := series.transports.get(transport)):
            for result, count in documents.items():
                if count:
                    target.documents[result].inc(count)
            target.size.inc(size_bytes)
            target.duration.observe(seconds)
            target.delivered_at.set(self._clock.wall())
            series.stages["write"].inc(seconds)

    def acknowledged(self, tail: TailKey, *, changes: int, seconds: float) -> None:
        """Note how long acknowledged changes took."""
        if series := self._change(tail):
            series.latency.observe(seconds)
            series.uncheckpointed.inc(changes)

    def retry(self, tail: TailKey, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:  # noqa: ARG002 - an observer's
        """Count a wait before another attempt."""
        if series := self._change(tail):
            series.retries[where if where in PLACES else "target"].inc()

    def workers(self, tail: TailKey, *, count: int) -> None:
        """Note the number of worker processes."""
        if series := self._change(tail):
            series.workers.set(count)

    def worker_ended(self, tail: TailKey, *, pid: int, cause: str, how: str) -> None:  # noqa: ARG002 - an observer's
        """Count a worker process that is replaced."""
        if series := self._change(tail):
            series.worker_restarts.inc()

    def rewind(self, tail: TailKey, *, kind: Rewind, reason: str) -> None:  # noqa: ARG002 - an observer's
        """Count changes that come again."""
        if series := self._change(tail):
            series.rewinds[str(kind)].inc()

    def dead_letter(self, tail: TailKey, *, transport: str, id: str, stage: str, error: str) -> None:  # noqa: ARG002 - an observer's
        """Count a dead letter."""
        if series := self._change(tail):
            series.dead_letters[stage].inc()

    def checkpoint(self, tail: TailKey, *, checkpoint: Checkpoint, seconds: float) -> None:  # noqa: ARG002 - an observer's
        """Count a saved checkpoint."""
        if series := self._change(tail):
            series.saves["ok"].inc()
            series.stages["checkpoint"].inc(seconds)
            series.uncheckpointed.set(0)

    def warning(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:  # noqa: ARG002 - an observer's
        """Count the warnings that have a metric."""
        if series := self._change(tail):
            if event == "checkpoint.not_saved":
                series.saves["error"].inc()
            elif event == "transports.diverged":
                series.divergences.inc()

    def verified(self, tail: TailKey, *, differences: Mapping[str, Mapping[str, int]]) -> None:
        """Note the result of a comparison."""
        if series := self._change(tail):
            for transport, counts in differences.items():
                if target := series.transports.get(transport):
                    for kind in DIFFERENCES:
                        target.differences[kind].set(counts.get(kind, 0))
            series.verified_at.set(self._clock.wall())

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:  # noqa: ARG002 - an observer's
        """Look up a tail when it starts, and reset its unsaved changes, which the last run lost."""
        if state == State.STARTING:
            self.add(tail)
            if series := self._change(tail):
                series.uncheckpointed.set(0)
                series.queue.set(0)


class _TailSeries:
    """The series of one tail."""

    def __init__(self, families: Families, pillow: str, labels: TailLabels) -> None:
        def by(name: str, values: Sequence[str]) -> dict[str, Counter]:
            return {value: families.counter(name).labels(pillow, value) for value in values}

        self.verifies = labels.verifies
        self.changes = families.counter("pillowd_changes_total").labels(pillow)
        self.filtered = families.counter("pillowd_changes_filtered_total").labels(pillow)
        self.divergences = families.counter("pillowd_divergences_total").labels(pillow)
        self.stages = by("pillowd_stage_seconds_total", STAGES)
        self.retries = by("pillowd_retries_total", PLACES)
        self.rewinds = by("pillowd_rewinds_total", REWINDS)
        self.dead_letters = by("pillowd_dead_letters_added_total", DEAD_STAGES)
        self.saves = by("pillowd_checkpoint_saves_total", SAVES)
        self.queue = families.gauge("pillowd_queue_bytes").labels(pillow)
        self.uncheckpointed = families.gauge("pillowd_uncheckpointed_changes").labels(pillow)
        self.workers = families.gauge("pillowd_workers").labels(pillow)
        self.worker_restarts = families.counter("pillowd_worker_restarts_total").labels(pillow)
        self.latency = families.histogram("pillowd_delivery_latency_seconds").labels(pillow)
        self.verified_at = _LateGauge(families, "pillowd_verify_last_run_timestamp_seconds", pillow)
        self.transports = {name: _TransportSeries(families, pillow, name) for name in labels.transports}


class _TransportSeries:
    """The series of one transport of a tail."""

    def __init__(self, families: Families, pillow: str, transport: str) -> None:
        documents = families.counter("pillowd_documents_total")
        self.documents = {result: documents.labels(pillow, transport, result) for result in RESULTS}
        self.size = families.counter("pillowd_written_bytes_total").labels(pillow, transport)
        self.in_flight = families.gauge("pillowd_in_flight_batches").labels(pillow, transport)
        self.duration = families.histogram("pillowd_batch_duration_seconds").labels(pillow, transport)
        self.delivered_at = _LateGauge(
            families, "pillowd_delivery_last_success_timestamp_seconds", pillow, transport
        )
        self.differences = {
            kind: _LateGauge(families, "pillowd_verify_differences", pillow, transport, kind)
            for kind in DIFFERENCES
        }


class _LateGauge:
    """A gauge that is exported only after its first value, since 0 would be a wrong one."""

    __slots__ = ("_families", "_found", "_labels", "_name")

    def __init__(self, families: Families, name: str, *labels: str) -> None:
        self._families = families
        self._name = name
        self._labels = labels
        self._found: Gauge | None = None

    def set(self, value: float) -> None:
        """Set its value."""
        if self._found is None:
            self._found = self._families.gauge(self._name).labels(*self._labels)
        self._found.set(value)
