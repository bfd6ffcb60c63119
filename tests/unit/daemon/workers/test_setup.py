"""A worker gets the settings in effect, as plain data, and those of no target."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from checkpoints import TailKey
from daemon.config.load import load
from daemon.workers.setup import (
    WorkerSetup,
    load_connection,
    load_settings,
    make_setup,
)
from pillows.feed.base import DatabaseIdentity

EVERYTHING = """
version: 1
connections:
  couch:
    type: couchdb
    url: https://couch.example:6984
    auth: { type: session, username: etl, password: "s3cret-of-couch" }
    timeouts: { connect: 250ms }
  copy: { type: postgres, dsn: "postgresql://etl@db.example/x", password: "s3cret-of-target" }
  calls: { type: python, function: "builtins:print" }
pillows:
  cases:
    source:
      { connection: couch, database: cases, since: 7-x, queue: 2MiB, max_rate: 1, quiet_hours: "08:00-09:00" }
    filter: { python: "builtins:bool", args: { x: 1 }, needs_document: false }
    transform:
      - { pick: [a, b.c], rename: { a: b }, types: { b: integer }, set: { x: [1, null, "\\"ü"] } }
      - { python: "builtins:dict" }
    attachments: { fetch: true, max_size: 5MiB }
    load: { workers: 3, worker_memory: 1GiB }
    isolate: true
    errors: { exception_text: true }
    tests: [{ doc: { _id: a } }]
    transport: [{ connection: copy, table: cases }]
  plain:
    source:
      { connection: couch, database: plain, selector: { type: x }, on_filtered: ignore, deletes: ignore }
    transform: { compute: { n: "length(a)" } }
    transport: [{ connection: copy, table: plain }, { connection: calls }]
"""
IDENTITY = DatabaseIdentity(server_uuid="u", instance_start_time="1", purge_seq=None, marked=True)


@pytest.fixture
def config(tmp_path: Path):
    (tmp_path / "pillowd.yaml").write_text(EVERYTHING)
    return load(tmp_path / "pillowd.yaml", {})


@pytest.mark.parametrize("name", ["cases", "plain"])
def test_the_settings_arrive_as_they_are_without_targets(config, name):
    payload = make_setup(config, TailKey(name, f"couch/{name}"), IDENTITY)
    setup = msgspec.msgpack.decode(payload, type=WorkerSetup)
    settings = config.tails[name]
    assert load_settings(setup.settings) == settings.model_copy(update={"transport": (), "tests": ()})
    assert load_connection(setup.connection) == config.connections["couch"].options
    assert setup.key == TailKey(name, f"couch/{name}")
    assert setup.database == IDENTITY
    assert b"s3cret-of-couch" in bytes(payload)
    assert b"s3cret-of-target" not in bytes(payload)


def test_rows_come_as_json_only_if_every_transport_takes_them(config):
    def takes_json(name: str) -> bool:
        payload = make_setup(config, TailKey(name, f"couch/{name}"), IDENTITY)
        return msgspec.msgpack.decode(payload, type=WorkerSetup).as_json

    assert takes_json("cases")
    assert not takes_json("plain")  # a user's function gets what the transform has made
