"""Two pillows on the same servers share neither a connection nor a client."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import urllib3
from elasticsearch import Elasticsearch

from checkpoints import TailKey
from daemon.assembly.pipelines import build_transports
from daemon.config.load import load
from tests.support.object_graph import reach

CONFIG = """
version: 1
connections:
  couch: {{ type: couchdb, url: "http://127.0.0.1:1" }}
  sql: {{ type: postgres, dsn: "{dsn}" }}
  search: {{ type: elasticsearch, hosts: ["{url}"] }}
pillows:
  one:
    source: {{ connection: couch, database: cases }}
    transport: [{{ connection: sql, table: one }}, {{ connection: search, index: "{prefix}one" }}]
  two:
    source: {{ connection: couch, database: cases }}
    transport: [{{ connection: sql, table: two }}, {{ connection: search, index: "{prefix}two" }}]
"""
CLIENTS = (psycopg.Connection, Elasticsearch, urllib3.HTTPConnectionPool)


def test_b1_no_connection_to_a_server_is_shared_by_two_pillows(
    tmp_path: Path, postgres_dsn: str, elasticsearch_url: str, es_prefix: str
) -> None:
    settings = CONFIG.format(dsn=postgres_dsn, url=elasticsearch_url, prefix=es_prefix)
    (tmp_path / "pillowd.yaml").write_text(settings)
    config = load(tmp_path / "pillowd.yaml", {})
    with ExitStack() as stack:
        reached = []
        for name in ("one", "two"):
            transports = build_transports(config, TailKey(name, "couch/cases"))
            for each in transports:
                stack.enter_context(closing(each))
                each.open()
            reached.append(reach(transports))
        first, second = reached
        assert {kind for kind in CLIENTS for each in first.values() if isinstance(each, kind)} == set(CLIENTS)
        assert not [first[id] for id in first.keys() & second.keys() if isinstance(first[id], CLIENTS)]
