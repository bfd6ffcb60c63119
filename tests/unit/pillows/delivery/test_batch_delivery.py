"""The outcome of a batch: its dead letters, documents written twice, and rewinds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from gevent.event import Event
from msgspec.structs import replace
from msgspec.structs import replace as replace_struct

from checkpoints import Checkpoint, Seq, TailKey
from pillows.dead_letters.dead_letter import DeadLetter, ErrorOptions
from pillows.delivery import batch_delivery
from pillows.delivery.batch_delivery import (
    BatchDelivery,
    RewindDetector,
    list_dead_letters,
    locate_dead_letters,
    merge_results,
)
from pillows.errors import FatalError
from pillows.feed.base import DatabaseIdentity
from pillows.models import Batch, Change, ChangeBatch, Document, DocumentRows, TransportResult, write_version
from pillows.observer import DataObserver, Rewind
from pillows.progress.watermark import PendingRange, WatermarkMove
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from pillows.stages.transforms import ChunkedTransform, PassThrough
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder
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


# --- the order of steps for one batch, with everything around the writer replaced


class Lock(AbstractContextManager[None]):
    """Notes when it is held."""

    def __init__(self, done: list[Any]) -> None:
        self._done = done

    def __enter__(self) -> None:
        self._done.append("lock")

    def __exit__(self, *error: object) -> None:
        self._done.append("unlock")


class Around:
    """Everything that a writer works with, and the order in which it did.

    Attributes:
        done: what was called, in order, with what matters of its arguments.
        batches: what was delivered.
        results: what each delivery answers, in order.
        leaves: id -> version, as the source has it.
        purge_seq: how far the source is purged.
        holds_back: whether dead letters keep a target from committing the checkpoint.
    """

    def __init__(self, **checkpoint: Any) -> None:
        self.done: list[Any] = []
        self.batches: list[Batch] = []
        self.results: list[dict[str, TransportResult]] = []
        self.leaves: dict[str, int] = {}
        self.purge_seq: str | None = None
        self.holds_back = False
        self.is_transactional = True
        self.clock = FakeClock()
        self.observer = Recorder()
        self.checkpoint = replace(Checkpoint(seq=Seq.BEGINNING, epoch=1), **checkpoint)
        self.committed: list[Checkpoint | None] = []
        self.move = WatermarkMove()

    def writer(self, transform: Any = None, **more: Any) -> BatchDelivery:
        around: Any = self
        waiter = StopAwareWaiter(self.clock, Event())
        dead_letters = SimpleNamespace(
            add=lambda each: self.done.append(("dead", [(one.id, one.seq) for one in each])),
            store=SimpleNamespace(
                clear=lambda _, documents, results: self.done.append(
                    ("clear", sorted(each.id for each in documents), sorted(results))
                ),
                holds_back=lambda *_: self.holds_back,
            ),
            options=ErrorOptions(max_consecutive=3),
        )
        source = SimpleNamespace(
            leaves=lambda ids: {id: self.leaves[id] for id in ids if id in self.leaves},
            identify=lambda: DatabaseIdentity(purge_seq=self.purge_seq),
        )
        parts: Any = {"fanout": around, "progress": around, "dead_letters": dead_letters, "source": source}
        retrier = Retrier(KEY, waiter, self.observer)
        return BatchDelivery(
            transform or PassThrough(("out",)), **parts, retrier=retrier, lock=Lock(self.done), **more
        )

    # as a FanOut

    def deliver(self, batch: Batch) -> dict[str, TransportResult]:
        self.batches.append(batch)
        self.done.append(("deliver", [each.id for each in batch.documents], batch.epoch))
        return self.results.pop(0) if self.results else {"t": result()}

    # as a TailProgress

    def preview(self, acks: Any) -> Checkpoint:
        return replace(self.checkpoint, changes=sum(acks.values()))

    def acknowledge(self, acks: Any, committed: Checkpoint | None = None) -> WatermarkMove:
        self.committed.append(committed)
        self.done.append(("ack", sum(acks.values())))
        return self.move

    def raise_epoch(self, least: int = 0) -> None:
        self.checkpoint = replace(self.checkpoint, epoch=max(self.checkpoint.epoch + 1, least))
        self.done.append("epoch")


def pending(*, purge_seq: str | None = None) -> PendingRange:
    return PendingRange(ChangeBatch(changes=(), seq=Seq.of("7-x"), purge_seq=purge_seq))


def items_of(*outcomes: Any, purge_seq: str | None = None) -> list[Any]:
    segment = pending(purge_seq=purge_seq)
    return [(segment, outcome) for outcome in outcomes]


def full(id: str, version: int = 1) -> DocumentRows:
    return replace_struct(rows(id, version), rows={"out": [{"n": version}]})


def test_failures_are_stored_before_the_write_and_acknowledged_after_it() -> None:
    around = Around()
    around.writer().write(items_of(dead_letter("bad"), rows("a"), None))
    assert around.done == [
        "lock",
        ("dead", [("bad", "7-x")]),
        "unlock",
        ("deliver", ["a"], 1),
        "lock",
        ("clear", ["a"], ["t"]),
        ("ack", 3),
        "unlock",
    ]


def test_the_epoch_that_changes_ask_for_is_raised_before_they_are_written() -> None:
    around = Around()
    for epoch in (0, 4, 4, 3):
        segment = PendingRange(ChangeBatch(changes=(), seq=Seq.of("7-x"), least_epoch=epoch))
        around.writer().write([(segment, rows("a"))])
    assert [each.epoch for each in around.batches] == [1, 4, 4, 4]
    assert around.done.count("epoch") == 1


class SeenRows(DataObserver):
    def __init__(self) -> None:
        self.ids: list[str] = []

    def transformed(self, tail: TailKey, *, documents: Sequence[DocumentRows]) -> None:
        self.ids += [each.id for each in documents]


def test_who_looks_at_the_data_gets_the_rows_of_each_batch() -> None:
    around, seen = Around(), SeenRows()
    around.observer.data_observers = [seen]
    around.writer().write(items_of(rows("a"), None))
    assert seen.ids == ["a"]


def test_the_result_says_how_far_the_watermark_moved() -> None:
    around = Around()
    around.move = WatermarkMove(seq=Seq.of("7-x"), changes=2)
    assert around.writer().write(items_of(rows("a"))).move is around.move


def test_a_batch_without_rows_is_acknowledged_and_reaches_no_target() -> None:
    around = Around()
    around.writer().write(items_of(None, dead_letter("bad")))
    assert around.batches == []
    assert around.done[-2:] == [("ack", 2), "unlock"]


def test_documents_that_a_target_can_never_write_are_stored_with_their_position() -> None:
    around = Around()
    around.results = [{"t": result(dead={"a": "bad"}), "u": result()}]
    around.writer().write(items_of(rows("a"), rows("b")))
    assert ("dead", [("a", "7-x")]) in around.done
    assert around.observer.events() == ["transports.diverged"]
    assert around.observer.of("warning")[0]["details"] == {"id": "a", "missing_in": "t"}


@pytest.mark.parametrize(
    ("checkpoint", "first_pass"),
    [
        ({"first_pass": True}, True),
        ({"first_pass": True, "pass_done": True}, False),
        ({"first_pass": False}, False),
    ],
)
def test_a_target_is_told_of_a_first_pass_until_that_is_done(
    checkpoint: dict[str, bool], first_pass: bool
) -> None:
    around = Around(**checkpoint)
    around.writer().write(items_of(rows("a")))
    assert around.batches[0].first_pass is first_pass


@pytest.mark.parametrize(
    ("transactional", "held_back", "purge_seq", "went_back", "commits"),
    [
        (True, False, None, False, True),
        (False, False, None, False, False),
        (True, True, None, False, False),
        (True, False, "5-p", False, False),
        (True, False, None, True, False),
    ],
)
def test_a_target_commits_the_checkpoint_only_if_nothing_has_to_happen_in_between(
    transactional: bool, held_back: bool, purge_seq: str | None, went_back: bool, commits: bool
) -> None:
    around = Around(epoch=1)
    around.is_transactional, around.holds_back = transactional, held_back
    around.leaves = {"a": 3}
    arrived = [rows("a", 3), rows("a", 2)] if went_back else [rows("a", 3)]
    around.writer().write(items_of(*arrived, purge_seq=purge_seq))
    (batch,) = around.batches[:1]
    assert batch.checkpoint == (
        replace(Checkpoint(seq=Seq.BEGINNING), epoch=1, changes=1) if commits else None
    )


def test_what_the_only_target_committed_is_told_with_the_acknowledgement() -> None:
    around, committed = Around(), Checkpoint(seq=Seq.of("7-x"))
    around.results = [
        {"t": TransportResult(refused={}, dead={}, committed=committed)},
        {name: TransportResult(refused={}, dead={}, committed=committed) for name in "tu"},
    ]
    writer = around.writer()
    for _ in range(2):
        writer.write(items_of(rows("a")))
    writer.write(items_of(None))
    assert around.committed == [committed, None, None]


def test_documents_in_a_row_that_fail_stop_the_tail_and_one_that_is_written_starts_anew() -> None:
    around = Around()
    writer = around.writer()
    around.results = [{"t": result(dead={"a": "bad"})}, {"t": result()}, {"t": result(dead={"c": "bad"})}]
    writer.write(items_of(dead_letter("x"), full("a")))
    writer.write(items_of(full("b")))
    writer.write(items_of(dead_letter("y"), full("c")))
    acknowledged = len(around.committed)
    with pytest.raises(FatalError, match=r"^3 documents in a row .*") as raised:
        writer.write(items_of(dead_letter("z")))
    assert f"dead-letter list {KEY}" in str(raised.value.remedy)
    assert len(around.committed) == acknowledged, "nothing of the last batch is acknowledged"


# --- documents that have a lower revision number in the source


@pytest.mark.parametrize(
    ("leaves", "again"),
    [
        ({"a": 9}, None),  # a replay: the source is as new as the target
        ({"a": 8}, {"out": [{"n": 2}]}),  # the source has a lower version
        ({}, {}),  # it is gone
    ],
)
def test_a_refused_document_is_written_again_only_if_the_source_has_it_older(
    leaves: dict[str, int], again: dict[str, Any] | None
) -> None:
    around = Around()
    around.leaves = leaves
    around.results = [{"t": result(refused={"a": write_version(1, 9)}), "u": result()}]
    around.writer().write(items_of(full("a", 2), full("b")))
    rewound = around.observer.of("rewind")
    if again is None:
        assert (len(around.batches), rewound, around.checkpoint.epoch) == (1, [], 1)
    else:
        (document,) = around.batches[1].documents
        assert (document.id, document.rows) == ("a", again)
        assert (around.batches[1].epoch, around.batches[1].checkpoint) == (2, None)
        assert rewound == [{"kind": Rewind.REGRESSED, "reason": "1 documents regressed in the source"}]
        assert around.done.index("epoch") < around.done.index(("deliver", ["a"], 2))
    assert around.done[-2:] == [("ack", 2), "unlock"]


def test_an_older_state_behind_a_newer_one_in_one_batch_is_checked_too() -> None:
    around = Around()
    around.leaves = {"a": 2}
    around.writer().write(items_of(full("a", 5), full("a", 2)))
    assert [[each.leaf_version for each in batch.documents] for batch in around.batches] == [[5], [2]]


def test_a_document_that_cannot_be_written_again_gets_a_dead_letter_without_a_position() -> None:
    around = Around()
    around.results = [{"t": result(refused={"a": write_version(1, 9)})}, {"t": result(dead={"a": "bad"})}]
    around.writer().write(items_of(full("a", 2)))
    assert ("dead", [("a", "")]) in around.done


def test_no_epoch_is_raised_twice_for_batches_side_by_side() -> None:
    around = Around()
    around.results = [{"t": result(refused={"a": write_version(1, 2)})}]
    writer = around.writer()
    deliver = around.deliver

    def raised_meanwhile(batch: Batch) -> Any:
        answer = deliver(batch)
        if batch.epoch == 1:
            around.checkpoint = replace(around.checkpoint, epoch=2)
        return answer

    around.deliver = raised_meanwhile
    writer.write(items_of(full("a", 2)))
    assert "epoch" not in around.done
    assert [batch.epoch for batch in around.batches] == [1, 2], "what is equal under the old one is doubted"


@pytest.mark.parametrize(
    ("saved", "purge_seq", "deliveries"),
    [("3-p", "3-p", [1]), ("3-p", "5-p", [1, 2]), (None, "5-p", [1]), ("3-p", None, [1])],
)
def test_an_equal_version_is_a_replay_unless_the_source_was_purged(
    saved: str | None, purge_seq: str | None, deliveries: list[int]
) -> None:
    around = Around(purge_seq=saved)
    around.purge_seq = purge_seq
    around.results = [{"t": result(refused={"a": write_version(1, 2)})}]
    around.writer().write(items_of(full("a", 2)))
    assert [batch.epoch for batch in around.batches] == deliveries


def test_one_purge_raises_the_epoch_once_however_often_it_is_met() -> None:
    around = Around(purge_seq="3-p")
    around.purge_seq = "5-p"
    equal = {"t": result(refused={"a": write_version(1, 2)})}
    around.results = [equal, {"t": result()}, {"t": result(refused={"a": write_version(2, 2)})}]
    writer = around.writer()
    writer.write(items_of(full("a", 2)))
    writer.write(items_of(full("a", 2)))
    assert around.checkpoint.epoch == 2
    assert [batch.epoch for batch in around.batches] == [1, 2, 2]


def test_without_trust_an_equal_document_is_written_again_unless_another_target_has_it_newer() -> None:
    around = Around()
    around.leaves = {"b": 9}
    around.results = [
        {
            "t": result(refused={"a": write_version(1, 2), "b": write_version(1, 2)}),
            "u": result(refused={"b": write_version(1, 9)}),
        }
    ]
    around.writer(trust_equal=False).write(items_of(full("a", 2), full("b", 2)))
    assert [[each.id for each in batch.documents] for batch in around.batches] == [["a", "b"], ["a"]]


@pytest.mark.parametrize(
    ("saved", "told", "epoch"), [("3-p", "5-p", 2), ("3-p", "3-p", 1), (None, "5-p", 1), ("3-p", None, 1)]
)
def test_the_epoch_is_raised_once_purged_documents_are_removed(
    saved: str | None, told: str | None, epoch: int
) -> None:
    around = Around(purge_seq=saved)
    around.writer().write(items_of(rows("gone"), purge_seq=told))
    assert around.checkpoint.epoch == epoch
    assert around.done.index(("deliver", ["gone"], 1)) < around.done.index(("ack", 1))


def test_a_purge_that_was_told_is_not_taken_for_a_new_one_by_an_equal_version() -> None:
    around = Around(purge_seq="3-p")
    around.purge_seq = "5-p"
    writer = around.writer()
    writer.write(items_of(rows("gone"), purge_seq="5-p"))
    around.results = [{"t": result(refused={"a": write_version(2, 2)})}]
    writer.write(items_of(full("a", 2)))
    assert around.checkpoint.epoch == 2
    assert [batch.epoch for batch in around.batches] == [1, 2]


# --- what the observer is told


def test_a_batch_is_reported_with_its_counts_and_seconds() -> None:
    around = Around()
    around.move = WatermarkMove(changes=2, arrived_at=around.clock.monotonic() - 5.0)
    around.leaves = {"a": 9}
    around.results = [{"t": result(refused={"a": write_version(1, 9)}), "u": result(dead={"b": "bad"})}]
    writer = around.writer()
    deliver = around.deliver

    def slow(batch: Batch) -> Any:
        around.clock.advance(2.0)
        return deliver(batch)

    around.deliver = slow
    writer.write(items_of(rows("a"), rows("b")))
    assert around.observer.of("batch") == [{"documents": 2, "refused": 1, "dead": 1, "seconds": 2.0}]
    assert around.observer.of("acknowledged") == [{"changes": 2, "seconds": 7.0}]


def test_nothing_is_reported_as_acknowledged_while_the_watermark_stays() -> None:
    around = Around()
    around.writer().write(items_of(rows("a")))
    assert around.observer.of("acknowledged") == []
    assert around.observer.of("stage") == []


def test_rows_that_are_made_in_chunks_are_made_before_anything_else_and_timed() -> None:
    around = Around()

    def many(docs: Any) -> Any:
        around.clock.advance(3.0)
        around.done.append("transform")
        return [{"n": 1} for _ in docs]

    document = Document(id="a", rev="1-a", leaf_version=1, deleted=False, raw=msgspec.Raw(b"{}"))
    around.writer(ChunkedTransform(many, ("out",), chunk=5)).write(items_of(document))
    assert around.done[:2] == ["transform", "lock"]
    assert around.batches[0].documents[0].rows == {"out": ({"n": 1},)}
    assert around.observer.of("stage") == [{"stage": "transform", "seconds": 3.0}]


def test_a_rewind_of_the_source_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_delivery, "REWIND_MIN_DOCUMENTS", 2)
    around = Around()
    around.leaves = {"a": 9, "b": 9}
    refused = {"a": write_version(1, 9), "b": write_version(1, 9)}
    around.results = [{"t": result(refused=refused), "u": result(refused={"a": write_version(1, 9)})}]
    around.writer().write(items_of(rows("a"), rows("b")))
    assert around.observer.of("rewind") == [
        {"kind": Rewind.REPEATED, "reason": "2 documents in a row were written before"}
    ]


def test_a_few_documents_that_were_written_before_are_no_rewind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_delivery, "REWIND_MIN_DOCUMENTS", 2)
    around = Around()
    around.leaves = {"a": 9}
    around.results = [{"t": result(refused={"a": write_version(1, 9)})}]
    around.writer().write(items_of(rows("a"), rows("b"), rows("c")))
    assert around.observer.of("rewind") == []


def purge_items(*ids: str, recreated: bool = False, seq: str = "5-p") -> list[Any]:
    """Deletions of purged documents, as the feed reports them."""
    segment = PendingRange(ChangeBatch(changes=(), seq=None, purge_seq=seq, recreated=recreated))
    return [(segment, rows(id, 0)) for id in ids] or [(segment, None)]


def test_a8_a_purge_that_changes_no_target_needs_no_epoch() -> None:
    """Of 41 rounds of purges, 47 epochs were made."""
    around = Around(purge_seq="3-p")
    around.purge_seq = "5-p"
    # "a" was never there, and "b" was removed before.
    around.results = [{"t": result(refused={"b": write_version(1, 0)})}]
    around.writer().write(purge_items("a", "b"))
    around.writer().write(purge_items())
    assert around.checkpoint.epoch == 1
    assert len(around.batches) == 1


@pytest.mark.parametrize("recreated", [False, True])
def test_a8_one_epoch_is_enough_for_a_purge_of_many_batches(recreated: bool) -> None:
    around = Around(purge_seq="3-p")
    around.purge_seq = "5-p"
    around.results = [
        {"t": result(refused={"a": write_version(1, 4)})},
        {"t": result()},
        {"t": result()},
        {"t": result(refused={"c": write_version(2, 0)})},
    ]
    writer = around.writer()
    for id in ("a", "b", "c"):
        writer.write(purge_items(id, recreated=recreated))
    assert [(batch.epoch, [d.id for d in batch.documents]) for batch in around.batches] == [
        (1, ["a"]),
        (2, ["a"]),
        (2, ["b"]),
        (2, ["c"]),
    ]
    assert around.checkpoint.epoch == 2


@pytest.mark.parametrize(
    ("recreated", "leaves"),
    [(True, {}), (False, {"a": 4})],
    ids=["it existed when the purges were listed", "it exists when it is looked at"],
)
def test_a8_a_purged_document_that_exists_again_raises_the_epoch(
    recreated: bool, leaves: dict[str, int]
) -> None:
    """Its row of the former version would otherwise be taken for a replay."""
    around = Around(purge_seq="3-p")
    around.purge_seq, around.leaves = "5-p", leaves
    around.results = [{"t": result(refused={"a": write_version(1, 4)} if leaves else {})}]
    around.writer().write(purge_items("a", recreated=recreated))
    assert around.checkpoint.epoch == 2
    assert len(around.batches) == 1
