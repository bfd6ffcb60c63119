"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pillows.parallel import pipeline
from tests.integration.worker_load import DOCUMENTS, Load
from tests.servers.couch_client import CouchDatabase


@pytest.fixture
def start_load(
    tmp_path: Path, couch_db: CouchDatabase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Load]]:
    """Starts the load of a database with documents 0 to 2,999; workers start at 100 changes behind."""
    monkeypatch.setattr(pipeline, "FAR_BEHIND", 100)
    couch_db.bulk({"_id": f"d{n:06}", "n": n} for n in range(DOCUMENTS))
    made: list[Load] = []

    def start(pillow: str, **more: Any) -> Load:
        for former in made:
            former.close()
        made[:] = [Load(tmp_path, couch_db, pillow, **more)]
        return made[-1]

    yield start
    for each in made:
        each.close()
    assert each.workers == []
