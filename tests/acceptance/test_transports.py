"""Transports as an operator configures them: the real daemon, killed on the way, and what is there then."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import Pillowd, couchdb
from tests.acceptance.world import live
from tests.servers.couch_client import CouchDatabase
from tests.servers.scripted import ScriptedServer
from tests.support.sizes import size
from tests.support.webhook import Webhook

DOCUMENTS = size(ci=2000, proof=50_000)


def rows(hook: Webhook) -> dict[str, Any]:
    return {id: one["rows"]["hook"][0] for id, one in hook.documents.items() if one["rows"]["hook"]}


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with ScriptedServer() as server:
        yield Webhook(server)


@pytest.fixture
def pillowd(tmp_path: Path, couch: Any, couch_db: CouchDatabase, hook: Webhook) -> Iterator[Pillowd]:
    """One pillow for each transport, all on one database."""
    server = couchdb(couch.url, couch.auth)
    connections = {
        "couch": server,
        "copies": server,
        "tables": {"type": "sqlite", "path": str(tmp_path / "t.sqlite")},
        "files": {"type": "jsonl", "folder": str(tmp_path)},
        "hook": {"type": "webhook", "url": hook.url, "secret": "s3cret"},
        "nothing": {"type": "null"},
        "screen": {"type": "stdout"},
    }
    entries: dict[str, list[dict[str, Any]]] = {
        "table": [{"connection": "tables", "table": "documents"}],
        "lines": [{"connection": "files", "file": "documents.jsonl", "gzip": True, "segment_size": "20KiB"}],
        "hook": [{"connection": "hook"}],
        "null": [{"connection": "nothing"}],
        "shown": [{"connection": "screen"}],
        "copy": [{"connection": "copies", "database": f"{couch_db.name}-copy", "mode": "replicate"}],
        "both": [{"connection": "tables", "table": "both"}, {"connection": "files", "file": "both.jsonl"}],
    }
    source = {"connection": "couch", "database": couch_db.name}
    pillows = {name: {"source": source, "transport": transport} for name, transport in entries.items()}
    sections = {"checkpoints": {"interval": "200ms"}}
    with Pillowd(tmp_path, pillows=pillows, connections=connections, sections=sections) as daemon:
        yield daemon
    copy = couch_of(couch_db, "-copy")
    copy.drop()
    copy.close()


def couch_of(database: CouchDatabase, ending: str) -> CouchDatabase:
    return CouchDatabase(database.server_url, database.name + ending, auth=database.auth)


def table(folder: Path, name: str) -> dict[str, Any]:
    with closing(sqlite3.connect(folder / "t.sqlite")) as db:
        return {id: json.loads(doc) for id, doc in db.execute(f"SELECT _id, doc FROM {name}")}


def lines(*paths: Path) -> dict[str, Any]:
    newest: dict[str, Any] = {}
    for path in paths:
        content = gzip.decompress(path.read_bytes()) if ".gz" in path.name else path.read_bytes()
        for line in map(json.loads, content.split(b"\n")[:-1]):
            if line["_version"] >= newest.get(line["_id"], {"_version": -1})["_version"]:
                newest[line["_id"]] = line
    return {id: line["doc"] for id, line in newest.items() if "doc" in line}


def test_every_transport_has_what_the_source_has_after_a_kill_and_a_restart(
    pillowd: Pillowd, couch_db: CouchDatabase, hook: Webhook, tmp_path: Path
) -> None:
    def everywhere() -> bool:
        source = couch_db.documents()
        if not all(table(tmp_path, name) == source for name in ("documents", "both")):
            return False
        found = [lines(tmp_path / "both.jsonl"), lines(*sorted(tmp_path.glob("documents.*.jsonl.gz*")))]
        return [*found, rows(hook), couch_of(couch_db, "-copy").documents()] == [source] * 4

    couch_db.fill(DOCUMENTS)
    pillowd.start()
    pillowd.wait_for(lambda: len(hook.documents) > DOCUMENTS // 10)
    pillowd.child.kill()
    pillowd.child.wait()
    for n in range(0, DOCUMENTS, 50):
        couch_db.put(f"doc-{n:06}", {"n": -n})
        couch_db.delete(f"doc-{n + 1:06}")
    pillowd.start()
    pillowd.wait_for(lambda: live(pillowd))  # every target is there from then on
    pillowd.wait_for(everywhere, seconds=size(ci=60, proof=100))
    pillowd.child.terminate()
    assert pillowd.child.wait(timeout=60) == 0
    pillowd.start()
    couch_db.put("last", {"n": "last"})
    pillowd.wait_for(everywhere)
    shown = [line for line in pillowd.log.read_text().splitlines() if line.startswith('{"output":"shown"')]
    assert any('"_id":"last"' in line for line in shown)
