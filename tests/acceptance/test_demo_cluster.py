"""What `make demo-cluster` shows: a killed daemon is replaced by the other one, and nothing is lost."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tests.demo import clinic, data
from tests.demo.cluster import ClusterDemo, Servers
from tests.demo.daemon import DemoError
from tests.servers.couch_client import CouchDatabase
from tests.servers.couchdb.process import CouchDB
from tests.support.sizes import size


def test_the_demo_of_two_daemons_comes_to_its_end(
    tmp_path: Path, couch_server: Callable[..., CouchDB], postgres_dsn: str, kafka: str, kafka_prefix: str
) -> None:
    couch = couch_server(admin=f"admin:{clinic.PASSWORD}")
    servers = Servers(
        couch=CouchDatabase(couch.url, clinic.DATABASE, auth=couch.auth).create(),
        dsn=postgres_dsn,
        kafka=kafka,
        service=kafka_prefix.strip("-"),
    )
    said = io.StringIO()
    documents = data.documents()[:: size(ci=20, proof=1)]
    try:
        ClusterDemo(tmp_path, Console(file=said, width=120), servers).run(documents)
    except DemoError:
        print(said.getvalue())
        raise
    found = said.getvalue()
    assert "Each has 2 of the 4 partitions of each pillow" in found
    assert "✓ everything arrived" in found
    assert "has all partitions" in found
    assert "✓ nothing was lost" in found
    assert [name for name in ("patients", "visits") if f"✓ pillowd verify {name}: equal" not in found] == []
