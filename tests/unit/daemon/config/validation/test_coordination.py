"""What several daemons need to run the pillows in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.load import load
from daemon.config.problems import ConfigErrors

CONFIG = """
version: 1
coordination: COORDINATION
connections:
  couch: { type: couchdb, url: "http://couch:5984" }
  lease: { type: postgres, dsn: "host=db" }
  search: { type: elasticsearch, hosts: ["http://es:9200"] }
pillows:
  cases:
    source: { connection: couch, database: cases }
    transport: [{ connection: search, index: cases, deletes: DELETES }]
"""


def load_with(folder: Path, coordination: str, deletes: str = "tombstone", more: str = "") -> str:
    """Load a configuration; return its problems as text."""
    path = folder / "pillowd.yaml"
    path.write_text(CONFIG.replace("COORDINATION", coordination).replace("DELETES", deletes) + more)
    try:
        load(path, {})
    except ConfigErrors as errors:
        return str(errors)
    return ""


def test_a_lease_is_held_in_a_connection_to_postgresql(tmp_path: Path) -> None:
    right = "{ type: postgres, connection: lease, service: reports }"
    assert load_with(tmp_path, right) == ""
    assert load_with(tmp_path, "{ type: none }", deletes="hard") == ""


@pytest.mark.parametrize(
    ("coordination", "problem"),
    [
        ("{ type: postgres, connection: search, service: reports }", "`search` cannot hold a lease"),
        ("{ type: postgres, connection: leases, service: reports }", "did you mean `lease`"),
        ("{ type: postgres, connection: lease }", "is incomplete"),
        ("{ type: none, service: reports }", "without a `type`"),
        ("{ type: postgres, connection: lease, service: a/b }", "service"),
        ("{ type: zookeeper }", "type"),
    ],
)
def test_what_cannot_work_is_reported_with_its_place(tmp_path: Path, coordination: str, problem: str) -> None:
    found = load_with(tmp_path, coordination)
    assert problem in found
    assert "pillowd.yaml:3" in found


def test_an_index_that_forgets_versions_is_refused(tmp_path: Path) -> None:
    right = "{ type: postgres, connection: lease, service: reports }"
    found = load_with(tmp_path, right, deletes="hard")
    assert "an older state may overwrite a newer one" in found
    assert "set `deletes: tombstone` or `deletes: mark`" in found
    assert "pillows.cases.transport[0]" in found


def test_so_is_one_of_the_next_definition(tmp_path: Path) -> None:
    right = "{ type: postgres, connection: lease, service: reports }"
    coming = "    next: { transport: [{ connection: search, index: cases, deletes: NEXT }] }\n"
    assert load_with(tmp_path, right, more=coming.replace("NEXT", "mark")) == ""
    found = load_with(tmp_path, right, more=coming.replace("NEXT", "hard"))
    assert "pillows.cases.next.transport[0]: an older state may overwrite a newer one" in found
    assert "pillows.cases.transport[0]" not in found
