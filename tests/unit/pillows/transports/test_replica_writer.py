"""Replicating a document whose revision number in the source has fallen since its change was read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pillows.errors import RetryableError
from pillows.models import DocumentRows, WriteResult
from pillows.transports.couchdb.replica_writer import LAG_SECONDS, ReplicaWriter
from tests.support.clock import FakeClock

DOCUMENT = DocumentRows(id="a", rev="9-x", leaf_version=9, rows={"copy": ({},)})


class Server:
    """A CouchDB, source or target, that has one document."""

    def __init__(self, *revs: str) -> None:
        self.clock = FakeClock(auto=False)
        self.revs = list(revs)
        self.sent: dict[str, Any] = {}
        self.purged: list[str] = []
        self.answer = "a"
        self.docs: list[dict[str, Any]] = []
        self.couch = self

    def path(self, *names: str) -> str:
        return "/".join(names)

    def json(self, method: str, path: str, type_: type, *, body: Any, **_: Any) -> Any:
        if path.endswith("_revs_diff"):
            return msgspec.convert({id: {"missing": revs} for id, revs in body.items()}, type_)
        docs = [{"ok": {"_id": "a", "_rev": rev}} for rev in self.revs] or self.docs
        return msgspec.json.decode(
            msgspec.json.encode({"results": [{"id": self.answer, "docs": docs}]}), type=type_
        )

    def get_leaves(self, ids: Any) -> dict[str, Any]:
        return dict.fromkeys(ids, ())

    def purge(self, leaves: Any) -> None:
        self.purged += leaves

    def send(self, documents: Any, *, new_edits: bool) -> WriteResult:
        self.sent |= documents
        return WriteResult()


def write(replica: ReplicaWriter) -> WriteResult:
    return replica.write([(DOCUMENT, DOCUMENT.rows["copy"])], 1, first_pass=False)


def test_a_document_that_was_purged_and_created_anew_is_copied_once_no_copy_can_lag_so_long():
    """The writer once waited forever for the revision number of the change, which never comes again."""
    source, target = Server("1-new"), Server()
    replica = ReplicaWriter(target, source, "db")  # type: ignore[arg-type]  # as much of them as it needs
    for _ in range(3):
        with pytest.raises(RetryableError, match="older there"):
            write(replica)
        source.clock.advance(LAG_SECONDS / 4)
    source.clock.advance(LAG_SECONDS)
    assert write(replica) == WriteResult()
    assert set(target.sent) == {"a"}


def test_a_copy_that_catches_up_is_believed_at_once_and_doubted_anew():
    source, target = Server("8-old"), Server()
    replica = ReplicaWriter(target, source, "db")  # type: ignore[arg-type]  # as above
    with pytest.raises(RetryableError):
        write(replica)
    source.revs = ["9-x"]
    assert write(replica) == WriteResult()
    source.clock.advance(2 * LAG_SECONDS)
    source.revs = ["8-old"]
    with pytest.raises(RetryableError):
        write(replica)


@pytest.mark.parametrize("error", ["nodedown", "timeout", "internal_server_error"])
def test_a_document_that_the_source_cannot_read_now_is_not_taken_for_purged(error):
    """It was once purged from the target while a whole shard of the source was away for a moment."""
    source, target = Server(), Server()
    source.docs = [{"error": {"id": "a", "rev": "undefined", "error": error}}]
    replica = ReplicaWriter(target, source, "db")  # type: ignore[arg-type]  # as above
    with pytest.raises(RetryableError, match=error):
        write(replica)
    assert target.purged == []

    source.docs = [{"error": {"id": "a", "rev": "undefined", "error": "not_found", "reason": "missing"}}]
    assert write(replica) == WriteResult()
    assert target.purged == ["a"]


def test_a_document_that_the_answer_leaves_out_is_not_taken_for_purged():
    source, target = Server(), Server()
    source.answer = "another"
    with pytest.raises(RetryableError, match="does not mention 'a'"):
        write(ReplicaWriter(target, source, "db"))  # type: ignore[arg-type]  # as above
    assert target.purged == []
