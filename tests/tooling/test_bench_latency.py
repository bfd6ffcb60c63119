"""The raw reader of `python -m bench.latency` sees every write that CouchDB has acknowledged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.latency import Writes, measure
from tests.servers.couch_client import CouchDatabase
from tests.servers.source import PASSWORD, USER

ROOT = Path(__file__).parents[2]


def test_a_raw_reader_sees_each_write(couch_db: CouchDatabase):
    user, password = couch_db.auth or ("", "")
    command = [sys.executable, "-m", "bench.latency", couch_db.url, "50", "0.5"]
    environ = os.environ | {USER: user, PASSWORD: password}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 2 <= told["writes"] <= 25
    assert told["p50_ms"] <= told["p99_ms"]


def test_a_write_that_is_refused_ends_the_measurement(couch_db: CouchDatabase, monkeypatch):
    for name in (USER, PASSWORD):
        monkeypatch.delenv(name, raising=False)
    writes = Writes(f"{couch_db.url}-none", 50, 0.5)
    with pytest.raises(RuntimeError, match=r"PUT .*: 40"):
        measure(writes, lambda wanted: [(id, 0.0) for id in wanted])
