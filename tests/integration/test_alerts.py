"""The alerts, by promtool: each fires when it must, and does not when that only looks alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.metrics.catalogue import CATALOGUE, CONFIGURED, list_series
from tests.conftest import ending_without_server
from tests.servers.prometheus import find_program, promtool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc" / "prometheus" / "pillowd.rules.yml"
HOW_TO = ROOT / "docs" / "how-to" / "watch-with-prometheus.md"

HOUR, DAY = 60, 24 * 60
DAY_SECONDS = 86_400

Series = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Series that fire an alert, and series that must not.

    Attributes:
        alert, severity: which one.
        fires, quiet: series -> its values in promtool's notation. Labels are completed.
        minutes: when it is looked at.
        step_minutes: between two values.
    """

    alert: str
    severity: str
    fires: Series
    quiet: Series
    minutes: int = 10
    step_minutes: int = 1
    name: str = field(default="")


LAG, BACKLOG = "pillowd_lag_seconds{P}", "pillowd_lag_changes{P}"
OTHER_LAG = 'pillowd_lag_seconds{D, pillow="cases~2"}'
FAILED, BACKS_OFF, PAUSED = (
    f'pillowd_databases{{P, state="{state}"}}' for state in ("failed", "backing-off", "paused")
)
HEARD = "pillowd_source_last_byte_timestamp_seconds{P}"
SAVED = "pillowd_checkpoint_last_success_timestamp_seconds{P}"
REWINDS = 'pillowd_rewinds_total{P, kind="repeated"}'
ADDED = 'pillowd_dead_letters_added_total{P, stage="transform"}'
RESTARTS = "pillowd_restarts_total{P}"
DIFFERENCES = 'pillowd_verify_differences{P, transport="warehouse", kind="missing"}'
VERIFIED = "pillowd_verify_last_run_timestamp_seconds{P}"
DELAYS = 'pillowd_hub_delay_seconds_bucket{D, le="BOUND"}'
BOUNDS = (*map(str, CATALOGUE["pillowd_hub_delay_seconds"].buckets), "+Inf")
#: Of a timer's 60 ticks a minute none is 10 ms late, or every tenth more than a second.
ON_TIME = {DELAYS.replace("BOUND", bound): "0+60x60" for bound in BOUNDS}
LATE = dict.fromkeys(ON_TIME, "0+54x60") | {DELAYS.replace("BOUND", "+Inf"): "0+60x60"}

CASES = [
    Case(
        alert="PillowdDown", severity="critical", fires={"up{D}": "1 1 0x60"}, quiet={"up{D}": "1x8 0 1x60"}
    ),
    Case(
        alert="PillowdFailed",
        severity="critical",
        fires={'pillowd_tails{P, state="failed"}': "0 1x60"},
        quiet={
            'pillowd_tails{P, state="failed"}': "0x60",
            'pillowd_tails{P, state="backing-off"}': "1x60",
        },
    ),
    Case(
        alert="PillowdDatabasesFailed",
        severity="warning",
        # A database that backs off has a turn now and then.
        fires={FAILED: "0x60", BACKS_OFF: "1x7 0 1x9 0 1x40"},
        quiet={FAILED: "0x60", BACKS_OFF: "1x10 0x60", PAUSED: "3x60"},
        minutes=25,
        name="for some minutes, or paused",
    ),
    Case(
        alert="PillowdLagging",
        severity="warning",
        fires={LAG: "601x60"},
        quiet={LAG: "600x60", OTHER_LAG: "9999x60"},
        name="another build",
    ),
    Case(
        alert="PillowdLagging",
        severity="critical",
        fires={LAG: "3601x60"},
        quiet={LAG: "3601x3 10x60"},
        name="for a moment",
    ),
    Case(
        alert="PillowdBacklogNotShrinking",
        severity="warning",
        fires={BACKLOG: "2501x400"},
        quiet={BACKLOG: "90000x200 2500 90000x200"},
        minutes=26 * HOUR,
        step_minutes=4,
    ),
    Case(
        alert="PillowdBacklogNotShrinking",
        severity="critical",
        fires={BACKLOG: "5001x400"},
        quiet={BACKLOG: "5000x400"},
        minutes=26 * HOUR,
        step_minutes=4,
    ),
    Case(
        alert="PillowdSourceSilent",
        severity="critical",
        fires={HEARD: "0x60", 'pillowd_tails{P, state="live"}': "1x60"},
        quiet={HEARD: "0x60", 'pillowd_tails{P, state="paused"}': "1x60"},
    ),
    Case(
        alert="PillowdCheckpointStalled",
        severity="critical",
        fires={SAVED: "0x60", BACKLOG: "1x60"},
        quiet={SAVED: "0x60", BACKLOG: "0x60"},
        name="nothing to do",
    ),
    Case(
        alert="PillowdRewound",
        severity="warning",
        fires={BACKLOG: "500001x60", REWINDS: "0x5 1x60"},
        quiet={BACKLOG: "500001x60", REWINDS: "0x60"},
        name="a first load",
    ),
    Case(
        alert="PillowdRewound",
        severity="critical",
        fires={BACKLOG: "1000001x60", REWINDS: "0x5 1x60"},
        quiet={BACKLOG: "1000000x60", REWINDS: "0x5 1x60"},
    ),
    Case(
        alert="PillowdDeadLetters",
        severity="warning",
        fires={"pillowd_dead_letters{P}": "5001x200"},
        quiet={"pillowd_dead_letters{P}": "0x30 9000x30 0x200"},
        minutes=2 * HOUR,
        name="for half an hour",
    ),
    Case(
        alert="PillowdDeadLetters",
        severity="critical",
        fires={"pillowd_dead_letters{P}": "10001x200"},
        quiet={"pillowd_dead_letters{P}": "10000x200"},
        minutes=2 * HOUR,
    ),
    Case(
        alert="PillowdDeadLettersAdded",
        severity="info",
        fires={ADDED: "0x100 1x200"},
        quiet={ADDED: "0 7x200"},
        minutes=2 * HOUR,
        name="long ago",
    ),
    Case(
        alert="PillowdRestartsOften",
        severity="warning",
        fires={RESTARTS: "0 1 2 3 4 5 5x60"},
        quiet={RESTARTS: "0 1 2 2x60"},
        minutes=9,
    ),
    Case(
        alert="PillowdRebuildWaits",
        severity="warning",
        fires={"pillowd_rebuild_waiting{P}": "1x60"},
        quiet={"pillowd_rebuild_waiting{P}": "1x14 0x60"},
        minutes=30,
    ),
    Case(
        alert="PillowdDiverges", severity="critical", fires={DIFFERENCES: "1x60"}, quiet={DIFFERENCES: "0x60"}
    ),
    Case(
        alert="PillowdNotVerified",
        severity="warning",
        fires={VERIFIED: f"-{8 * DAY_SECONDS}x60"},
        quiet={VERIFIED: f"-{7 * DAY_SECONDS}x60"},
    ),
    Case(
        alert="PillowdReloadFailed",
        severity="warning",
        fires={"pillowd_config_last_reload_successful{D}": "1 0x60"},
        quiet={"pillowd_config_last_reload_successful{D}": "1x60"},
    ),
    Case(
        alert="PillowdDiskLow",
        severity="critical",
        fires={"pillowd_state_directory_free_bytes{D}": "1073741823x60"},
        quiet={"pillowd_state_directory_free_bytes{D}": "1073741824x60"},
    ),
    Case(
        alert="PillowdCertificateExpires",
        severity="warning",
        fires={"pillowd_tls_certificate_expiry_timestamp_seconds{D}": f"{14 * DAY_SECONDS}x60"},
        quiet={"pillowd_tls_certificate_expiry_timestamp_seconds{D}": f"{15 * DAY_SECONDS}x60"},
    ),
    Case(alert="PillowdHubBlocked", severity="warning", fires=LATE, quiet=ON_TIME, minutes=15),
]


@pytest.fixture(scope="module", autouse=True)
def has_promtool() -> None:
    with ending_without_server():
        find_program("promtool")


def read_rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def complete(series: str) -> str:
    """Complete labels: `P` stands for a daemon and a pillow, `D` for a daemon."""
    daemon = 'job="pillowd", instance="one:9147"'
    return series.replace("{P", f'{{{daemon}, pillow="cases"').replace("{D", f"{{{daemon}")


def to_tests(case: Case) -> Iterator[dict[str, Any]]:
    for series, count in ((case.fires, 1), (case.quiet, 0)):
        firing = f'count(ALERTS{{alertname="{case.alert}", severity="{case.severity}", alertstate="firing"}})'
        yield {
            "interval": f"{case.step_minutes}m",
            "name": f"{case.alert} {case.severity} {'fires' if count else 'is quiet'} {case.name}",
            "input_series": [{"series": complete(name), "values": each} for name, each in series.items()],
            "promql_expr_test": [
                {
                    "expr": firing,
                    "eval_time": f"{case.minutes}m",
                    "exp_samples": [{"labels": "{}", "value": count}] if count else [],
                }
            ],
        }


def test_the_rules_are_valid() -> None:
    checked = promtool("check", "rules", RULES)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_each_alert_fires_and_is_quiet(tmp_path: Path) -> None:
    assert [(case.alert, case.severity) for case in CASES] == [
        (rule["alert"], rule["labels"]["severity"]) for rule in read_rules()
    ]
    for interval, cases in {
        "1m": [case for case in CASES if case.minutes < DAY],
        "5m": [case for case in CASES if case.minutes >= DAY],
    }.items():
        tests = {
            "rule_files": [str(RULES)],
            "evaluation_interval": interval,
            "tests": [test for case in cases for test in to_tests(case)],
        }
        file = tmp_path / f"{interval}.yml"
        file.write_text(yaml.safe_dump(tests, sort_keys=False))
        done = promtool("test", "rules", file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_ask_for_what_there_is() -> None:
    known = {name: metric for metric in CATALOGUE.values() for name in list_series(metric)}
    for rule in read_rules():
        for name, matchers in re.findall(r"\b(pillowd_\w+)(?:\{([^}]*)\})?", rule["expr"]):
            assert name in known, rule["alert"]
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                allowed = known[name].labels[label]
                assert allowed == CONFIGURED or set(values.split("|")) <= set(allowed), rule["alert"]


def test_each_alert_says_what_to_do() -> None:
    lines = HOW_TO.read_text().splitlines()
    headings = {line.lstrip("# ").lower() for line in lines if line.startswith("#")}
    for rule in read_rules():
        notes = rule["annotations"]
        assert notes["summary"].endswith("."), rule["alert"]
        assert len(notes["description"]) > 90, rule["alert"]
        page, _, anchor = notes["runbook_url"].partition("#")
        assert (ROOT / page, anchor) == (HOW_TO, rule["alert"].lower())
        assert anchor in headings
