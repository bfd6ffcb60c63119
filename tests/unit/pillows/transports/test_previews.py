"""A preview of a search cluster is the very request: the one that the writer sends, to the letter."""

from __future__ import annotations

from typing import Any

import pytest
from elasticsearch._sync.client.utils import _quote_query

from checkpoints import TailKey
from pillows import registry
from pillows.models import Batch, DocumentRows
from pillows.serial_worker import SerialWorker
from pillows.transports.common.search.errors import BulkResult
from pillows.transports.common.search.index.schema import OwnedIndex
from pillows.transports.common.search.options import SearchOutput
from pillows.transports.common.search.writer import IndexWriter
from pillows.transports.postgres.transport import PostgresTransport

KEY = TailKey("cases", "couch/cases")
DOCUMENTS = [DocumentRows(id="a", rev="1-a", leaf_version=1, rows={"cases": [{"_id": "a", "n": 1}]})]


class Client:
    """Remembers what it is asked to send."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def call(self, method: str, path: str, *, params: Any, headers: Any, body: bytes) -> Any:
        self.sent.append(f"{method} {path}?{_quote_query(params)}\n{body.decode()}")
        return {"errors": False, "items": [{"index": {"status": 201}}]}


@pytest.mark.parametrize("its_type", ["elasticsearch", "opensearch"])
def test_a_search_cluster_is_sent_what_the_preview_shows(its_type: str) -> None:
    kind: Any = registry.transport(its_type)
    output = SearchOutput(index="cases", pipeline="clean up")
    connection = kind.Connection(hosts=("http://127.0.0.1:9",), timeout=7.0)
    shown = kind("search", KEY, connection, {"cases": output}).preview(Batch(documents=DOCUMENTS, epoch=3))
    client: Any = Client()
    writer = IndexWriter(client, OwnedIndex(client, KEY, output), connection, SerialWorker())
    writer.replace(DOCUMENTS, "cases", 3, BulkResult())
    assert client.sent == [shown]
    assert shown.startswith("POST /cases-")
    assert "-write/_bulk?require_alias=true&" in shown
    assert "&timeout=3500ms&pipeline=clean%20up\n" in shown


def test_postgresql_says_when_the_copy_goes_straight_into_the_table() -> None:
    """Only a first pass copies there; later a batch goes by way of a staging table."""
    kind: Any = PostgresTransport
    connection = kind.Connection(dsn="host=127.0.0.1 port=9")
    outputs = {"cases": kind.Output(table="cases")}
    shown = kind("warehouse", KEY, connection, outputs).preview(Batch(documents=DOCUMENTS, epoch=3))
    assert shown.startswith(
        "-- in a first pass; later into pg_temp.pillowd_stage_0, and newer documents from there\n"
        'copy "public"."cases"'
    )
