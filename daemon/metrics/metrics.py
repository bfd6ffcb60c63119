"""All metrics of one daemon, and how they are rendered."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import gevent
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from checkpoints import TailKey
from daemon.metrics.facts import Facts, TailLabels
from daemon.metrics.families import Families, new_family
from daemon.metrics.observer import MetricsObserver
from daemon.metrics.process import ProcessSampler
from daemon.metrics.snapshot import (
    ReloadCollector,
    RequestCollector,
    SourceCollector,
    StatusCollector,
)
from pillows.clock import Clock

#: Ends a text in OpenMetrics; Prometheus' own format has no end.
_END = b"# EOF\n"


class Metrics:
    """Counts and renders. It has a registry of its own: the global one holds collectors that can deadlock.

    Args:
        clock: for times.
        state_dir: whose disk is watched.

    Attributes:
        observer: counts what happens in the tails.
        sampler: samples the process while it is open.
    """

    def __init__(self, clock: Clock, state_dir: Path) -> None:
        self._clock = clock
        self._facts: Facts | None = None
        self._registry = CollectorRegistry()
        families = Families(self._registry)
        self.observer = MetricsObserver(families, clock, self._find_labels)
        self.sampler = ProcessSampler(families, clock, state_dir)
        ProcessCollector(registry=self._registry)
        self._registry.register(_BuildInfo())

    def attach(self, facts: Facts, tails: Iterable[TailKey]) -> None:
        """Read from these facts with each scrape, and count these tails from 0 on."""
        self._facts = facts
        for collector in (
            StatusCollector(facts.statuses, facts.labels_of, self._clock),
            SourceCollector(facts.connections),
            ReloadCollector(facts.reload),
            RequestCollector(facts.requests),
        ):
            self._registry.register(collector)
        for tail in tails:
            self.observer.add(tail)

    def _find_labels(self, tail: TailKey) -> TailLabels | None:
        return self._facts.labels_of(tail) if self._facts else None

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return the metrics as text, family by family, so that the hub turns in between.

        Args:
            accept: the request's header `Accept`; OpenMetrics is given to who asks for it.

        Returns:
            The media type, and the text.
        """
        encode, media_type = choose_encoder(accept)
        pieces = []
        for family in self._registry.collect():
            pieces.append(encode(_One(family)).removesuffix(_END))
            gevent.sleep(0)
        if media_type.startswith("application/openmetrics-text"):
            pieces.append(_END)
        return media_type, b"".join(pieces)


class _One(Collector):
    """A registry of one family."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterator[Family]:
        yield self._family


class _BuildInfo(Collector):
    def collect(self) -> Iterator[Family]:
        family = new_family("pillowd_build_info")
        family.add_metric([version("pillowd"), platform.python_version()], 1)
        yield family
