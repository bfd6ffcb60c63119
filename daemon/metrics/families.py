"""Make prometheus-client's objects from the catalogue."""

from __future__ import annotations

from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase

from daemon.metrics.catalogue import CATALOGUE

#: A family that is made anew for each scrape.
Family = CounterMetricFamily | GaugeMetricFamily


class Families:
    """The families that are counted as things happen, by name; each made when it is first asked for.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
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

    def forget(self, **labels: str) -> None:
        """Drop every series with these labels."""
        for name, made in self._made.items():
            if set(labels) <= set(CATALOGUE[name].labels):
                made.remove_by_labels(labels)

    def _get(self, name: str, kind: Any, **more: Any) -> Any:
        if name not in self._made:
            metric = CATALOGUE[name]
            self._made[name] = kind(name, metric.help, list(metric.labels), registry=self._registry, **more)
        return self._made[name]


def new_family(name: str) -> Family:
    """Return an empty counter or gauge of the catalogue, to be filled for one scrape."""
    metric = CATALOGUE[name]
    kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    return kind(name, metric.help, labels=list(metric.labels))
