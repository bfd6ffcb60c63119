"""Each alert's fault is really there, and a real Prometheus that scrapes the real daemon says that it fires.

Nobody waits for an hour: the rules are those of `etc/prometheus/`, with durations and thresholds divided.
Thresholds of documents and bytes are divided too, so that a few hundred documents are many.
"""

from __future__ import annotations

import re
import signal
import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.process import ROOT, Pillowd, couchdb
from tests.conftest import ending_without_server
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port
from tests.servers.prometheus import Prometheus, promtool
from tests.support.waiting import wait_until

RULES = (ROOT / "etc" / "prometheus" / "pillowd.rules.yml").read_text()

#: A minute of the rules takes this long, but ranges and thresholds have room for some scrapes.
MINUTE_SECONDS, LEAST_SECONDS, MOST_SECONDS = 1.0, 5, 20
#: A document counts for so many.
DOCUMENTS = 100

#: No faults that a test makes in a few seconds: half a million changes that come again, a disk that is nearly
#: full, and a hub that is blocked in such a way that scrapes of a second still get through.
#: `tests/integration/test_alerts.py` has them.
NOT_HERE = {"PillowdRewound", "PillowdDiskLow", "PillowdHubBlocked"}

PLUGIN = """
    import time
    from pillows import AppendOnlyTransport, Options, OutputOptions, register

    def spoil(doc):
        if doc["n"] % 2:
            raise ValueError("by design")
        return doc

    def block(doc):
        end = time.perf_counter() + (0.8 if doc.get("late") else 0)
        while time.perf_counter() < end:
            pass
        return doc

    @register("transport", "crashing")
    class Crashing(AppendOnlyTransport):
        Connection = Options
        Output = OutputOptions

        def write(self, batch):
            raise KeyboardInterrupt
"""


def shorten(rules: str) -> str:
    """Return the same rules in another scale of time and number."""
    units = {"m": 1, "h": 60, "d": 24 * 60}

    def time(found: re.Match[str]) -> str:
        seconds = int(found[2]) * units[found[3]] * MINUTE_SECONDS
        return f"{found[1]}{min(MOST_SECONDS, max(LEAST_SECONDS, round(seconds)))}s{found[4]}"

    shorter = re.sub(r"(for: |\[)(\d+)([mhd])(\]|$)", time, rules, flags=re.MULTILINE)
    for threshold, less in {
        "_seconds) > 600": f"_seconds) > {LEAST_SECONDS}",
        "_seconds) > 3600": f"_seconds) > {2 * LEAST_SECONDS}",
        "_seconds > 120": f"_seconds > {LEAST_SECONDS}",
        "_seconds > 300": f"_seconds > {LEAST_SECONDS}",
        "8 * 86400": str(2 * LEAST_SECONDS),
        "> 2500": f"> {2500 // DOCUMENTS}",
        "> 5000": f"> {5000 // DOCUMENTS}",
        "> 10000": f"> {10000 // DOCUMENTS}",
    }.items():
        assert threshold in shorter, threshold
        shorter = re.sub(re.escape(threshold) + r"\b", less, shorter)
    return shorter


@pytest.fixture
def daemon(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Pillowd]:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "faults.py").write_text(textwrap.dedent(PLUGIN))

    def pillow(connection: str, database: str = couch_db.name, **more: Any) -> dict[str, Any]:
        output = {"table": "rows"} if connection.startswith("copy") else {}
        source = {"connection": "couch", "database": database, **more.pop("source", {})}
        return {"source": source, "transport": [{"connection": connection, **output}], **more}

    built = Pillowd(
        tmp_path,
        connections={
            "couch": couchdb(couch.url, couch.auth),
            **{f"copy{n}": {"type": "sqlite", "path": str(tmp_path / f"copy{n}.sqlite")} for n in range(5)},
            "away": {"type": "webhook", "url": f"http://127.0.0.1:{free_port()}/"},
            "bad": {"type": "crashing"},
        },
        pillows={
            "differs": pillow("copy0", verify={"every": "1s"}),
            "away": pillow("away"),
            "missing": pillow("copy1", "nowhere", source={"on_missing": "wait"}, verify={"every": "1s"}),
            "failed": pillow("copy2", "nowhere", source={"on_missing": "fail"}),
            "spoilt": pillow("copy3", transform={"python": "faults:spoil"}),
            "blocking": pillow("copy4", transform={"python": "faults:block"}),
            "crashing": pillow("bad"),
        },
        daemon={
            "http": {"listen": f"127.0.0.1:{free_port()}"},
            "plugins_path": [str(plugins)],
            "restart": {"initial": "100ms", "max": "200ms", "max_restarts": 1000},
        },
    )
    with built:
        yield built


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_every_alert_fires_at_its_fault(daemon: Pillowd, couch_db: CouchDatabase, tmp_path: Path) -> None:
    couch_db.bulk({"_id": f"d{number}", "n": number} for number in range(300))
    shorter = shorten(RULES)
    expected = {
        (rule["alert"], rule["labels"]["severity"])
        for rule in yaml.safe_load(RULES)["groups"][0]["rules"]
        if rule["alert"] not in NOT_HERE
    }
    daemon.start()
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"},
        "rule_files": ["pillowd.rules.yml"],
        "scrape_configs": [
            {
                "job_name": "pillowd",
                "scrape_interval": "1s",
                "static_configs": [
                    {"targets": [daemon.settings["daemon"]["http"]["listen"], f"127.0.0.1:{free_port()}"]}
                ],
            }
        ],
    }
    fired: set[tuple[str, str]] = set()
    with ExitStack() as stack, ending_without_server():
        prometheus = stack.enter_context(Prometheus(settings, rules=shorter))
        checked = promtool("check", "config", prometheus.config)
        assert checked.returncode == 0, checked.stderr
        wait_until(lambda: daemon.state("differs") == "live", seconds=120)
        with sqlite3.connect(tmp_path / "copy0.sqlite") as target:
            target.execute("delete from rows where _id = 'd7'")
        numbers = count(300)
        broken: list[int] = []  # once: a comparison reads the configuration, too

        def is_complete() -> bool:
            number = next(numbers)
            if number % 20 == 0:
                couch_db.put(f"d{number}", {"n": number // 20, "late": True})
            fired.update(prometheus.firing())
            if ("PillowdDiverges", "critical") in fired and not broken:
                broken.append(daemon.config.write_text("version: 1\nnonsense: true\n"))
                daemon.signal(signal.SIGHUP)
            return fired >= expected

        wait_until(is_complete, seconds=300, explain=lambda: expected - fired)
    print(f"\nfired: {', '.join(sorted(f'{name} {severity}' for name, severity in fired))}")
