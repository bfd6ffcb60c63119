"""Write the Grafana dashboard: `python -m daemon.metrics.dashboard > etc/grafana/pillowd.json`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from msgspec import Struct

from daemon.metrics.catalogue import CATALOGUE, list_series

#: What prometheus-client itself says of the process.
PROCESS_SERIES = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_start_time_seconds",
}
_KNOWN = PROCESS_SERIES | {name for metric in CATALOGUE.values() for name in list_series(metric)}
_NAME = re.compile(r"\b(?:pillowd|process)_\w+")

#: Width of the dashboard, and the size of a panel, in Grafana's units.
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 7
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

#: Selects the daemons, and the pillows, that are chosen above the dashboard.
_D = '{instance=~"$instance"}'
_P = '{instance=~"$instance", pillow=~"$pillow"}'
_NOT_PARKED = '{instance=~"$instance", pillow=~"$pillow", state!="parked"}'
_RATE = "[$__rate_interval]"


class UnknownMetricError(ValueError):
    """A panel asks for something that the catalogue does not have."""


class Panel(Struct, frozen=True, kw_only=True):
    """One panel.

    Attributes:
        title: the heading.
        queries: (expression, legend) of each line.
        unit: Grafana's name of the unit.
        kind: `timeseries` or `stat`.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"

    def __post_init__(self) -> None:
        """Check every name.

        Raises:
            UnknownMetricError: a query names a metric that is not in the catalogue.
        """
        for expression, _ in self.queries:
            if unknown := sorted(set(_NAME.findall(expression)) - _KNOWN):
                raise UnknownMetricError(f"{self.title}: {', '.join(unknown)}")


def _quantile(quantile: float, histogram: str, by: str, select: str = _P) -> str:
    return f"histogram_quantile({quantile}, sum by ({by}, le) (rate({histogram}_bucket{select}{_RATE})))"


#: Row -> its panels.
ROWS: dict[str, Sequence[Panel]] = {
    "Overview": (
        Panel(
            title="Pillows by state",
            kind="stat",
            queries=[(f"sum by (state) (pillowd_tails{_D})", "{{state}}")],
        ),
        Panel(
            title="Largest lag",
            unit="s",
            kind="stat",
            queries=[(f"max by (pillow) (pillowd_lag_seconds{_D})", "{{pillow}}")],
        ),
        Panel(
            title="Changes per second",
            unit="cps",
            queries=[(f"sum by (instance) (rate(pillowd_changes_total{_D}{_RATE}))", "{{instance}}")],
        ),
    ),
    "Pillows": (
        Panel(title="Lag", unit="s", queries=[(f"pillowd_lag_seconds{_P}", "{{pillow}}")]),
        Panel(title="Changes to do", queries=[(f"pillowd_lag_changes{_P}", "{{pillow}}")]),
        Panel(
            title="Changes per second, read and left out",
            unit="cps",
            queries=[
                (f"rate(pillowd_changes_total{_P}{_RATE})", "{{pillow}}"),
                (f"rate(pillowd_changes_filtered_total{_P}{_RATE})", "{{pillow}} left out"),
            ],
        ),
        Panel(
            title="From arrival to acknowledgement",
            unit="s",
            queries=[
                (_quantile(0.5, "pillowd_delivery_latency_seconds", "pillow"), "{{pillow}} median"),
                (_quantile(0.99, "pillowd_delivery_latency_seconds", "pillow"), "{{pillow}} p99"),
            ],
        ),
        Panel(
            title="Where the time goes",
            unit="percentunit",
            queries=[(f"rate(pillowd_stage_seconds_total{_P}{_RATE})", "{{pillow}} {{stage}}")],
        ),
        Panel(title="Pass", unit="percentunit", queries=[(f"pillowd_pass_ratio{_P}", "{{pillow}}")]),
        Panel(
            title="Waiting to be written", unit="bytes", queries=[(f"pillowd_queue_bytes{_P}", "{{pillow}}")]
        ),
        Panel(
            title="Checkpoints",
            queries=[
                (f"pillowd_uncheckpointed_changes{_P}", "{{pillow}} changes after it"),
                (f"increase(pillowd_checkpoint_saves_total{_P}{_RATE})", "{{pillow}} saved, {{result}}"),
            ],
        ),
        Panel(
            title="Trouble",
            queries=[
                (f"increase(pillowd_retries_total{_P}{_RATE})", "{{pillow}} retries of {{where}}"),
                (f"increase(pillowd_restarts_total{_P}{_RATE})", "{{pillow}} restarts"),
                (f"increase(pillowd_rewinds_total{_P}{_RATE})", "{{pillow}} {{kind}}"),
            ],
        ),
        Panel(
            title="Databases of pillows on several",
            queries=[(f"sum by (instance, pillow) (pillowd_databases{_P})", "{{pillow}}")],
        ),
        Panel(
            title="Databases that are not parked",
            queries=[(f"pillowd_databases{_NOT_PARKED}", "{{pillow}} {{state}}")],
        ),
    ),
    "Sources": (
        Panel(
            title="Since the last byte",
            unit="s",
            queries=[(f"time() - pillowd_source_last_byte_timestamp_seconds{_P}", "{{pillow}}")],
        ),
        Panel(
            title="Requests per second",
            unit="reqps",
            queries=[(f"rate(pillowd_source_requests_total{_D}{_RATE})", "{{connection}} {{outcome}}")],
        ),
        Panel(title="Connections", queries=[(f"pillowd_source_connections{_D}", "{{connection}}")]),
    ),
    "Targets": (
        Panel(
            title="Documents per second",
            unit="cps",
            queries=[(f"rate(pillowd_documents_total{_P}{_RATE})", "{{pillow}} {{transport}} {{result}}")],
        ),
        Panel(
            title="Bytes per second",
            unit="Bps",
            queries=[(f"rate(pillowd_written_bytes_total{_P}{_RATE})", "{{pillow}} {{transport}}")],
        ),
        Panel(
            title="Time to write a batch",
            unit="s",
            queries=[
                (
                    _quantile(0.5, "pillowd_batch_duration_seconds", "pillow, transport"),
                    "{{pillow}} {{transport}} median",
                ),
                (
                    _quantile(0.99, "pillowd_batch_duration_seconds", "pillow, transport"),
                    "{{pillow}} {{transport}} p99",
                ),
            ],
        ),
        Panel(
            title="Batches in flight",
            queries=[(f"pillowd_in_flight_batches{_P}", "{{pillow}} {{transport}}")],
        ),
        Panel(
            title="Since the last delivery",
            unit="s",
            queries=[
                (
                    f"time() - pillowd_delivery_last_success_timestamp_seconds{_P}",
                    "{{pillow}} {{transport}}",
                )
            ],
        ),
    ),
    "Dead letters and comparisons": (
        Panel(title="Dead letters", queries=[(f"pillowd_dead_letters{_P}", "{{pillow}}")]),
        Panel(
            title="Dead letters added, and targets that disagree",
            queries=[
                (f"increase(pillowd_dead_letters_added_total{_P}{_RATE})", "{{pillow}} {{stage}}"),
                (f"increase(pillowd_divergences_total{_P}{_RATE})", "{{pillow}} disagree"),
            ],
        ),
        Panel(
            title="Differences at the last comparison",
            queries=[(f"pillowd_verify_differences{_P}", "{{pillow}} {{transport}} {{kind}}")],
        ),
        Panel(
            title="Since the last comparison",
            unit="s",
            queries=[(f"time() - pillowd_verify_last_run_timestamp_seconds{_P}", "{{pillow}}")],
        ),
    ),
    "Process": (
        Panel(
            title="How late timers are",
            unit="s",
            queries=[(_quantile(0.99, "pillowd_hub_delay_seconds", "instance", _D), "{{instance}} p99")],
        ),
        Panel(
            title="CPU",
            unit="percentunit",
            queries=[(f"rate(process_cpu_seconds_total{_D}{_RATE})", "{{instance}}")],
        ),
        Panel(
            title="Memory",
            unit="bytes",
            queries=[(f"process_resident_memory_bytes{_D}", "{{instance}}")],
        ),
        Panel(
            title="Greenlets and open files",
            queries=[
                (f"pillowd_greenlets{_D}", "{{instance}} greenlets"),
                (f"process_open_fds{_D}", "{{instance}} files"),
            ],
        ),
        Panel(
            title="Free space of the state directory",
            unit="bytes",
            queries=[(f"pillowd_state_directory_free_bytes{_D}", "{{instance}}")],
        ),
        Panel(
            title="Until the certificate expires",
            unit="s",
            kind="stat",
            queries=[(f"pillowd_tls_certificate_expiry_timestamp_seconds{_D} - time()", "{{instance}}")],
        ),
        Panel(
            title="Requests to pillowd",
            unit="reqps",
            queries=[(f"rate(pillowd_http_requests_total{_D}{_RATE})", "{{route}} {{status}}")],
        ),
        Panel(
            title="Running since",
            unit="s",
            kind="stat",
            queries=[(f"time() - process_start_time_seconds{_D}", "{{instance}}")],
        ),
        Panel(
            title="Configuration in effect",
            kind="stat",
            queries=[(f"pillowd_config_last_reload_successful{_D}", "{{instance}}")],
        ),
        Panel(
            title="Version",
            kind="stat",
            queries=[(f"pillowd_build_info{_D}", "{{instance}} {{version}}")],
        ),
    ),
}


def make_dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    return {
        "title": "pillowd",
        "uid": "pillowd",
        "tags": ["pillowd", "couchdb"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_make_variables())},
        "panels": list(_make_panels()),
    }


def _make_variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    for name, query in (
        ("instance", "label_values(pillowd_build_info, instance)"),
        ("pillow", 'label_values(pillowd_pillow_info{instance=~"$instance"}, pillow)'),
    ):
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
            "sort": 1,
        }


def _make_panels() -> Iterator[dict[str, Any]]:
    ids, y = count(1), 0
    for row, panels in ROWS.items():
        heading = {"type": "row", "title": row, "collapsed": False, "panels": []}
        yield {"id": next(ids), **heading, "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1}}
        y += 1
        for number, panel in enumerate(panels):
            line, column = divmod(number, _COLUMNS // _WIDTH)
            place = {"x": column * _WIDTH, "y": y + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            yield {"id": next(ids), **_make_panel(panel), "gridPos": place}
        y += (line + 1) * _HEIGHT


def _make_panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}}
        if panel.kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name"},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
            }
            for number, (expression, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    json.dump(make_dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
