"""All metrics: name, type, labels and meaning.

Labels have few values: names in the configuration, or those listed here, but never a document's id, a token,
a URL, the text of an error, or a database. `pillowd_pillow_info` alone names the database of a pillow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct, field

from daemon.rebuilds.record import RebuildState
from pillows.observer import Rewind
from pillows.runtime.status import State

Type = Literal["counter", "gauge", "histogram"]

#: Values of labels that are names of the configuration.
CONFIGURED: Sequence[str] = ()

STATES = tuple(str(state) for state in State)
STAGES = ("filter", "trigger", "transform", "write", "checkpoint")
DEAD_STAGES = ("filter", "trigger", "transform", "transport")
RESULTS = ("applied", "equal", "stale", "dead")
SAVES = ("ok", "error")
OUTCOMES = ("ok", "retry", "throttled", "refused")
PLACES = ("source", "target", "checkpoint")
REWINDS = tuple(str(kind) for kind in Rewind)
REBUILD_STATES = tuple(str(state) for state in RebuildState)
BACKFILLED = ("done", "failed")
DIFFERENCES = ("missing", "stale", "extra")

#: Few: histograms are more than half of the text, and each bound more is a series of each transport.
_DURATIONS = (0.005, 0.05, 0.25, 1.0, 5.0, 30.0)
_HUB_DELAYS = (0.01, 0.05, 0.1, 0.5, 1.0)
_PILLOW = {"pillow": CONFIGURED}
_TRANSPORT = {"pillow": CONFIGURED, "transport": CONFIGURED}


class Metric(Struct, frozen=True, kw_only=True):
    """A family of series.

    Attributes:
        name: as Prometheus shows it; a histogram's has no `_bucket`.
        type: its type.
        help: its meaning.
        labels: name -> values; `CONFIGURED` for names of the configuration.
        buckets: upper bounds of a histogram, in seconds.
    """

    name: str
    type: Type
    help: str
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    buckets: Sequence[float] = ()


def _gauge(name: str, meaning: str, labels: Mapping[str, Sequence[str]] | None = None) -> Metric:
    return Metric(name=name, type="gauge", help=meaning, labels=labels or {})


def _counter(name: str, meaning: str, labels: Mapping[str, Sequence[str]] | None = None) -> Metric:
    return Metric(name=name, type="counter", help=meaning, labels=labels or {})


#: The states of the databases of a pillow that reads several.
DATABASE_STATES = ("parked", "queued", "active", "backing-off", "failed", "paused", "deleted")

#: The process.
PROCESS = (
    _gauge(
        "pillowd_build_info",
        "Always 1. The version of pillowd and of Python.",
        {"version": CONFIGURED, "python": CONFIGURED},
    ),
    _gauge(
        "pillowd_config_last_reload_successful",
        "1 if the configuration that was read last is the one that runs; 0 if it was refused.",
    ),
    _gauge(
        "pillowd_config_last_reload_success_timestamp_seconds",
        "When the configuration in effect was read, in seconds since 1970.",
    ),
    Metric(
        name="pillowd_hub_delay_seconds",
        type="histogram",
        help="How late a timer of one second fires. A long delay means that something blocked all pillows.",
        buckets=_HUB_DELAYS,
    ),
    _gauge("pillowd_greenlets", "Greenlets that run or wait."),
    _gauge("pillowd_state_directory_free_bytes", "Free space on the disk of the state directory."),
    _gauge(
        "pillowd_tls_certificate_expiry_timestamp_seconds",
        "When the certificate of the TCP listener expires, in seconds since 1970; absent without one.",
    ),
    _counter(
        "pillowd_http_requests_total",
        "Requests to the HTTP API, by operation, method and status.",
        {"route": CONFIGURED, "method": CONFIGURED, "status": CONFIGURED},
    ),
)

#: The sources.
SOURCES = (
    _gauge("pillowd_source_connections", "Open connections to a CouchDB server.", {"connection": CONFIGURED}),
    _counter(
        "pillowd_source_requests_total",
        "Requests to a CouchDB server: answered (`ok`), failed for a time (`retry`), put off because it has "
        "too many (`throttled`), or refused.",
        {"connection": CONFIGURED, "outcome": OUTCOMES},
    ),
)

#: The pillows.
PILLOWS = (
    _gauge(
        "pillowd_pillow_info",
        "Always 1. The connection and the database that a pillow reads from.",
        {"pillow": CONFIGURED, "connection": CONFIGURED, "source": CONFIGURED},
    ),
    _gauge("pillowd_tails", "Tails of a pillow in each state.", {"pillow": CONFIGURED, "state": STATES}),
    _gauge(
        "pillowd_databases",
        "Databases of a pillow that reads several, in each state.",
        {"pillow": CONFIGURED, "state": DATABASE_STATES},
    ),
    _counter("pillowd_changes_total", "Changes that were read.", _PILLOW),
    _counter("pillowd_changes_filtered_total", "Changes whose document the filter left out.", _PILLOW),
    _gauge(
        "pillowd_lag_changes",
        "Changes that are not acknowledged: those that the source says are unread, and those in flight.",
        _PILLOW,
    ),
    _gauge(
        "pillowd_lag_seconds",
        "Time since the pillow was last up to date. At the head, the age of the oldest "
        "change in flight; anywhere else, the time since the pillow was last at the head.",
        _PILLOW,
    ),
    _gauge(
        "pillowd_source_last_byte_timestamp_seconds",
        "When the source last sent anything, a heartbeat included; before its first byte, when pillowd "
        "started. In seconds since 1970.",
        _PILLOW,
    ),
    _gauge(
        "pillowd_checkpoint_last_success_timestamp_seconds",
        "When the saved checkpoint was made, in seconds since 1970; before the first, when pillowd started.",
        _PILLOW,
    ),
    _counter(
        "pillowd_checkpoint_saves_total",
        "Attempts to save a checkpoint.",
        {"pillow": CONFIGURED, "result": SAVES},
    ),
    _gauge(
        "pillowd_uncheckpointed_changes",
        "Acknowledged changes after the saved checkpoint; after a crash they are read again.",
        _PILLOW,
    ),
    Metric(
        name="pillowd_delivery_latency_seconds",
        type="histogram",
        help="Time from the arrival of a change to its acknowledgement by every transport; one observation "
        "for each batch, of its oldest change.",
        labels=_PILLOW,
        buckets=_DURATIONS,
    ),
    _counter(
        "pillowd_stage_seconds_total",
        "Time spent in each stage. Filter, trigger and transform are estimated from one change in 16; writes "
        "of several transports add up.",
        {"pillow": CONFIGURED, "stage": STAGES},
    ),
    _counter(
        "pillowd_retries_total",
        "Waits before another attempt.",
        {"pillow": CONFIGURED, "where": PLACES},
    ),
    _gauge("pillowd_dead_letters", "Documents that are stored because they could not be written.", _PILLOW),
    _counter(
        "pillowd_dead_letters_added_total",
        "Documents that became dead letters, by the stage that failed.",
        {"pillow": CONFIGURED, "stage": DEAD_STAGES},
    ),
    _counter(
        "pillowd_rewinds_total",
        "How often changes came again: the source repeated them, its documents regressed, the database was "
        "recreated, or an operator edited the checkpoint.",
        {"pillow": CONFIGURED, "kind": REWINDS},
    ),
    _counter("pillowd_restarts_total", "Restarts of a pillow that crashed or hung.", _PILLOW),
    _gauge("pillowd_workers", "Worker processes of a pillow.", _PILLOW),
    _counter(
        "pillowd_worker_restarts_total",
        "Worker processes that were replaced: they crashed, hung, were killed, or took too much memory.",
        _PILLOW,
    ),
    _counter(
        "pillowd_divergences_total",
        "Documents that one transport wrote and another can never write.",
        _PILLOW,
    ),
    _gauge("pillowd_epoch", "The running epoch.", _PILLOW),
    _gauge(
        "pillowd_pass_ratio",
        "How much of the running pass is done, from 0 to 1; 1 when no pass is running.",
        _PILLOW,
    ),
    _gauge(
        "pillowd_seconds_to_go",
        "How long a pillow that catches up needs at its present rate; the other build of a rebuild, too.",
        _PILLOW,
    ),
    _gauge(
        "pillowd_backfill_documents",
        "Documents of the backfill that runs or waits first. How many are left is known once all are listed.",
        {"pillow": CONFIGURED, "outcome": (*BACKFILLED, "left")},
    ),
    _gauge(
        "pillowd_backfill_documents_per_second",
        "Documents that a backfill sends per second, on average over the last 30 s.",
        _PILLOW,
    ),
    _gauge("pillowd_backfill_seconds_to_go", "How long a backfill needs at its present rate.", _PILLOW),
    _gauge("pillowd_queue_bytes", "Size of the documents that wait to be written.", _PILLOW),
    _gauge(
        "pillowd_rebuild_state",
        "1 for the state that the rebuild of a pillow is in. A pillow that was never rebuilt has none.",
        {"pillow": CONFIGURED, "state": REBUILD_STATES},
    ),
    _gauge(
        "pillowd_rebuild_waiting",
        "1 if something keeps a rebuild from its next state; `pillowd rebuild status` says what.",
        _PILLOW,
    ),
    _gauge(
        "pillowd_verify_differences",
        "Documents that differed between source and target at the last comparison.",
        {"pillow": CONFIGURED, "transport": CONFIGURED, "kind": DIFFERENCES},
    ),
    _gauge(
        "pillowd_verify_last_run_timestamp_seconds",
        "When source and targets were last compared, in seconds since 1970; before the first comparison that "
        "is scheduled, when pillowd started.",
        _PILLOW,
    ),
)

#: The targets.
TARGETS = (
    _counter(
        "pillowd_documents_total",
        "Documents that are settled in a target: written (`applied`), found there in the same (`equal`) or a "
        "newer version (`stale`), or refused for good (`dead`).",
        {**_TRANSPORT, "result": RESULTS},
    ),
    _counter(
        "pillowd_written_bytes_total",
        "Size of the documents settled in a target, as CouchDB sent them.",
        _TRANSPORT,
    ),
    _gauge("pillowd_in_flight_batches", "Batches that are being written.", _TRANSPORT),
    Metric(
        name="pillowd_batch_duration_seconds",
        type="histogram",
        help="Time from the first attempt to write a batch to its end in one target.",
        labels=_TRANSPORT,
        buckets=_DURATIONS,
    ),
    _gauge(
        "pillowd_delivery_last_success_timestamp_seconds",
        "When a batch was last settled in a target, in seconds since 1970; not there before the first.",
        _TRANSPORT,
    ),
)

#: Section -> its metrics, in the order of the reference page.
SECTIONS: Mapping[str, Sequence[Metric]] = {
    "Pillows": PILLOWS,
    "Targets": TARGETS,
    "Sources": SOURCES,
    "Process": PROCESS,
}
#: Name -> metric.
CATALOGUE: Mapping[str, Metric] = {metric.name: metric for section in SECTIONS.values() for metric in section}


def list_series(metric: Metric) -> list[str]:
    """Return the names of the series of a family, as a query writes them."""
    if metric.type != "histogram":
        return [metric.name]
    return [metric.name + suffix for suffix in ("_bucket", "_count", "_sum")]
