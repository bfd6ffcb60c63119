"""Build the families that are read at each scrape, from the states of tails and connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from checkpoints import TailKey
from daemon.metrics.catalogue import BACKFILLED, DATABASE_STATES, OUTCOMES, REBUILD_STATES, STATES
from daemon.metrics.facts import ConnectionFacts, TailLabels
from daemon.metrics.families import Reading, new_family
from daemon.rebuilds.record import Rebuild
from daemon.reload.reloader import ReloadRecord
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus

#: A time moves in steps of this size. It is computed from an age, so that it would differ a little each time.
STEP_SECONDS = 0.5


class StatusReader:
    """Collects the metric families that show the state of each tail.

    Args:
        statuses: returns the status of every tail.
        labels_of: returns the labels of a tail; None if the configuration does not have it.
        clock: turns ages into times.
    """

    def __init__(
        self,
        statuses: Callable[[], Sequence[TailStatus]],
        labels_of: Callable[[TailKey], TailLabels | None],
        clock: Clock,
    ) -> None:
        self._statuses = statuses
        self._labels_of = labels_of
        self._clock = clock
        self._began_at = clock.wall()
        self._times: dict[tuple[str, str], float] = {}

    def read(self) -> Iterator[Reading]:
        """Yield each family."""
        statuses = self._statuses()
        yield self._pillow_info(statuses)
        yield _states(statuses)
        yield _databases(statuses)
        now = self._clock.wall()
        before, self._times = self._times, {}

        def since(name: str, status: TailStatus, age_seconds: float | None) -> float:
            at = self._began_at if age_seconds is None else round(now - age_seconds, 3)
            known = before.get((name, status.pillow))
            if known is not None and abs(at - known) < STEP_SECONDS:
                at = known
            self._times[name, status.pillow] = at
            return at

        read: Mapping[str, Callable[[TailStatus], float | None]] = {
            "pillowd_lag_changes": lambda status: status.pending,
            "pillowd_lag_seconds": lambda status: status.lag_seconds,
            "pillowd_source_last_byte_timestamp_seconds": lambda status: since(
                "byte", status, status.last_byte_age_seconds
            ),
            "pillowd_checkpoint_last_success_timestamp_seconds": lambda status: since(
                "checkpoint", status, status.checkpoint_age_seconds
            ),
            "pillowd_dead_letters": lambda status: status.dead_letters,
            "pillowd_restarts_total": lambda status: status.restarts,
            "pillowd_epoch": lambda status: status.epoch,
            "pillowd_pass_ratio": pass_ratio,
            "pillowd_seconds_to_go": lambda status: (
                status.seconds_to_go if status.state is State.CATCHING_UP else None
            ),
        }
        for name, value_of in read.items():
            values = [(status.pillow, value_of(status)) for status in statuses]
            yield Reading(
                name=name, rows=[((pillow,), value) for pillow, value in values if value is not None]
            )

    def _pillow_info(self, statuses: Sequence[TailStatus]) -> Reading:
        found = [(s.pillow, self._labels_of(TailKey(s.pillow, s.source))) for s in statuses]
        return Reading(
            name="pillowd_pillow_info",
            rows=[((pillow, each.connection, each.source), 1) for pillow, each in found if each is not None],
        )


def _states(statuses: Sequence[TailStatus]) -> Reading:
    rows = [((s.pillow, state), int(s.state == state)) for s in statuses for state in STATES]
    return Reading(name="pillowd_tails", rows=rows)


def _databases(statuses: Sequence[TailStatus]) -> Reading:
    several = [(s.pillow, s.databases) for s in statuses if s.databases is not None]
    rows = [
        ((pillow, state), counts.get(state, 0)) for pillow, counts in several for state in DATABASE_STATES
    ]
    return Reading(name="pillowd_databases", rows=rows)


def pass_ratio(status: TailStatus) -> float | None:
    """Return how much of the running pass is done; 1 when none is running, None if that is not known.

    A reset sets the number of changes to 0, so it is that of the pass.
    """
    if status.pass_number is None:
        return 1.0 if status.state is State.LIVE or status.epoch is not None else None
    if status.pending is None:
        return None
    total = status.changes + status.pending
    return status.changes / total if total else 1.0


class SourceCollector(Collector):
    """Collects the metric families of the sources.

    Args:
        connections: returns name -> facts of each connection to a source.
    """

    def __init__(self, connections: Callable[[], Mapping[str, ConnectionFacts]]) -> None:
        self._connections = connections

    def collect(self) -> Iterator[Family]:
        """Yield each family."""
        connections = self._connections()
        opened = new_family("pillowd_source_connections")
        requests = new_family("pillowd_source_requests_total")
        for name, facts in connections.items():
            opened.add_metric([name], facts.open)
            for outcome in OUTCOMES:
                requests.add_metric([name, outcome], facts.outcomes.get(outcome, 0))
        yield opened
        yield requests


class RequestCollector(Collector):
    """Collects the metric family of the requests to the HTTP API.

    Args:
        requests: (operation, method, status) -> how many; counted by the listeners.
    """

    def __init__(self, requests: Mapping[tuple[str, str, int], int]) -> None:
        self._requests = requests

    def collect(self) -> Iterator[Family]:
        """Yield the family."""
        family = new_family("pillowd_http_requests_total")
        for (operation, method, status), count in sorted(self._requests.items()):
            family.add_metric([operation, method, str(status)], count)
        yield family


class RebuildCollector(Collector):
    """Collects the metric families of rebuilds.

    Args:
        rebuilds: returns the record of each pillow that was rebuilt.
    """

    def __init__(self, rebuilds: Callable[[], Mapping[TailKey, Rebuild]]) -> None:
        self._rebuilds = rebuilds

    def collect(self) -> Iterator[Family]:
        """Yield each family."""
        states, waiting = new_family("pillowd_rebuild_state"), new_family("pillowd_rebuild_waiting")
        for key, rebuild in self._rebuilds().items():
            for state in REBUILD_STATES:
                states.add_metric([key.pillow, state], int(rebuild.state == state))
            waiting.add_metric([key.pillow], int(rebuild.has_other and bool(rebuild.reason)))
        yield states
        yield waiting


class BackfillCollector(Collector):
    """Collects the metric families of backfills that run or wait.

    Args:
        statuses: returns the status of every tail.
        backfills: returns the progress of a tail's backfill; see `Backfills.measure`.
    """

    def __init__(
        self,
        statuses: Callable[[], Sequence[TailStatus]],
        backfills: Callable[[TailKey], Mapping[str, Any] | None],
    ) -> None:
        self._statuses = statuses
        self._backfills = backfills

    def collect(self) -> Iterator[Family]:
        """Yield each family."""
        documents = new_family("pillowd_backfill_documents")
        rate = new_family("pillowd_backfill_documents_per_second")
        to_go = new_family("pillowd_backfill_seconds_to_go")
        for status in self._statuses():
            progress = self._backfills(TailKey(status.pillow, status.source))
            if progress is None:
                continue
            for outcome in BACKFILLED:
                documents.add_metric([status.pillow, outcome], progress[outcome])
            if progress["documents"] is not None:
                left = progress["documents"] - sum(progress[outcome] for outcome in BACKFILLED)
                documents.add_metric([status.pillow, "left"], left)
            rate.add_metric([status.pillow], progress["per_second"])
            if progress["seconds_to_go"] is not None:
                to_go.add_metric([status.pillow], progress["seconds_to_go"])
        yield documents
        yield rate
        yield to_go


class ReloadCollector(Collector):
    """Collects the metric families of the configuration.

    Args:
        reload: returns the outcome of the reloads so far.
    """

    def __init__(self, reload: Callable[[], ReloadRecord]) -> None:
        self._reload = reload

    def collect(self) -> Iterator[Family]:
        """Yield each family."""
        facts = self._reload()
        successful = new_family("pillowd_config_last_reload_successful")
        successful.add_metric([], int(facts.successful))
        yield successful
        succeeded_at = new_family("pillowd_config_last_reload_success_timestamp_seconds")
        succeeded_at.add_metric([], facts.succeeded_at)
        yield succeeded_at


class CertificateCollector(Collector):
    """Collects the metric family of the certificates.

    Args:
        expiries: returns the wall-clock seconds when the certificates of listeners expire.
    """

    def __init__(self, expiries: Callable[[], Sequence[float]]) -> None:
        self._expiries = expiries

    def collect(self) -> Iterator[Family]:
        """Yield the family."""
        family = new_family("pillowd_tls_certificate_expiry_timestamp_seconds")
        for expires_at in self._expiries():
            family.add_metric([], expires_at)
        yield family
