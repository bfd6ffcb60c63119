"""The response of `_all_docs` in any pieces, and when it is asked for."""

from __future__ import annotations

import pytest

from checkpoints import Seq
from pillows.couch.database_info import DatabaseInfo
from pillows.feed.listing import ListingPosition, ListParser, is_worth_listing
from pillows.feed.parsing.changes_parser import MalformedFeedError

ROWS = [("a", "1-x"), ('"q"\n', "2-y"), ("é/+", "3-z")]
HEAD = '{"total_rows":5,"offset":2,"rows":['
BODY = [
    '{"id":"a","key":"a","value":{"rev":"1-x"}}',
    '{"id":"\\"q\\"\\n","key":"\\"q\\"\\n","value":{"rev":"2-y"}}',
    '{"id":"é/+","key":"é/+","value":{"rev":"3-z"}}',
]
LINES = (HEAD + "\r\n" + ",\r\n".join(BODY) + "\r\n]}\n").encode()
ONE_LINE = (HEAD + ",".join(BODY) + "]}\n").encode()


@pytest.mark.parametrize("text", [LINES, ONE_LINE], ids=["lines", "one-line"])
def test_rows_are_read_whatever_the_blocks_are(text: bytes) -> None:
    for cut in range(len(text) + 1):
        parser = ListParser()
        found = [row for block in (text[:cut], text[cut:]) for row in parser.feed(block)]
        assert found == ROWS
        assert parser.is_complete
        assert parser.left == 0


def test_an_empty_list_is_complete() -> None:
    parser = ListParser()
    assert list(parser.feed(b'{"total_rows":0,"offset":0,"rows":[\r\n\r\n]}\n')) == []
    assert parser.is_complete


def test_a_list_without_its_end_is_not_complete() -> None:
    parser = ListParser()
    assert list(parser.feed(LINES[:-3])) == ROWS
    assert not parser.is_complete


def test_numbers_that_a_cluster_leaves_out_are_unknown() -> None:
    parser = ListParser()
    list(parser.feed(LINES.replace(b'"offset":2', b'"offset":null')))
    assert parser.left is None


@pytest.mark.parametrize("row", [b'{"error":"timeout","reason":"x"}', b"<html>", b'{"id":1}'])
def test_what_is_no_row_is_an_error(row: bytes) -> None:
    parser = ListParser()
    with pytest.raises(MalformedFeedError, match="can't be read"):
        list(parser.feed(HEAD.encode() + b"\r\n" + row + b",\r\n"))


@pytest.mark.parametrize(
    ("documents", "deleted", "page", "worth"),
    [(100, 501, 100, True), (100, 500, 100, False), (0, 101, 100, True), (0, 100, 100, False)],
)
def test_five_deletions_for_each_document_are_worth_it(
    documents: int, deleted: int, page: int, worth: bool
) -> None:
    info = DatabaseInfo(doc_count=documents, doc_del_count=deleted)
    assert is_worth_listing(info, page) is worth
    assert not is_worth_listing(DatabaseInfo(doc_count=documents), page)


@pytest.mark.parametrize("token", ["7-g1A", 7, [7, "g1A"]])
def test_a_position_survives_the_checkpoint(token: str | int | list[int | str]) -> None:
    position = ListingPosition(token=Seq.of(token), after='a"\n')
    assert ListingPosition.parse(position.to_seq()) == position
    assert ListingPosition.parse(Seq.of(token)) is None
