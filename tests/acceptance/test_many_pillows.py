"""Two hundred pillows in one daemon: what they take while nothing happens, and how soon they have a write."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import Pillowd
from tests.acceptance.world import live
from tests.servers.couch_client import CouchDatabase
from tests.support.sizes import proving, size

DATABASES, PILLOWS = size(ci=5, proof=50), size(ci=20, proof=200)
MOST_MIB, MOST_CPU, MOST_SECONDS = 140, 0.025, 2.0

#: How often Prometheus asks by default (its documentation's examples), and how it asks.
SCRAPE_SECONDS = 15.0
SCRAPE = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1", "Accept-Encoding": "gzip"}

#: Until everybody has joined who reads the same database, and for how long the idle ones are watched.
JOIN_SECONDS, WATCH_SECONDS = size(ci=1.0, proof=180.0), size(ci=1.0, proof=60.0)


@pytest.fixture
def databases(couch: Any) -> Iterator[list[CouchDatabase]]:
    with ExitStack() as stack:
        names = [f"test-{uuid.uuid4().hex[:12]}-{n}" for n in range(DATABASES)]
        made = [couch.database(name) for name in names]
        for database in made:
            stack.callback(database.close)
            database.create()
            stack.callback(database.drop)
        yield made


@pytest.mark.timeout(size(ci=240, proof=1200))
def test_many_idle_pillows_are_cheap_and_a_write_arrives_in_all_of_them(
    tmp_path: Path, couch: Any, databases: list[CouchDatabase]
) -> None:
    """Whole pillows, four to a database, each with a file of its own: what the issue names at full size."""
    for database in databases:
        database.fill(10)
    began = time.monotonic()
    with daemon(tmp_path, couch, databases) as running:
        ready_seconds = running.manager.messages[-1][0] - began
        running.wait_for(lambda: live(running), seconds=200)
        time.sleep(JOIN_SECONDS)
        began, used = time.monotonic(), cpu_seconds(running)
        scraped_bytes = watch(running, WATCH_SECONDS)
        cpu = (cpu_seconds(running) - used) / (time.monotonic() - began)
        memory_mib = resident_mib(running)

        began = time.monotonic()
        for database in databases:
            database.put("written", n=1)
        written = time.monotonic()
        running.wait_for(lambda: arrived(tmp_path) == PILLOWS)
        took_seconds = time.monotonic() - written
        assert running.stop() == 0
    print(
        f"\n{PILLOWS} pillows on {DATABASES} databases: ready after {ready_seconds:.2f} s, "
        f"{memory_mib:.0f} MiB, {cpu:.2%} of a core idle with scrapes of {scraped_bytes:,} bytes; "
        f"a write arrived in all {took_seconds:.2f} s after the last (writing took {written - began:.2f} s)"
    )
    assert memory_mib < MOST_MIB
    if proving():  # elsewhere nobody waits until all have joined, and others use the machine
        assert cpu < MOST_CPU
        assert took_seconds < MOST_SECONDS


def daemon(folder: Path, couch: Any, databases: list[CouchDatabase]) -> Pillowd:
    source: dict[str, Any] = {"type": "couchdb", "url": couch.url}
    if couch.auth:
        source["auth"] = {"type": "basic", "username": couch.auth[0], "password": couch.auth[1]}
    pillows = {
        f"p{n}": {
            "source": {"connection": "couch", "database": databases[n % len(databases)].name},
            "transport": [{"connection": "files", "file": f"p{n}.jsonl"}],
        }
        for n in range(PILLOWS)
    }
    (folder / "files").mkdir()
    files = {"type": "jsonl", "folder": str(folder / "files")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = "{}:{}".format(*free.getsockname())
    return Pillowd(
        folder,
        pillows=pillows,
        connections={"couch": source, "files": files},
        daemon={"http": {"listen": listen}},
    ).start()


def watch(running: Pillowd, seconds: float) -> int:
    """Scrape as Prometheus does, for this long; return the bytes of the last scrape as they travelled."""
    url = f"http://{running.settings['daemon']['http']['listen']}/metrics"
    ends_at, size_bytes = time.monotonic() + seconds, 0
    while time.monotonic() < ends_at:
        with urllib.request.urlopen(urllib.request.Request(url, headers=SCRAPE), timeout=10) as answer:
            size_bytes = len(answer.read())
        time.sleep(max(0.0, min(SCRAPE_SECONDS, ends_at - time.monotonic())))
    return size_bytes


def arrived(folder: Path) -> int:
    """How many pillows have the document that was written last."""
    return sum(b'"written"' in path.read_bytes() for path in (folder / "files").glob("p*.jsonl"))


def resident_mib(running: Pillowd) -> float:
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{running.child.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def cpu_seconds(running: Pillowd) -> float:
    """Of the process; proc(5) counts in hundredths."""
    fields = Path(f"/proc/{running.child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
