"""What many idle feeds in one process take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sizes import size

ROOT = Path(__file__).parents[3]
DATABASES, FEEDS = size(ci=5, proof=50), size(ci=20, proof=200)
MOST_MIB, MOST_CPU, MOST_SECONDS = 250, size(ci=0.2, proof=0.03), size(ci=30.0, proof=2.0)


@pytest.mark.timeout(300)
def test_many_idle_feeds_are_cheap_and_a_write_reaches_them_all(couch):
    if couch.auth:
        pytest.skip("the measured process reads an open server")
    databases = [couch.database(f"idle-{n}") for n in range(DATABASES)]
    for database in databases:
        database.create()
    command = [sys.executable, "-m", "tests.integration.feed.idle_process", couch.url]
    command += [str(DATABASES), str(FEEDS), str(size(ci=2.0, proof=60.0))]
    try:
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            idle = json.loads(process.stdout.readline())
            began = time.monotonic()
            for database in databases:
                database.put("written", n=1)
            written_seconds = time.monotonic() - began
            process.stdin.write("written\n")
            process.stdin.flush()
            told = json.loads(process.stdout.readline())
            process.wait(60)
    finally:
        for database in databases:
            database.drop()
            database.close()
    took = told["last_at"] - began
    print(f"\n{FEEDS} idle feeds: {idle['resident_mib']:.0f} MiB, {idle['cpu']:.1%} of a core; "
          f"a write reached all within {took:.2f} s (writing took {written_seconds:.2f} s)")  # fmt: skip
    assert told["arrived"] == FEEDS
    assert idle["resident_mib"] < MOST_MIB
    assert idle["cpu"] < MOST_CPU
    assert took - written_seconds < MOST_SECONDS
