"""A sweep finds the updates that `_db_updates` loses."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.support.databases import Databases, make_config, read_sqlite, running
from tests.support.lossy_updates import LossyUpdates
from tests.support.sizes import size

DATABASES = size(ci=10, proof=100)
WRITES = size(ci=80, proof=2000)
#: The feed lasts so long, and the interval between two sweeps of a feed that is cut is `poll`.
CUT_SECONDS, POLL_SECONDS = size(ci=0.5, proof=20.0), size(ci=1.0, proof=30.0)
LOST_SHARE = size(ci=0.4, proof=0.1)


def rows(folder: Path) -> dict[str, Any]:
    return {key: json.loads(doc) for key, doc in read_sqlite(folder / "t.sqlite").items()}


@pytest.mark.timeout(900)
def test_lines_that_are_lost_and_feeds_that_are_cut_lose_no_change(
    databases: Databases, tmp_path: Path
) -> None:
    draw = random.Random(3)
    names = [f"{number:03}" for number in range(DATABASES)]
    for name in names:
        databases.create(name, 1)
    lossy = LossyUpdates(
        databases.server.url, share=LOST_SHARE, cut_seconds=CUT_SECONDS, draw=random.Random(5).random
    )
    with lossy:
        config = make_config(
            databases,
            f"type: sqlite, path: {tmp_path}/t.sqlite",
            "table: docs",
            source=f", poll: {POLL_SECONDS}s, sweep: 1h",
        ).replace(databases.server.url, lossy.url)
        with running(config, tmp_path) as pillow:
            pillow.until_parked(DATABASES)
            for number in range(WRITES):
                databases[draw.choice(names)].put(f"doc-{draw.randrange(5):06}", n=number)
                gevent.sleep(0.01)
            written_at = time.monotonic()
            pillow.until(lambda: rows(tmp_path) == databases.documents(), 20 * POLL_SECONDS)
            late_seconds = time.monotonic() - written_at
    lines = lossy.lost + lossy.passed
    print(f"\n{lossy.lost} of {lines} lines lost, {lossy.cuts} cuts; equal after {late_seconds:.1f} s")
    assert lossy.lost
    assert lossy.cuts
