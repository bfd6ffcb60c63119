"""Settings that several daemons need to run the pillows, in turn or at the same time."""

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
  bus: { type: kafka, servers: ["k:9092"] }
  file: { type: sqlite, path: /x }
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
        ("{ type: kafka, connection: lease, service: reports }", "`lease` cannot hold the changes"),
        ("{ type: kafka, connection: bus }", "is incomplete"),
        ("{ type: kafka, connection: bus, service: reports, partitions: 0 }", "partitions"),
        ("{ type: postgres, connection: lease, service: reports, partitions: 4 }", "needs `type: kafka`"),
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


KAFKA = "{ type: kafka, connection: bus, service: reports, partitions: 4 }"


def test_pillows_run_in_partitions_of_kafka(tmp_path: Path) -> None:
    assert load_with(tmp_path, KAFKA) == ""
    second = """  people:
    source: { connection: couch, database: cases, skip_design: false }
    transport: [{ connection: lease, table: people }]
"""
    assert load_with(tmp_path, KAFKA, more=second) == ""


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ("    load: { workers: 2 }", "pillows.cases.load.workers"),
        ("    isolate: true", "pillows.cases.isolate"),
        ("    rebuild: auto", "pillows.cases.rebuild"),
        ("    verify: { every: 1d }", "pillows.cases.verify.every"),
        ("    next: { filter: null }", "pillows.cases.next"),
    ],
)
def test_what_needs_a_single_daemon_is_refused_beside_kafka(tmp_path: Path, more: str, place: str) -> None:
    assert load_with(tmp_path, "{ type: none }", more=more) == ""
    found = load_with(tmp_path, KAFKA, more=more)
    assert f"{place}: " in found
    assert "not possible with `coordination: { type: kafka }`" in found


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("databases: 'a*'", "search, index: x", "x.source.databases: is not possible"),
        ("database: a, since: now", "search, index: x", "x.source.since: is not possible"),
        (
            "database: cases, join_overlap: 5s",
            "search, index: x",
            "x.source.join_overlap: differs from that of",
        ),
        ("database: cases, page: 500", "search, index: x", "x.source.page: differs from that of `cases`"),
        ("database: a", "file, table: x", "x.transport[0]: `sqlite` does not take a pillow's documents"),
    ],
)
def test_a_pillow_that_does_not_fit_kafka_is_refused(
    tmp_path: Path, source: str, target: str, problem: str
) -> None:
    more = f"  x: {{ source: {{ connection: couch, {source} }}, transport: [{{ connection: {target} }}] }}\n"
    assert problem in load_with(tmp_path, KAFKA, more=more)


def test_a_pillow_has_no_name_of_ours(tmp_path: Path) -> None:
    more = (
        "  readers: { source: { connection: couch, database: a }, "
        "transport: [{ connection: lease, table: x }] }\n"
    )
    assert "`readers` is the name of a group of our own" in load_with(tmp_path, KAFKA, more=more)
