"""A daemon with a pillow on several databases, killed again and again while others write."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.acceptance.process import Pillowd, couchdb
from tests.support.databases import Databases, read_sqlite

KILLS = 50
DATABASES = 20


@pytest.mark.proof  # in CI, `test_databases_faults` kills the pillow in its process
@pytest.mark.timeout(900)
def test_a_daemon_that_is_killed_again_and_again_loses_nothing(databases: Databases, tmp_path: Path) -> None:
    draw, names = random.Random(19), [f"{number:02}" for number in range(DATABASES)]
    for name in names:
        databases.create(name, 3)
    source = {"connection": "couch", "databases": f"{databases.prefix}*", "on_deleted": "remove"}
    daemon = Pillowd(
        tmp_path,
        connections={
            "couch": couchdb(databases.server.url, databases.server.auth),
            "lite": {"type": "sqlite", "path": str(tmp_path / "t.sqlite")},
        },
        pillows={
            "users": {
                "source": {**source, "on_recreated": "reload"},
                "transport": [{"connection": "lite", "table": "docs"}],
            }
        },
        sections={"checkpoints": {"interval": "50ms"}},
    )

    def rows() -> dict[str, Any]:
        found = read_sqlite(tmp_path / "t.sqlite")
        return {key: json.loads(doc) for key, doc in found.items()}

    with daemon:
        for number in range(KILLS):
            daemon.start()
            # Killed while it opens, while it reads, and when it has read everything.
            for _ in range(draw.randrange(20)):
                databases[draw.choice(names)].put(f"doc-{draw.randrange(6):06}", n=draw.random())
            if number % 5 == 1:
                databases[draw.choice(names)].recreate()
            gevent.sleep(draw.choice((0.0, 0.05, 0.5, 1.0)))
            daemon.child.kill()
            daemon.ended()
        daemon.start()
        daemon.wait_for(lambda: daemon.status("users")["databases"] == {"parked": DATABASES}, seconds=120)
        daemon.wait_for(lambda: rows() == databases.documents(), seconds=120)
