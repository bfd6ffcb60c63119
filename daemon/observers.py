"""Everything that watches the tails of a daemon: the log, and what the API shows of them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.logs.observer import LogObserver
from daemon.streams.notable_events import NotableEvents
from daemon.streams.taps import Taps
from daemon.supervision.state_history import StateHistory
from daemon.supervision.transport_facts import TransportFacts
from pillows.clock import Clock
from pillows.observer import CompositeObserver, Observer

if TYPE_CHECKING:
    from daemon.metrics.metrics import Metrics


class Observers:
    """The observers of a daemon.

    Args:
        clock: for times.

    Attributes:
        history: the last states of each tail.
        transports: rate, latency and last error of each transport.
        events: the notable events for the streams.
        taps: the open taps.
        metrics: the metrics; None unless `count` was called.
    """

    def __init__(self, clock: Clock) -> None:
        self.history = StateHistory(clock)
        self.transports = TransportFacts(clock)
        self.events = NotableEvents(clock)
        self.taps = Taps(clock)
        self.metrics: Metrics | None = None
        self._clock = clock

    def count(self, stack: ExitStack, state_dir: Path) -> None:
        """Count for metrics, too. Without a listener nobody reads metrics: then do not import their modules.

        Args:
            stack: ends the sampling of the process.
            state_dir: whose disk is watched.
        """
        from daemon.metrics.metrics import Metrics  # noqa: PLC0415  see above

        self.metrics = Metrics(self._clock, state_dir)
        stack.enter_context(self.metrics.sampler.running())

    def join(self) -> Observer:
        """Return one observer for all."""
        observers: list[Observer] = [LogObserver(), self.history, self.transports, self.events, self.taps]
        if self.metrics is not None:
            observers.append(self.metrics.observer)
        return CompositeObserver(observers)
