"""Attachments from a real server."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from pillows.couch.options import CouchConnection
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.options import SourceOptions
from tests.support.couch_auth import to_auth


@pytest.fixture
def feed(couch, couch_db):
    auth = to_auth(couch.auth)
    made = CouchFeed(
        CouchConnection(url=couch.url, auth=auth), SourceOptions(connection="couch", database=couch_db.name)
    )
    yield made
    made.close()


@pytest.mark.parametrize("name", ["note.txt", "a b+ü.txt"])
def test_an_attachment_is_read_up_to_a_limit(couch_db, feed, name):
    rev = couch_db.put("doc", {"n": 1})
    content = bytes(range(256)) * 40
    made = couch_db.request(
        "PUT",
        f"/doc/{quote(name, safe='')}?rev={rev}",
        data=content,
        headers={"Content-Type": "application/octet-stream"},
    ).json()["rev"]

    assert feed.attachment("doc", made, name, len(content)) == content
    assert feed.attachment("doc", made, name, len(content) - 1) is None
    assert feed.attachment("doc", made, "another.txt", 1000) is None
    (current,) = feed.current(["doc"])
    assert current.doc["_attachments"][name]["length"] == len(content)
