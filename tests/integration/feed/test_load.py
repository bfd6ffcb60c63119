"""Documents for the changes of somebody else's reading, as worker processes fetch them."""

from __future__ import annotations

import msgspec
import pytest

from pillows.couch.options import CouchConnection
from pillows.errors import RecreatedError
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.options import SourceOptions
from pillows.models import Change, revision_number
from tests.support.couch_auth import to_auth

COUNT = 700  # more than one request's worth


@pytest.fixture
def feed(couch, couch_db):
    auth = to_auth(couch.auth)
    made = CouchFeed(
        CouchConnection(url=couch.url, auth=auth),
        SourceOptions(connection="couch", database=couch_db.name),
        prefilter=lambda change: change.id != "d0003",
    )
    yield made
    made.close()


def changes_of(couch_db) -> list[Change]:
    couch_db.bulk({"_id": f"d{n:04}", "n": n} for n in range(COUNT))
    rows = couch_db.request("GET", "/_all_docs").json()["rows"]
    return [Change(id=row["id"], revs=(row["value"]["rev"],), leaf_version=1) for row in rows]


def test_documents_come_in_the_order_of_their_changes(couch_db, feed):
    changes = changes_of(couch_db)
    brought = msgspec.Raw(b'{"n":"brought along"}')
    changes[5] = msgspec.structs.replace(changes[5], raw=brought)
    changes[6] = msgspec.structs.replace(changes[6], deleted=True)
    found = feed.load(changes, feed.identify())
    assert [each.id for each in found] == [each.id for each in changes]
    assert found[3].raw is None  # the filter does not want it
    assert found[5].raw is brought
    assert found[6].raw is None
    assert [each.doc["n"] for each in found[7:]] == list(range(7, COUNT))
    assert feed.load([], feed.identify()) == []


def test_a_document_that_has_changed_since_comes_in_its_newer_state(couch_db, feed):
    changes = changes_of(couch_db)
    couch_db.put("d0000", {"n": "new"})
    couch_db.delete("d0001")
    couch_db.request("POST", "/_compact", json={})
    found = feed.load(changes, feed.identify())
    for old, new in zip(changes, found, strict=True):
        assert new.leaf_version >= old.leaf_version
        assert new.leaf_version == sum(map(revision_number, new.revs))


def test_documents_of_another_database_of_the_same_name_are_refused(couch_db, feed):
    changes = changes_of(couch_db)
    identity = feed.identify()
    couch_db.recreate()
    couch_db.put("d0000", {"n": "another"})
    with pytest.raises(RecreatedError):
        feed.load(changes[:1], identity)
