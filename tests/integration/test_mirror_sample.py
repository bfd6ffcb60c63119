"""The sample that a mirror's columns are inferred from, read from a real server."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.mirror import columns
from daemon.mirror.columns import sample_documents
from pillows.couch.options import CouchConnection
from tests.servers.couch_client import CouchDatabase
from tests.support.couch_auth import to_auth


@pytest.fixture
def connection(couch: Any) -> CouchConnection:
    auth = to_auth(couch.auth)
    return CouchConnection(url=couch.url, auth=auth)


def test_f1_large_documents_make_a_smaller_sample(
    connection: CouchConnection, couch_db: CouchDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sizes are a hundredth of the real ones, which would be 600 documents of 160 kB."""
    monkeypatch.setattr(columns, "MAX_SAMPLE_BYTES", 20_000)
    monkeypatch.setattr(columns, "MAX_SINGLE_BYTES", 2_560)
    couch_db.bulk([{"_id": f"d{n:03}", "n": n, "text": "x" * 1600} for n in range(60)])
    couch_db.bulk([{"_id": "d-huge", "text": "x" * 16_000}, {"_id": "gone"}])
    couch_db.delete("gone")
    found = {each["_id"] for each in sample_documents(connection, couch_db.name)}
    assert found == {f"d{n:03}" for n in range(60)}


def test_f1_a_document_that_is_nested_deeply_refuses_no_sample(
    connection: CouchConnection, couch_db: CouchDatabase
) -> None:
    couch_db.bulk([{"_id": "plain", "n": 1}])
    body = '{"deep": ' + "[" * 9000 + "]" * 9000 + "}"
    couch_db.request("PUT", "/deep", data=body, headers={"Content-Type": "application/json"})
    assert "plain" in {each["_id"] for each in sample_documents(connection, couch_db.name)}
