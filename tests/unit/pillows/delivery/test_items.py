"""The actions that the changes of a batch need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from pillows.dead_letters.dead_letter import DeadLetter, make_dead_letter
from pillows.delivery.items import Item, count_consecutive_failures, id_of, partition_items, transform_chunks
from pillows.models import ChangeBatch, Document, DocumentRows
from pillows.progress.watermark import PendingRange
from tests.support.list_feed import change
from tests.support.memory_transport import KEY


def pending(purge_seq: str | None = None) -> PendingRange:
    return PendingRange(ChangeBatch(changes=(), seq=None, purge_seq=purge_seq))


def rows(id: str, *, kept: bool = True) -> DocumentRows:
    return DocumentRows(id=id, rev="1-a", leaf_version=1, rows={"cases": ({"n": 1},)} if kept else {})


def failure(id: str) -> DeadLetter:
    return make_dead_letter(KEY, change(id), "transform", ValueError("no"))


def test_items_are_sorted_by_what_must_be_done_with_them() -> None:
    first, second = pending(), pending()
    bad = failure("bad")
    parts = partition_items([(first, rows("a")), (first, None), (second, bad), (second, rows("b"))])
    assert parts.acks == {first: 2, second: 2}
    assert parts.documents == [rows("a"), rows("b")]
    assert parts.failures == [bad]
    assert parts.purge_seq is None


@pytest.mark.parametrize(
    ("purge_seqs", "found"),
    [((), None), ((None,), None), (("1-a", None), "1-a"), (("1-a", "2-b", None), "2-b")],
)
def test_the_last_purge_that_was_named_counts(purge_seqs: Sequence[str | None], found: str | None) -> None:
    assert partition_items([(pending(each), None) for each in purge_seqs]).purge_seq == found


def test_an_item_is_about_its_document_or_about_none() -> None:
    ids = [id_of((pending(), outcome)) for outcome in (None, rows("a"), failure("b"))]
    assert ids == ["", "a", "b"]


BAD, DEAD, GOOD, EMPTY, NOTHING = "bad", "dead", "good", "empty", "nothing"


def items(*kinds: str) -> Iterator[Item]:
    for kind in kinds:
        outcome: Any = {BAD: failure(BAD), DEAD: rows(DEAD), GOOD: rows(GOOD), EMPTY: rows(EMPTY, kept=False)}
        yield pending(), outcome.get(kind)


@pytest.mark.parametrize(
    ("before", "kinds", "count"),
    [
        (0, (), 0),
        (4, (), 4),
        (0, (BAD,), 1),
        (4, (BAD, DEAD), 6),
        (4, (GOOD,), 0),
        (4, (BAD, GOOD, BAD), 1),
        (4, (GOOD, DEAD, DEAD), 2),
        (4, (EMPTY, NOTHING), 4),
        (0, (BAD, EMPTY, BAD), 2),
    ],
)
def test_failures_in_a_row_are_counted_until_one_document_with_rows_is_written(
    before: int, kinds: Sequence[str], count: int
) -> None:
    assert count_consecutive_failures(before, list(items(*kinds)), {DEAD}) == count


def document(id: str, *, deleted: bool = False) -> Document:
    raw = None if deleted else msgspec.Raw(b'{"n": 1}')
    return Document(id=id, rev="3-c", leaf_version=4, deleted=deleted, raw=raw)


class Chunked:
    """Makes a row of each document; fails for `bad`."""

    def many(self, documents: Sequence[Document]) -> list[Mapping[str, Any] | Exception]:
        return [ValueError("no") if each.id == "bad" else {"cases": [{"id": each.id}]} for each in documents]


def test_rows_that_are_made_in_chunks_come_back_to_their_documents() -> None:
    segments = [pending() for _ in range(5)]
    outcomes = [document("a"), None, document("bad"), rows("made"), document("gone", deleted=True)]
    given: Any = Chunked()
    made = transform_chunks(KEY, list(zip(segments, outcomes, strict=True)), given)
    assert [segment for segment, _ in made] == segments
    first, nothing, bad, untouched, gone = (outcome for _, outcome in made)
    assert first == DocumentRows(
        id="a", rev="3-c", leaf_version=4, rows={"cases": [{"id": "a"}]}, size_bytes=8
    )
    assert nothing is None
    assert isinstance(bad, DeadLetter)
    assert (bad.id, bad.stage) == ("bad", "transform")
    assert untouched == rows("made")
    assert isinstance(gone, DocumentRows)
    assert gone.size_bytes == 0
