"""Chosen ids, page by page, from a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pillows.couch.client import CouchClient
from pillows.couch.errors import RejectedError
from pillows.couch.options import CouchConnection
from pillows.feed import document_ids
from pillows.feed.document_ids import DocumentIds, IdPage
from tests.servers.couch_client import CouchDatabase
from tests.support.couch_auth import to_auth

ODD = ['a"b', "a/b", "a+b", "a\nb", "aé", "a\U0001f600", "a\U0010ffff", "b", "A", "_design/a"]


@pytest.fixture
def ids(couch_db: CouchDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[DocumentIds]:
    monkeypatch.setattr(document_ids, "PAGE_IDS", 3)
    auth = to_auth(couch_db.auth)
    lister = DocumentIds(CouchClient(CouchConnection(url=couch_db.server_url, auth=auth)), couch_db.name)
    yield lister
    lister.close()


def collect(list_page: Callable[[str | None], IdPage]) -> list[str]:
    found: list[str] = []
    after: str | None = None
    while True:
        page = list_page(after)
        assert len(page.ids) <= 3
        found += page.ids
        if (after := page.after) is None:
            return found


def test_a_prefix_finds_exactly_the_ids_that_begin_so(ids: DocumentIds, couch_db: CouchDatabase) -> None:
    for id in ODD:
        couch_db.put(id, n=1)
    couch_db.put("a-gone", n=1)
    couch_db.delete("a-gone")
    expected = sorted((id for id in ODD if id.startswith("a")), key=lambda id: id.encode())
    assert collect(lambda after: ids.list_prefix("a", after)) == expected
    assert collect(lambda after: ids.list_prefix("a\n", after)) == ["a\nb"]
    assert collect(lambda after: ids.list_prefix("none", after)) == []


def test_an_id_that_was_deleted_between_two_pages_skips_nothing(
    ids: DocumentIds, couch_db: CouchDatabase
) -> None:
    for n in range(6):
        couch_db.put(f"d{n}", n=n)
    first = ids.list_prefix("d")
    couch_db.delete("d2")
    assert first.ids + ids.list_prefix("d", first.after).ids == [f"d{n}" for n in range(6)]


def test_a_selector_finds_what_matches_by_bookmarks(ids: DocumentIds, couch_db: CouchDatabase) -> None:
    for n in range(10):
        couch_db.put(f"d{n}", n=n)
    assert collect(lambda after: ids.list_selected({"n": {"$gt": 2}}, after)) == [
        f"d{n}" for n in range(3, 10)
    ]
    with pytest.raises(RejectedError, match="nope"):
        ids.list_selected({"n": {"$nope": 1}})


def test_one_node_has_one_copy(ids: DocumentIds) -> None:
    assert ids.count_copies() == 1
