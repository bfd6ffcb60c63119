"""Which databases are read for the pillows of a service, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.assembly.readers import find_databases
from daemon.config.load import load

CONFIG = """
version: 1
coordination: { type: kafka, connection: bus, service: reports, partitions: 4 }
connections:
  couch: { type: couchdb, url: "http://couch:5984" }
  bus: { type: kafka, servers: ["k:9092"] }
  search: { type: elasticsearch, hosts: ["http://es:9200"] }
pillows:
  cases:
    source: { connection: couch, database: cases, skip_design: SKIP }
    transport: [{ connection: search, index: cases, deletes: tombstone }]
"""


@pytest.mark.parametrize("skip", ["true", "false"])
def test_a_topic_has_design_documents_whatever_the_pillows_of_today_want(tmp_path: Path, skip: str) -> None:
    """A later one may want them, and the reader does not go back."""
    path = tmp_path / "pillowd.yaml"
    path.write_text(CONFIG.replace("SKIP", skip))
    (found,) = find_databases(load(path, {})).values()
    assert (found.source.skip_design, found.source.documents) == (False, "bulk_get")
