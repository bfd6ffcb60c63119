"""Where batches are cut, and how a burst of them becomes fewer."""

from __future__ import annotations

import pytest

from checkpoints import Seq
from pillows.feed.batch_cutter import BATCH_BYTES, BatchCutter, coalesce, merge_batches
from pillows.feed.parsing.changes_parser import parse_change
from pillows.models import ChangeBatch
from tests.unit.pillows.feed.wire import row


def cut(pattern: str, *, size_bytes: int = 100) -> tuple[list[tuple[int, str | None]], BatchCutter]:
    """Sends rows through a cutter: `S` with a position, `-` without."""
    cutter = BatchCutter(skip_design=True)
    batches = []
    for n, kind in enumerate(pattern, start=1):
        batch = cutter.add(parse_change(row(n, f"{n}-s" if kind == "S" else None)), size_bytes)
        if batch is not None:
            batches.append((len(batch.changes), None if batch.seq is None else str(batch.seq)))
    return batches, cutter


@pytest.mark.parametrize(
    ("pattern", "cuts", "rest"),
    [
        ("S" + "-" * 99 + "S" + "-" * 99 + "S", [(101, "101-s"), (100, "201-s")], None),
        ("-" * 99 + "S" + "-" * 99 + "S", [(100, "100-s"), (100, "200-s")], None),
        ("-" * 250, [], None),
        ("S" * 250, [(100, "100-s"), (100, "200-s")], (50, "250-s")),
        ("S" + "-" * 50, [], (1, "1-s")),
        ("", [], None),
    ],
)
def test_batches_are_cut_right_behind_a_row_with_a_position(pattern, cuts, rest):
    batches, cutter = cut(pattern)
    assert batches == cuts
    left = cutter.cut()
    assert (left and (len(left.changes), str(left.seq))) == rest


def test_a_null_position_is_never_replaced_by_the_one_before():
    _, cutter = cut("S--")
    batch = cutter.cut()
    assert [change.id for change in batch.changes] == ["doc-1"]
    assert cutter.cut() is None
    end = cutter.end(Seq.of("9-end"), caught_up=True, pending=0)
    assert ([change.id for change in end.changes], str(end.seq)) == (["doc-2", "doc-3"], "9-end")


def test_the_end_of_an_empty_response_is_a_position_too():
    end = BatchCutter(skip_design=True).end(Seq.of("9-end"), caught_up=True, pending=0)
    assert (list(end.changes), str(end.seq), end.caught_up) == ([], "9-end", True)


def test_large_rows_do_not_wait_for_a_position():
    batches, cutter = cut("S---S--", size_bytes=2**20)
    assert batches == [(1, "1-s"), (1, None), (1, None), (1, None), (1, "5-s"), (1, None), (1, None)]
    assert cutter.cut() is None


def test_rows_before_a_large_one_go_with_it_but_never_beyond_it():
    cutter = BatchCutter(skip_design=True)
    assert cutter.add(parse_change(row(1)), 10) is None
    piece = cutter.add(parse_change(row(2, None)), 2**20)
    assert ([change.id for change in piece.changes], piece.seq) == (["doc-1", "doc-2"], None)
    assert cutter.cut() is None


def test_design_documents_are_left_out_and_their_positions_stay():
    cutter = BatchCutter(skip_design=True)
    cutter.add(parse_change(row(1, id="_design/x")), 10)
    batch = cutter.cut()
    assert (list(batch.changes), str(batch.seq), cutter.rows) == ([], "1-tok", 1)


def test_a_document_without_id_from_an_old_release_is_left_out():
    cutter = BatchCutter(skip_design=False)
    cutter.add(parse_change(row(1, id="")), 10)
    assert list(cutter.cut().changes) == []


def test_a_burst_becomes_one_batch_with_the_last_position():
    one = ChangeBatch(changes=[parse_change(row(1))], seq=Seq.of("1-x"), size_bytes=5)
    two = ChangeBatch(changes=[parse_change(row(2))], seq=Seq.of("2-x"), size_bytes=7, caught_up=True)
    burst = merge_batches([one, two])
    assert ([c.id for c in burst.changes], str(burst.seq)) == (["doc-1", "doc-2"], "2-x")
    assert (burst.size_bytes, burst.caught_up) == (12, True)


def test_a_burst_is_gathered_without_losing_its_positions():
    """Between two positions lies what is seen again after a crash, whatever has gathered meanwhile."""
    burst = [
        ChangeBatch(changes=[parse_change(row(n, f"{n}-x"))], seq=Seq.of(f"{n}-x"), size_bytes=100)
        for n in range(1, 1051)
    ]
    found = coalesce(burst)
    assert [len(each.changes) for each in found] == [100] * 10 + [50]
    assert [str(each.seq) for each in found] == [f"{n}-x" for n in [*range(100, 1001, 100), 1050]]
    assert coalesce([]) == []


def test_the_head_is_not_hidden_by_what_came_since():
    """A pass is over when the head was reached; where somebody always writes more is there at once."""
    page_end = ChangeBatch(changes=[parse_change(row(1))], seq=Seq.of("1-x"), caught_up=True, asked_at=3.0)
    since = ChangeBatch(changes=[parse_change(row(2))], seq=Seq.of("2-x"))
    found = coalesce([page_end, since, since])
    assert [(str(each.seq), each.caught_up, each.asked_at) for each in found] == [
        ("1-x", True, 3.0),
        ("2-x", False, None),
    ]


def changes(*numbers: int) -> list:
    return [parse_change(row(n)) for n in numbers]


@pytest.mark.parametrize(
    ("sizes", "cut_after"),
    [([BATCH_BYTES], 1), ([BATCH_BYTES - 1], None), ([BATCH_BYTES - 1, 1], 2), ([1, BATCH_BYTES - 2], None)],
)
@pytest.mark.parametrize("seq", ["same", None])
def test_a_batch_is_cut_as_soon_as_it_is_large(sizes: list[int], cut_after: int | None, seq: str | None):
    cutter = BatchCutter(skip_design=True)
    cuts = [cutter.add(parse_change(row(n, seq)), size) for n, size in enumerate(sizes, start=1)]
    assert [n for n, batch in enumerate(cuts, start=1) if batch is not None] == (
        [cut_after] if cut_after else []
    )


def test_sizes_are_those_of_the_rows_that_a_batch_holds():
    cutter = BatchCutter(skip_design=True)
    cutter.add(parse_change(row(1)), 10)
    cutter.add(parse_change(row(2, None)), 200)
    assert cutter.cut().size_bytes == 10
    cutter.add(parse_change(row(3, None)), 3000)
    end = cutter.end(Seq.of("9-x"), caught_up=False, pending=7, asked_at=2.0)
    assert (end.size_bytes, end.caught_up, end.pending, end.asked_at) == (3200, False, 7, 2.0)
    assert (cutter.rows, cutter.read_bytes) == (3, 3210)
    assert list(cutter.end(Seq.of("9-x"), caught_up=True, pending=0).changes) == []


def test_after_a_piece_without_position_sizes_begin_again():
    cutter = BatchCutter(skip_design=True)
    piece = cutter.add(parse_change(row(1, None)), BATCH_BYTES + 5)
    assert piece.size_bytes == BATCH_BYTES + 5
    assert cutter.add(parse_change(row(2)), 7) is None
    assert cutter.cut().size_bytes == 7


@pytest.mark.parametrize(("skip_design", "ids"), [(True, ["x_design/"]), (False, ["_design/x", "x_design/"])])
def test_design_documents_are_left_out_only_where_that_is_configured(skip_design: bool, ids: list[str]):
    cutter = BatchCutter(skip_design=skip_design)
    for n, id in enumerate(("_design/x", "x_design/"), start=1):
        cutter.add(parse_change(row(n, id=id)), 1)
    assert [change.id for change in cutter.cut().changes] == ids


def test_one_batch_stays_the_same_object_and_several_keep_the_last_facts():
    one = ChangeBatch(changes=changes(1), seq=Seq.of("1-x"), purge_seq="4", pending=9, asked_at=1.0)
    two = ChangeBatch(changes=changes(2, 3), seq=None, size_bytes=2, pending=5, asked_at=2.0)
    assert merge_batches([one]) is one
    merged = merge_batches([one, two])
    assert (merged.seq, merged.pending, merged.asked_at, merged.purge_seq) == (None, 5, 2.0, "4")
    later = ChangeBatch(changes=(), seq=None, purge_seq="6")
    assert merge_batches([one, later]).purge_seq == "6"


@pytest.mark.parametrize(
    ("lengths", "coalesced"),
    [
        ([99, 1, 1], [100, 1]),
        ([99, 2], [101]),
        ([100, 1], [100, 1]),
        ([0, 0], [0]),
        ([250, 1, 99], [250, 100]),
    ],
)
def test_a_group_ends_with_the_batch_that_fills_it(lengths: list[int], coalesced: list[int]):
    batches = [ChangeBatch(changes=changes(*range(1, n + 1)), seq=None) for n in lengths]
    assert [len(batch.changes) for batch in coalesce(batches)] == coalesced
