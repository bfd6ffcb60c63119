"""Write golden files: `python -m tests.golden` the state's, `python -m tests.golden VERSION` the targets'."""

from __future__ import annotations

import tests.patched  # noqa: F401  # isort: skip - before anything else, as in every test run

import sys
import tempfile
from pathlib import Path

from tests.golden import targets
from tests.golden.made import write_all
from tests.servers.couchdb.process import CouchDB
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.postgres import Postgres


def write_targets(version: str) -> None:
    """Keep what this version writes, with servers of its own."""
    with (
        tempfile.TemporaryDirectory() as name,
        Postgres() as postgres,
        Elasticsearch() as elasticsearch,
    ):
        folder = Path(name)
        with CouchDB(data_dir=folder / "couchdb") as couch:
            servers = targets.Servers(
                folder=folder, couch=couch, dsn=postgres.dsn, elasticsearch=elasticsearch.url
            )
            targets.write(servers)
        (folder / "couchdb" / "databases").rename(folder / "source")
        targets.keep(servers, targets.FOLDER / version)


if len(sys.argv) > 1:
    write_targets(sys.argv[1])
else:
    write_all()
