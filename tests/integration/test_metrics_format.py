"""promtool accepts the metrics that the daemon serves."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import ending_without_server
from tests.servers.prometheus import find_program, promtool
from tests.unit.daemon.metrics.conftest import KEY, LABELS, Scrape


def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    with ending_without_server():
        find_program("promtool")
    scrape = Scrape(tmp_path)
    scrape.metrics.observer.verified(KEY, differences={name: {} for name in LABELS.transports})
    for name in LABELS.transports:
        scrape.metrics.observer.write(KEY, transport=name, documents={}, size_bytes=0, seconds=0)
    scrape.requests["get_metrics", "GET", 200] += 1
    checked = promtool("check", "metrics", text=scrape.text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
