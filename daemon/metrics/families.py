"""Make prometheus-client's objects from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from daemon.metrics.catalogue import CATALOGUE

#: A family that is built for each scrape.
Family = CounterMetricFamily | GaugeMetricFamily


class Families:
    """The families that are counted as things happen, by name; each made when it is first asked for."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._made: dict[str, MetricWrapperBase] = {}

    def counter(self, name: str) -> prometheus_client.Counter:
        """Return a counter of the catalogue."""
        made: prometheus_client.Counter = self._get(name, prometheus_client.Counter)
        return made

    def gauge(self, name: str) -> prometheus_client.Gauge:
        """Return a gauge of the catalogue."""
        made: prometheus_client.Gauge = self._get(name, prometheus_client.Gauge)
        return made

    def histogram(self, name: str) -> prometheus_client.Histogram:
        """Return a histogram of the catalogue."""
        buckets = CATALOGUE[name].buckets
        made: prometheus_client.Histogram = self._get(name, prometheus_client.Histogram, buckets=buckets)
        return made

    def collect(self, most: int) -> Iterator[tuple[Metric, bool]]:
        """Yield every family in pieces of bounded size, and whether a piece is its first.

        The library's own `collect` builds all samples of a family at once. With 200 pillows those are so many
        objects that the garbage collector goes through the whole heap, for 70 ms.
        """
        for made in list(self._made.values()):
            samples = iter(made._samples())  # noqa: SLF001 - see above
            for number in count():
                (piece,) = made.describe()
                for sample in islice(samples, most):
                    piece.samples.append(sample._replace(name=piece.name + sample.name))
                if number and not piece.samples:
                    break
                yield piece, number == 0

    def forget(self, **labels: str) -> None:
        """Drop every series with these labels."""
        for name, made in self._made.items():
            if set(labels) <= set(CATALOGUE[name].labels):
                made.remove_by_labels(labels)

    def _get(self, name: str, kind: Any, **more: Any) -> Any:
        if name not in self._made:
            metric = CATALOGUE[name]
            self._made[name] = kind(name, metric.help, list(metric.labels), registry=None, **more)
        return self._made[name]


def new_family(name: str) -> Family:
    """Return an empty counter or gauge of the catalogue, to be filled for one scrape."""
    metric = CATALOGUE[name]
    kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    return kind(name, metric.help, labels=list(metric.labels))
