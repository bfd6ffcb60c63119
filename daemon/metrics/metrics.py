"""Collect and render all metrics of one daemon."""

from __future__ import annotations

import platform
import zlib
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from time import perf_counter

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
from daemon.metrics.pages import Page, Pages
from daemon.metrics.process import ProcessSampler
from daemon.metrics.snapshot import (
    BackfillCollector,
    CertificateCollector,
    RebuildCollector,
    ReloadCollector,
    RequestCollector,
    SourceCollector,
    StatusReader,
)
from daemon.metrics.texts import END, Texts
from pillows.clock import Clock

#: Formats whose texts are kept: that of Prometheus, and that of a browser.
_FORMATS = 2
#: The hub turns after so much rendering.
_TURN_SECONDS = 0.005
#: zlib's window for the format of gzip.
_GZIP = 31


class Metrics:
    """Collects and renders the metrics, in its own registry: collectors of the global one can deadlock.

    Args:
        clock: for times.
        state_dir: whose disk is watched.

    Attributes:
        observer: counts what happens in the tails.
        sampler: samples the process while it is open.
        pages: what scrapes get.
    """

    def __init__(self, clock: Clock, state_dir: Path) -> None:
        self._clock = clock
        self._facts: Facts | None = None
        self._registry = CollectorRegistry()
        self._families = Families()
        self._statuses: StatusReader | None = None
        self._texts: dict[str, Texts] = {}  # media type -> texts, the last used at the end
        self.observer = MetricsObserver(self._families, clock, self._find_labels)
        self.sampler = ProcessSampler(self._families, clock, state_dir)
        self.pages = Pages(self.render, clock)
        ProcessCollector(registry=self._registry)
        self._registry.register(_BuildInfo())

    def attach(self, facts: Facts, tails: Iterable[TailKey]) -> None:
        """Read these facts at each scrape, and start to count these tails at 0."""
        self._facts = facts
        self._statuses = StatusReader(facts.statuses, facts.labels_of, self._clock)
        for collector in (
            SourceCollector(facts.connections),
            ReloadCollector(facts.reload),
            RebuildCollector(facts.rebuilds),
            BackfillCollector(facts.statuses, facts.backfills),
            RequestCollector(facts.requests),
            CertificateCollector(facts.expiries),
        ):
            self._registry.register(collector)
        for tail in tails:
            self.observer.add(tail)

    def _find_labels(self, tail: TailKey) -> TailLabels | None:
        return self._facts.labels_of(tail) if self._facts else None

    def render(self, accept: str = "", accept_encoding: str = "") -> Page:
        """Return the metrics as they are now, as text, made in pieces; the hub turns in between.

        Args:
            accept: the request's header `Accept`; OpenMetrics is given to who asks for it.
            accept_encoding: the request's header `Accept-Encoding`; gzip makes a tenth of the text.
        """
        encode, media_type = choose_encoder(accept)
        texts = self._texts[media_type] = self._texts.pop(media_type, Texts(encode))
        for old in list(self._texts)[:-_FORMATS]:
            del self._texts[old]
        pieces = self._render_pieces(texts)
        if media_type.startswith("application/openmetrics-text"):
            pieces = chain(pieces, [END])
        if "gzip" not in accept_encoding:
            return Page(media_type=media_type, text=b"".join(pieces))
        packer = zlib.compressobj(level=1, wbits=_GZIP)
        packed = [packer.compress(piece) for piece in pieces]
        return Page(media_type=media_type, text=b"".join([*packed, packer.flush()]), encoding="gzip")

    def _render_pieces(self, texts: Texts) -> Iterator[bytes]:
        began = perf_counter()
        read = chain.from_iterable(
            texts.write_reading(each) for each in (self._statuses.read() if self._statuses else ())
        )
        small = (texts.write_family(family) for family in self._registry.collect())
        for piece in chain(texts.write_counted(self._families), read, small):
            yield piece
            # Not after each piece: where something blocks the hub, each turn would take as long as that.
            if perf_counter() - began > _TURN_SECONDS:
                gevent.sleep(0)
                began = perf_counter()


class _BuildInfo(Collector):
    def __init__(self) -> None:
        self._labels = [version("pillowd"), platform.python_version()]  # they are read from a file

    def collect(self) -> Iterator[Family]:
        family = new_family("pillowd_build_info")
        family.add_metric(self._labels, 1)
        yield family
