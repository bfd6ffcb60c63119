"""Killed where it hurts most: right after a read, a transform, an acknowledgement, and in a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import stores
from tests.acceptance.process import Pillowd, couchdb
from tests.acceptance.world import live
from tests.servers.couch_client import CouchDatabase

#: The process dies at each of them in turn, when it comes there for the third time.
POINTS = ("read", "transform", "ack", "checkpoint-write", "checkpoint-fsync")
#: Before each kill so many documents are written, read in four pages and written in ten batches.
DOCUMENTS, PAGE, BATCH = 400, 100, 40


@pytest.fixture
def daemon(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Pillowd]:
    """One pillow into SQLite, whose checkpoint is saved often."""
    folder = tmp_path / "pillowd"
    folder.mkdir()
    pillow = {
        "source": {"connection": "couch", "database": couch_db.name, "page": PAGE},
        "batch": {"max_docs": BATCH},
        "transport": [{"connection": "sqlite", "table": "cases"}],
    }
    connections = {
        "couch": couchdb(couch.url, couch_db.auth),
        "sqlite": {"type": "sqlite", "path": str(tmp_path / "target.sqlite")},
    }
    sections = {"checkpoints": {"interval": "50ms", "max_uncheckpointed": PAGE}}
    with Pillowd(folder, pillows={"cases": pillow}, connections=connections, sections=sections) as daemon:
        yield daemon


def test_killed_after_read_transform_ack_and_in_a_checkpoint_loses_nothing(
    daemon: Pillowd, couch_db: CouchDatabase, tmp_path: Path
) -> None:
    """Each run finds more to do than it lives to see; the last one is left alone and finishes it all."""
    for number, point in enumerate(POINTS):
        couch_db.bulk({"_id": f"{number}-{n}", "n": n} for n in range(DOCUMENTS))
        daemon.start(environ={"PILLOWD_FAILPOINT": f"{point}:3", "PILLOWD_TESTING": "1"}, ready=False)
        assert daemon.ended() == -signal.SIGKILL, f"{point}: {daemon.log.read_text()[-2000:]}"

    daemon.start()
    daemon.wait_for(lambda: live(daemon))
    expected = stores.couchdb(couch_db)
    assert len(expected) == len(POINTS) * DOCUMENTS
    assert stores.differences(expected, stores.sqlite(tmp_path / "target.sqlite", "cases")) == []
    assert daemon.stop() == 0
