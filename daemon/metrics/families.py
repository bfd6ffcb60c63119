"""Make prometheus-client's objects from the catalogue."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import prometheus_client
from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from daemon.metrics.catalogue import CATALOGUE

#: A family that is built for each scrape.
Family = CounterMetricFamily | GaugeMetricFamily


class Reading(Struct, frozen=True, kw_only=True):
    """A family whose values were read for one scrape.

    Attributes:
        name: its name.
        rows: the values of the labels, and the value, of each series.
    """

    name: str
    rows: Sequence[tuple[tuple[str, ...], float]]


class Families:
    """The metric families that count events, by name. Each is made at its first use.

    Attributes:
        changes: how often a pillow's series were changed.
        forgotten: how often series were dropped.
    """

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._made: dict[str, MetricWrapperBase] = {}
        self.changes = 0
        self.forgotten = 0
        self._changed: dict[str, int] = {}  # pillow -> `changes` at its last change

    def note_change(self, pillow: str) -> None:
        """Note that series of a pillow change now."""
        self.changes += 1
        self._changed[pillow] = self.changes

    def list_changed(self, since: int) -> list[str]:
        """List the pillows whose series were changed since `changes` had this value."""
        return [pillow for pillow, change in self._changed.items() if change > since]

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

    @property
    def names(self) -> list[str]:
        """The names of the families."""
        return list(self._made)

    def is_by_pillow(self, name: str) -> bool:
        """Return whether the first label of a family is the pillow."""
        return next(iter(CATALOGUE[name].labels), "") == "pillow"

    def describe(self, name: str) -> Metric:
        """Return a family without its series."""
        (family,) = self._made[name].describe()
        return family

    def collect(self, name: str) -> Metric:
        """Return a small family with its series."""
        (family,) = self._made[name].collect()
        return family

    def collect_pillows(self, name: str, pillows: Collection[str]) -> Iterator[tuple[str, Metric]]:
        """Yield each of these pillows, and a family with its series alone; empty if it has none.

        The library's own `collect` builds all samples of a family at once. With 200 pillows that makes the
        garbage collector scan the whole heap, for 70 ms.
        """
        children: dict[str, list[tuple[Sequence[str], Any]]] = {pillow: [] for pillow in pillows}
        for values, child in list(self._made[name]._metrics.items()) if pillows else ():  # noqa: SLF001 - see above
            if values[0] in children:
                children[values[0]].append((values, child))
        for pillow, found in children.items():
            family = self.describe(name)
            for values, child in found:
                labels = dict(zip(CATALOGUE[name].labels, values, strict=True))
                for sample in child._samples():  # noqa: SLF001
                    named = sample._replace(name=family.name + sample.name, labels=labels | sample.labels)
                    family.samples.append(named)
            yield pillow, family

    def forget(self, pillow: str, **labels: str) -> None:
        """Drop every series of a pillow with these labels."""
        self.note_change(pillow)
        self.forgotten += 1
        labels["pillow"] = pillow
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
