"""Two pillows on the same servers share no client object."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

import requests

from checkpoints import TailKey
from daemon.assembly.feeds import build_feed
from daemon.assembly.pipelines import build_transports
from daemon.config.load import load
from pillows.clock import SystemClock
from pillows.couch.client import CouchClient
from pillows.observer import Observer
from tests.support.object_graph import reach

CONFIG = """
version: 1
connections:
  couch: {{ type: couchdb, url: "http://127.0.0.1:1" }}
  copy: {{ type: sqlite, path: {folder}/copy.sqlite }}
  files: {{ type: jsonl, folder: {folder} }}
pillows:
  one:
    source: {{ connection: couch, database: cases }}
    transport:
      - {{ connection: copy, table: one }}
      - {{ connection: files, file: one }}
      - {{ connection: couch, database: one, name: x }}
  two:
    source: {{ connection: couch, database: cases }}
    transport:
      - {{ connection: copy, table: two }}
      - {{ connection: files, file: two }}
      - {{ connection: couch, database: two, name: x }}
"""
CLIENTS = (CouchClient, requests.Session, sqlite3.Connection)


def test_b1_no_client_object_is_shared_by_two_pillows(tmp_path: Path) -> None:
    (tmp_path / "pillowd.yaml").write_text(CONFIG.format(folder=tmp_path))
    config = load(tmp_path / "pillowd.yaml", {})
    reached = []
    with ExitStack() as stack:
        for name in ("one", "two"):
            key = TailKey(name, "couch/cases")
            transports = build_transports(config, key)
            feed = build_feed(config, key, None, clock=SystemClock(), observer=Observer())
            stack.enter_context(closing(feed))
            for each in transports:
                stack.enter_context(closing(each))
            for each in transports[:2]:
                each.open()
            reached.append(reach([feed, *transports]))
        first, second = reached
        clients = [[each for each in found.values() if isinstance(each, CLIENTS)] for found in reached]
        assert {type(each) for each in clients[0]} >= {CouchClient, sqlite3.Connection}
        assert not [first[id] for id in first.keys() & second.keys() if isinstance(first[id], CLIENTS)]
