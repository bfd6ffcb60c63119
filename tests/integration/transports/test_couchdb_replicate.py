"""The CouchDB transport in its mode `replicate`: from a real database into another."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from checkpoints import TailKey
from pillows.errors import ConfigError, RetryableError
from pillows.models import DocumentRows, WriteResult, revision_number
from pillows.transports.couchdb.options import CouchdbOutput
from pillows.transports.couchdb.transport import CouchdbTransport
from tests.conformance.steps import assert_applied
from tests.conformance.target import KEY, OTHER_KEY, at, batch, document, gone
from tests.integration.transports.couch_target import CouchTarget
from tests.servers.couch_client import JSON, CouchDatabase
from tests.servers.tcp_proxy import TcpProxy


class Copy:
    """A source, and a target on the same server."""

    def __init__(self, target: CouchTarget, source: CouchDatabase) -> None:
        self.target = target
        self.source = source

    @contextmanager
    def running(self, key: TailKey = KEY) -> Iterator[CouchdbTransport]:
        output = CouchdbOutput(database=self.target.prefix + "docs", mode="replicate")
        couch = CouchdbTransport("copy", key, self.target.connection(), {"docs": output})
        couch.set_source(self.target.connection(), self.source.name)
        try:
            self.state = couch.open()
            couch.acquire(at("0"))
            yield couch
        finally:
            couch.close()

    def changed(self, *ids: str) -> list[DocumentRows]:
        """Returns the documents as the pipeline would hand them over now."""
        rows = self.source.changes(style="all_docs")["results"]
        revs = {row["id"]: [one["rev"] for one in row["changes"]] for row in rows}
        deleted = {row["id"] for row in rows if row.get("deleted")}
        return [
            gone(id, sum(map(revision_number, revs[id])))
            if id in deleted
            else document(id, sum(map(revision_number, revs[id])), {"n": 1}, rev=revs[id][0])
            for id in ids or revs
        ]

    def leaves(self, name: str = "target") -> dict[str, list[tuple[str, bool]]]:
        """Every document's leaves, on one side."""
        rows = self.changes(name)["results"]
        return {row["id"]: sorted(one["rev"] for one in row["changes"]) for row in rows}

    def changes(self, name: str = "target") -> Any:
        if name == "source":
            return self.source.changes(style="all_docs")
        return self.target.request("GET", "docs", "/_changes?style=all_docs")

    def equal(self) -> bool:
        return self.leaves("source") == self.leaves("target") and self.source.documents() == {
            id: rows[0] for id, rows in self.target.read("docs").items()
        }


@pytest.fixture
def copy(couch: Any, couch_db: CouchDatabase, tcp_proxy: Callable[[Any], TcpProxy]) -> Iterator[Copy]:
    target = CouchTarget(couch, tcp_proxy(couch))
    yield Copy(target, couch_db)
    target.drop()


def test_a_copy_has_all_leaves_and_a_replay_writes_nothing(copy: Copy) -> None:
    """Updates, deletions and conflicts keep their revisions; twice is once."""
    copy.source.fill(20)
    copy.source.put("doc-000003", {"n": "changed"})
    copy.source.delete("doc-000004")
    copy.source.leaf("doc-000005", "1-ffff", n="conflict")
    copy.source.leaf("doc-000006", "2-eeee", "1-dddd", deleted=True)
    with copy.running() as couch:
        assert couch.write(batch(*copy.changed())) == WriteResult()
        assert copy.equal()
        written = copy.target.proxy.count(b"_bulk_docs", "to_server")
        assert couch.write(batch(*copy.changed())) == WriteResult()
        assert copy.target.proxy.count(b"_bulk_docs", "to_server") == written
    assert len(copy.leaves()["doc-000005"]) == 2


def test_an_old_batch_brings_no_old_state_back(copy: Copy) -> None:
    copy.source.fill(3)
    with copy.running() as couch:
        old = copy.changed()
        couch.write(batch(*old))
        copy.source.put("doc-000000", {"n": "new"})
        copy.source.delete("doc-000001")
        couch.write(batch(*copy.changed()))
        assert_applied(couch.write(batch(*old)))
    assert copy.equal()


def test_attachments_come_along(copy: Copy) -> None:
    data = base64.b64encode(b"bytes \x00\xff" * 100).decode()
    copy.source.put("a", {"_attachments": {"file.bin": {"content_type": "text/x", "data": data}}})
    with copy.running() as couch:
        couch.write(batch(*copy.changed()))
    found = copy.target.request("GET", "docs", "/a?attachments=true", headers=JSON)
    assert found["_attachments"]["file.bin"]["data"] == data


def test_a_document_that_leaves_the_set_and_returns_unchanged_is_there_again(copy: Copy) -> None:
    copy.source.fill(2)
    with copy.running() as couch:
        couch.write(batch(*copy.changed()))
        left = copy.changed("doc-000001")[0]
        couch.write(batch(gone("doc-000001", left.leaf_version)))
        assert set(copy.target.read("docs")) == {"doc-000000"}
        couch.write(batch(left))
    assert copy.equal()


def test_the_first_pass_skips_what_has_no_rows(copy: Copy) -> None:
    copy.source.fill(2)
    copy.source.delete("doc-000000")
    with copy.running() as couch:
        assert_applied(couch.write(batch(*copy.changed(), first_pass=True)))
        assert set(copy.leaves()) == {"doc-000001"}
        copy.source.delete("doc-000001")
        assert_applied(couch.write(batch(*copy.changed(), first_pass=True)))
    assert copy.target.read("docs") == {}


def test_a_pass_purges_what_the_source_does_not_know(copy: Copy) -> None:
    copy.source.fill(5)
    with copy.running() as couch:
        couch.write(batch(*copy.changed()))
        theirs = {"_id": "_design/theirs", "views": {}}
        target = [{"_id": "phantom"}, theirs]
        copy.target.request("POST", "docs", "/_bulk_docs", json={"docs": target})
        assert couch.finish_pass(2) == 1
    assert set(copy.target.read("docs")) == set(copy.source.documents()) | {"_design/theirs"}


def test_a_source_that_lags_behind_its_feed_is_retryable(copy: Copy) -> None:
    copy.source.fill(1)
    with copy.running() as couch, pytest.raises(RetryableError, match="lags behind its feed"):
        couch.write(batch(document("doc-000000", 5, {"n": 1})))


def test_replicating_takes_a_couchdb_source(copy: Copy) -> None:
    output = CouchdbOutput(database="db", mode="replicate")
    couch = CouchdbTransport("copy", KEY, copy.target.connection(), {"docs": output})
    with pytest.raises(ConfigError, match="its source is not a CouchDB server"):
        couch.open()


def test_a_pillow_of_another_name_on_the_same_source_is_no_foreigner(copy: Copy) -> None:
    """Revisions tell what is older, and what the sweep purges is the same."""
    copy.source.bulk([{"_id": "a", "n": 1}])
    with copy.running() as couch:
        assert_applied(couch.write(batch(*copy.changed(), epoch=3)))
    copy.source.bulk([{"_id": "b", "n": 1}])
    with copy.running(TailKey("renamed", KEY.source)) as couch:
        assert (copy.state.epoch, copy.state.foreign_epoch) == (None, None)
        couch.write(batch(*copy.changed()))
    assert copy.equal()


@pytest.mark.parametrize("id", ["_design/view", "a", "Z"])
def test_design_documents_of_its_own_are_no_documents_of_others(copy: Copy, id: str) -> None:
    copy.target.request("PUT", "docs")
    copy.target.request("POST", "docs", "/_bulk_docs", json={"docs": [{"_id": id, "views": {}}]})
    with copy.running():
        assert copy.state.foreign_epoch == (None if id == "_design/view" else 0)


@pytest.mark.parametrize("writer", ["a replica of another source", "somebody"])
def test_a_database_with_documents_of_others_is_no_empty_replica(copy: Copy, writer: str) -> None:
    """The sweep would purge them."""
    with copy.running(OTHER_KEY):
        assert copy.state.foreign_epoch is None
    if writer == "somebody":
        copy.target.request("DELETE", "docs")
        copy.target.request("PUT", "docs")
        copy.target.request("POST", "docs", "/_bulk_docs", json={"docs": [{"_id": "theirs"}]})
    with copy.running():
        assert (copy.state.epoch, copy.state.foreign_epoch) == (None, int(writer != "somebody"))
