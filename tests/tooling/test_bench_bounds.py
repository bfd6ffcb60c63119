"""The bounds of the machine, how much of them is reached, and the text about it in the documentation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import live
from bench.bounds import CLIENT_MICROS, CURL, READS, TARGETS, find_bound, find_shares
from bench.meter import Reading, median_of
from bench.peers import page
from bench.report import format_readings, format_shares
from bench.servers import PID, find_pid
from docs.measured import draw_bars, write_between_marks

DOCS = 1000


def reading(name: str, rate: float, **micros: float) -> Reading:
    """A run at a rate, with each process's CPU microseconds per document."""
    cpu = {process: each * DOCS / 1e6 for process, each in micros.items()}
    return Reading(name=name, docs=DOCS, wall_seconds=DOCS / rate, cpu_seconds=cpu, peak_mib=50.0)


READ = reading(CURL, 32_000, client=1, couchdb=56)
LOAD = reading("COPY alone", 99_000, client=5, postgres=10)


def test_the_cores_bound_what_three_busy_processes_can_do():
    assert find_bound(READ, LOAD, "postgres", 2) == pytest.approx(2e6 / (56 + 10 + CLIENT_MICROS))


@pytest.mark.parametrize(("read", "load", "bound"), [(9_000, 99_000, 9_000), (32_000, 8_000, 8_000)])
def test_neither_read_nor_load_can_be_beaten(read: float, load: float, bound: float):
    raw = reading(CURL, read, couchdb=1), reading("COPY alone", load, postgres=1)
    assert find_bound(*raw, "postgres", 64) == pytest.approx(bound)


def test_without_couchdbs_cpu_there_is_no_bound_and_no_bar_is_met():
    unknown = replace(READ, cpu_seconds={"client": 1.0})
    assert find_bound(unknown, LOAD, "postgres", 2) is None
    shares = find_shares(everyone(curl=unknown), 2)
    assert [share.is_met for share in shares] == [False, False, True]
    assert PID in format_shares(shares)


def everyone(*, curl: Reading = READ, into_postgres: float = 22_500.0) -> dict[str, Reading]:
    """A reading of every participant whose name a share needs."""
    readings = [curl, reading(READS[1], 21_000, couchdb=99)]
    for target in TARGETS:
        readings.append(replace(LOAD, name=target.load, cpu_seconds={target.server: 10 * DOCS / 1e6}))
        readings.append(reading(f"pillowd into {target.name}", into_postgres, client=20))
    return {each.name: each for each in readings}


@pytest.mark.parametrize(("rate", "met"), [(22_500, True), (22_300, False)])
def test_a_share_is_met_from_its_bar_on(rate: float, met: bool):
    (postgres, *_) = find_shares(everyone(into_postgres=rate), 2)
    assert postgres.bound == pytest.approx(24_390, abs=1)
    assert postgres.is_met is met
    assert ("NOT MET" in format_shares([postgres])) is not met


def test_the_faster_read_counts():
    slow = everyone(curl=reading(CURL, 20_000, couchdb=56))
    (postgres, *_) = find_shares(slow, 2)
    assert postgres.bound == pytest.approx(2e6 / (99 + 10 + CLIENT_MICROS))


def test_each_figure_of_the_median_is_a_median():
    rounds = [reading("x", rate, client=cpu) for rate, cpu in ((10, 3), (20, 1), (40, 2))]
    middle = median_of(rounds)
    assert (middle.rate, middle.cpu_micros()) == (20, pytest.approx(2))
    assert "| x | 20 | 10-40 | 2.0 | 2.0 | 50 |" in format_readings([rounds])


def test_a_process_that_does_not_run_is_refused():
    assert find_pid({}) == {}
    assert find_pid({PID: str(os.getpid())}) == {"couchdb": os.getpid()}
    for wrong in ("none", "-1", "4194305"):
        with pytest.raises(SystemExit, match="no such process runs here"):
            find_pid({PID: wrong})


@pytest.fixture
def figures() -> page.Figures:
    runs = [
        READ,
        LOAD,
        reading(page.OURS, 20_000, client=20, couchdb=60, postgres=11),
        reading(page.SCRIPT, 10_000, client=60, couchdb=60, postgres=20),
    ]
    return page.Figures(
        readings=[[each] for each in runs],
        parts={"lines (plain)": {"ours": 1.0, "original": 1.5, "ratio": 1.5}, "urls (plain)": {"ours": 2.0}},
        source="CouchDB 9",
        left_out="couch2pg: npm is not installed",
        cores=2,
    )


def test_a_run_writes_page_charts_and_readme(figures: page.Figures, monkeypatch, tmp_path: Path):
    for name in ("PAGE", "README", "IMAGES"):
        monkeypatch.setattr(page, name, tmp_path / name)
    page.PAGE.write_text("a\n<!-- peers: begin -->\nold\n<!-- peers: end -->\nz\n")
    page.README.write_text("a\n<!-- speed: begin -->\n<!-- speed: end -->\nz\n")
    page.IMAGES.mkdir()
    page.write(figures)
    written = page.PAGE.read_text()
    assert "old" not in written
    assert "2.0 times as fast as ChangesFollower + psycopg" in written
    assert "at most 24,390 documents per second; pillowd reached 0.82 of that" in written
    assert "| lines (plain) | 1.00 | 1.50 | 1.50 |" in written
    assert "urls" not in written
    assert "Not measured: couch2pg: npm is not installed." in written
    assert (
        " 20,000 documents of 500 bytes per second into PostgreSQL, 2.0 times as many"
        in page.README.read_text()
    )
    assert sorted(each.name for each in page.IMAGES.iterdir()) == [
        "speed-cpu.svg",
        "speed-memory.svg",
        "speed-rate.svg",
    ]


def test_a_chart_is_drawn_to_scale():
    drawn = ElementTree.fromstring(draw_bars("T", {"pillowd & co": 100.0, "another": 50.0}))
    (ours, another) = drawn.findall("{*}rect")
    assert float(ours.attrib["width"]) == 2 * float(another.attrib["width"])
    assert ours.attrib["fill"] != another.attrib["fill"]
    assert "pillowd & co 100, another 50" in (drawn.findtext("{*}title") or "")


def test_a_page_without_marks_is_left_alone(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("<!-- run: begin -->\n")
    with pytest.raises(ValueError, match="lacks"):
        write_between_marks(page, "x")
    assert page.read_text() == "<!-- run: begin -->\n"


def test_latencies_are_shown_beside_the_raw_reader_s():
    shown = live.format_latencies(
        [
            live.Latency(
                rate=300, writes=6000, feed_p50_ms=-0.14, feed_p99_ms=7.5, table_p50_ms=5.0, table_p99_ms=40.0
            )
        ]
    )
    assert shown.splitlines()[-1] == "| 300 | 6,000 | -0.1 | 7.5 | 5.0 | 40.0 |"


MEMORY = """
import json, sys
from bench.meter import measure
held = b"x" * 2**27  # this process is larger than the small program
large = [sys.executable, "-c", "x = b'x' * 2**28; import time; time.sleep(0.5)"]
print(json.dumps([measure("x", 1, command, {}).peak_mib for command in (["sleep", "0.5"], large)]))
"""


def test_the_memory_is_that_of_the_program_and_not_of_the_bench():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    small, large = json.loads(done.stdout)
    assert 0 < small < 64
    assert 256 < large < 350
