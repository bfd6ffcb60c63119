"""The page "Watch pillowd with Prometheus and Grafana", followed with a real Prometheus."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.metrics.dashboard import make_dashboard
from tests.acceptance.process import ROOT, Pillowd, couchdb
from tests.conftest import ending_without_server
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port
from tests.servers.prometheus import Prometheus, promtool
from tests.support.certificate import make_certificate
from tests.support.waiting import wait_until

PAGE = (ROOT / "docs" / "how-to" / "watch-with-prometheus.md").read_text()
RULES = (ROOT / "etc" / "prometheus" / "pillowd.rules.yml").read_text()
ADDRESS = "127.0.0.1:9147"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def daemon(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Pillowd]:
    source = {"connection": "couch", "database": couch_db.name}
    cert, key = make_certificate(tmp_path)
    tls = {"cert": str(cert), "key": str(key)}
    tokens = [{"name": "ops", "sha256": "0" * 64, "scopes": ["read"]}]
    built = Pillowd(
        tmp_path,
        connections={
            "couch": couchdb(couch.url, couch.auth),
            "copy": {"type": "sqlite", "path": str(tmp_path / "copy.sqlite")},
        },
        pillows={
            "cases": {
                "source": source,
                "filter": {"jmespath": "doc.n != `1`"},
                "transport": [{"connection": "copy", "table": "cases"}],
                "verify": {"every": "1s"},
            },
            "each": {
                "source": {"connection": "couch", "databases": f"{couch_db.name}*"},
                "transport": [{"connection": "copy", "table": "each"}],
            },
        },
        daemon={
            "http": {"listen": f"127.0.0.1:{free_port()}"},
            "admin": {"tcp": {"listen": f"127.0.0.1:{free_port()}", "tls": tls, "tokens": tokens}},
        },
    )
    with built:
        yield built.start()


@pytest.fixture
def prometheus(daemon: Pillowd) -> Iterator[Prometheus]:
    (shown,) = blocks("yaml")
    ours = {ADDRESS: address_of(daemon), "scrape_interval: 15s": "scrape_interval: 300ms"}
    for written, replaced in ours.items():
        assert written in shown
        shown = shown.replace(written, replaced)
    with ending_without_server():
        server = Prometheus(yaml.safe_load(shown), rules=RULES).__enter__()
    yield server
    server.close()


def address_of(daemon: Pillowd) -> str:
    return str(daemon.settings["daemon"]["http"]["listen"])


def has_values(series: list[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(each["value"][1])) for each in series)


def test_every_panel_shows_values_of_a_real_daemon(
    daemon: Pillowd, prometheus: Prometheus, couch_db: CouchDatabase
) -> None:
    curl, check = blocks("sh")
    shown = subprocess.run(
        ["sh", "-c", curl.replace(ADDRESS, address_of(daemon))], capture_output=True, text=True, check=True
    ).stdout
    assert 'pillowd_tails{pillow="cases",state="' in shown
    checked = promtool("check", "metrics", text=shown)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert check.split()[0] == "promtool"
    checked = promtool(*check.split()[1:-1], prometheus.config)
    assert checked.returncode == 0, checked.stderr

    queries = {
        target["expr"].replace("$instance", ".*").replace("$pillow", ".*").replace("$__rate_interval", "20s")
        for panel in make_dashboard()["panels"]
        for target in panel.get("targets", ())
    }
    assert len(queries) > 30
    numbers = count()

    def list_empty() -> set[str]:
        if any("verify" not in query for query in queries):  # a comparison wants a moment's rest
            couch_db.put(f"case-{next(numbers)}", {"n": 2})
        queries.difference_update([query for query in queries if has_values(prometheus.query(query))])
        return queries

    wait_until(lambda: not list_empty(), seconds=90, explain=lambda: queries)
    assert prometheus.firing() == set()
