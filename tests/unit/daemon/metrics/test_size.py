"""The cost of metrics for many pillows: series, bytes, memory, and turns of the hub."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from msgspec.structs import replace

from checkpoints import TailKey
from tests.support.hub_meter import HubMeter
from tests.support.memory import MIB, peak_bytes, reset_peak
from tests.support.sizes import size
from tests.unit.daemon.metrics.conftest import LABELS, STATUS, Scrape

PILLOWS = size(ci=10, proof=200)
#: Of 200 pillows with two transports each.
MOST_SERIES, MOST_BYTES, MOST_MEMORY_BYTES = 24_000, 1_300_000, 25 * MIB
MOST_TURN_SECONDS = 0.05


def test_many_pillows_are_scraped_in_short_turns(tmp_path: Path) -> None:
    gc.collect()
    before_bytes = reset_peak()
    scrape = Scrape(tmp_path)
    keys = [TailKey(f"pillow-{number}", f"couch/database-{number}") for number in range(PILLOWS)]
    for key in keys:
        scrape.start(key, replace(LABELS, source=key.source.partition("/")[2]))
        observer = scrape.metrics.observer
        observer.verified(key, differences={name: {} for name in LABELS.transports})
        for name in LABELS.transports:
            observer.write(key, transport=name, documents={"applied": 3}, size_bytes=9, seconds=0.1)
    scrape.statuses = [replace(STATUS, pillow=key.pillow, source=key.source) for key in keys]
    gc.collect()  # garbage of the start would count as the scrape's
    meter = HubMeter(time.thread_time)
    with meter.measure():
        for _ in range(size(ci=2, proof=10)):
            scrape.metrics.render()
        text = scrape.metrics.render().text
        packed = scrape.metrics.render(accept_encoding="gzip").text
    taken_bytes = peak_bytes() - before_bytes
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    print(
        f"\n{PILLOWS} pillows with 2 transports: {series} series, {len(packed)} bytes packed of {len(text)}, "
        f"{taken_bytes / MIB:.1f} MiB, longest turn {meter.longest_seconds * 1000:.1f} ms of CPU"
    )
    assert series / PILLOWS < MOST_SERIES / 200 * size(ci=2, proof=1)
    assert len(text) < MOST_BYTES, "packed it is a fifteenth of that"
    assert taken_bytes < MOST_MEMORY_BYTES
    assert meter.longest_seconds < MOST_TURN_SECONDS


def test_a_series_more_of_a_pillow_is_none_of_its_database(tmp_path: Path) -> None:
    """A pillow has as many series whatever it reads, and however often."""
    scrape = Scrape(tmp_path)
    before = len(scrape.series())
    for number in range(100):
        scrape.metrics.observer.dead_letter(
            TailKey("cases", "couch/cases"), transport="search", id=f"d{number}", stage="filter", error="x"
        )
    assert len(scrape.series()) == before
