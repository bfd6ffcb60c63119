"""What a batch comes to: its dead letters, documents written twice, and rewinds."""

from __future__ import annotations

import pytest

from checkpoints import Seq
from pillows.dead_letters.dead_letter import DeadLetter
from pillows.delivery import batch_delivery
from pillows.delivery.batch_delivery import (
    RewindDetector,
    list_dead_letters,
    locate_dead_letters,
    merge_results,
)
from pillows.models import Batch, Change, ChangeBatch, DocumentRows, TransportResult
from pillows.progress.watermark import PendingRange
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import plan


def result(*, dead: dict[str, str] | None = None, refused: dict[str, int] | None = None) -> TransportResult:
    return TransportResult(dead=dead or {}, refused=refused or {})


def rows(id: str, version: int = 1) -> DocumentRows:
    return DocumentRows(id=id, rev=f"{version}-x", leaf_version=version, rows={})


def dead_letter(id: str) -> DeadLetter:
    return DeadLetter(
        tail=KEY, transport="t", id=id, rev="1-x", leaf_version=1, stage="transport", error="no"
    )


def test_each_transport_has_a_dead_letter_of_each_document_that_it_can_never_write() -> None:
    written = Batch(documents=[rows("a", 3), rows("b"), rows("c")], epoch=1)
    results = {
        "one": result(dead={"c": "large", "a": "bad"}),
        "two": result(),
        "three": result(dead={"a": "no"}),
    }
    found = list_dead_letters(KEY, written, results)
    assert [(each.transport, each.id, each.error) for each in found] == [
        ("one", "a", "bad"),
        ("one", "c", "large"),
        ("three", "a", "no"),
    ]
    assert (found[0].tail, found[0].rev, found[0].leaf_version, found[0].stage) == (
        KEY,
        "3-x",
        3,
        "transport",
    )


def test_a_dead_letter_has_the_position_after_its_change() -> None:
    first, second = (
        PendingRange(ChangeBatch(changes=[Change("x", ("1-x",), 1)], seq=seq))
        for seq in (Seq.of("5-e"), None)
    )
    items = [(first, rows("a")), (second, rows("b")), (first, None)]
    located = locate_dead_letters([dead_letter("a"), dead_letter("b"), dead_letter("elsewhere")], items)
    assert [(each.id, each.seq) for each in located] == [("a", "5-e"), ("b", ""), ("elsewhere", "")]


@pytest.mark.parametrize(
    ("first", "again", "dead"),
    [
        ({"t": {"a": "1"}}, {}, {"t": {"a": "1"}}),
        ({"t": {"a": "1"}}, {"t": {}}, {"t": {"a": "1"}}),
        ({"t": {}}, {"t": {"b": "2"}}, {"t": {"b": "2"}}),
        ({"t": {"a": "1"}}, {"t": {"b": "2"}}, {"t": {"a": "1", "b": "2"}}),
        ({"t": {"a": "1"}, "u": {}}, {"t": {}, "u": {"a": "3"}}, {"t": {"a": "1"}, "u": {"a": "3"}}),
    ],
)
def test_a_document_is_dead_if_it_was_dead_either_time(
    first: dict[str, dict[str, str]], again: dict[str, dict[str, str]], dead: dict[str, dict[str, str]]
) -> None:
    merged = merge_results(
        {name: result(dead=each) for name, each in first.items()},
        {name: result(dead=each) for name, each in again.items()},
    )
    assert {name: each.dead for name, each in merged.items()} == dead


def test_a_dead_document_keeps_its_dead_letter_when_another_of_its_batch_went_back(tmp_path, running, clock):
    """Else it would be in no target and in no dead letter."""
    target = MemoryTransport(poison={"bad"})
    went_back = [change("back", "5-a", n="old"), change("back", "1-b", n="new")]
    feed = ListFeed([batch("1-a", change("bad"), *went_back)])
    feed.sums = {"back": 1, "bad": 1}
    run = running(plan(tmp_path, feed, target, clock=clock, max_tries=1))
    run.until(lambda: run.tail.status().changes == 3)
    assert run.finish().epoch == 2
    assert target.live() == {"back": target.live()["back"]}
    assert target.live()["back"]["n"] == "new"
    assert [each.id for each in run.settings.dead_letters.list(KEY)] == ["bad"]


@pytest.mark.parametrize(
    ("batches", "reported"),
    [
        ([(10, 10), (9, 9)], [0, 0]),
        ([(10, 10), (10, 10)], [0, 20]),
        ([(20, 18), (3, 3)], [0, 21]),  # nine of ten are enough
        ([(20, 17), (20, 20)], [0, 20]),  # fewer are not
        ([(10, 10), (10, 8), (10, 10), (10, 10)], [0, 0, 0, 20]),  # what is new in between counts from zero
        ([(20, 20), (20, 20)], [20, 0]),  # once
        ([(20, 20), (10, 0), (20, 20)], [20, 0, 20]),  # and again after an end
    ],
)
def test_a_long_run_of_documents_that_were_written_before_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, batches: list[tuple[int, int]], reported: list[int]
) -> None:
    monkeypatch.setattr(batch_delivery, "REWIND_MIN_DOCUMENTS", 20)
    made = RewindDetector()
    assert [made.count(documents, refused) for documents, refused in batches] == reported
