"""The watermark never passes a change that is not acknowledged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from checkpoints import Seq
from pillows.models import ChangeBatch
from pillows.progress.watermark import PendingRange, Watermark, WatermarkMove
from tests.support.list_feed import batch, change


def arrived(watermark: Watermark, *counts: int, seqs: bool = True):
    return [
        watermark.begin(batch(f"{n}-x" if seqs else None, *(change(f"{n}/{i}") for i in range(count))))
        for n, count in enumerate(counts)
    ]


def test_the_oldest_change_that_is_not_passed_tells_when_it_arrived():
    watermark = Watermark()
    assert watermark.oldest_arrived_at is None
    first = watermark.begin(batch("1-x", change("a")), 7.0)
    second = watermark.begin(batch("2-x", change("b")), 9.0)
    assert watermark.oldest_arrived_at == 7.0
    watermark.ack({first: 1})
    assert watermark.oldest_arrived_at == 9.0
    watermark.ack({second: 1})
    assert watermark.oldest_arrived_at is None


def test_a_late_acknowledgement_holds_back_everything_behind_it():
    watermark = Watermark()
    first, second = arrived(watermark, 3, 2)

    assert watermark.ack({second: 2}).seq is None
    assert watermark.ack({first: 2}).seq is None
    assert watermark.ack({first: 1}).seq == Seq.of("1-x")


def test_a_segment_without_a_position_is_passed_with_the_one_before():
    watermark = Watermark()
    (first,) = arrived(watermark, 1)
    (second,) = arrived(watermark, 1, seqs=False)

    advance = watermark.ack({first: 1, second: 1})

    assert advance.seq == Seq.of("0-x")
    assert advance.changes == 2


def test_a_position_without_changes_is_acknowledged_in_its_turn():
    watermark = Watermark()
    first, empty = arrived(watermark, 1, 0)

    assert watermark.ack({empty: 1}).seq is None
    assert watermark.ack({first: 1}).seq == Seq.of("1-x")


def test_looking_ahead_takes_nothing():
    watermark = Watermark()
    (first,) = arrived(watermark, 1)

    assert watermark.peek({first: 1}).seq == Seq.of("0-x")
    assert watermark.ack({}).seq is None
    assert watermark.ack({first: 1}).seq == Seq.of("0-x")


def test_being_caught_up_counts_once_everything_before_is_acknowledged():
    watermark = Watermark()
    (first,) = arrived(watermark, 1)
    head = watermark.begin(ChangeBatch(changes=(), seq=Seq.of("9"), caught_up=True, pending=0))

    assert not watermark.ack({head: 1}).caught_up
    advance = watermark.ack({first: 1})

    assert advance.caught_up
    assert advance.pending == 0


def test_it_counts_the_changes_that_it_has_not_passed_and_forgets_the_others():
    watermark = Watermark()
    assert watermark.changes == 0
    first, second, empty = arrived(watermark, 3, 2, 0)
    assert watermark.changes == 5
    watermark.ack({second: 2})
    assert watermark.changes == 5, "none is passed yet"
    watermark.ack({first: 3})
    assert watermark.changes == 0
    move = watermark.ack({empty: 1})
    assert (move.changes, move.seq) == (0, Seq.of("2-x")), "what was passed before counts once"
    assert watermark.ack({}) == WatermarkMove(), "and nothing is passed twice"


def test_a_preview_leaves_the_count_as_it_is():
    watermark = Watermark()
    (first,) = arrived(watermark, 3)
    assert watermark.peek({first: 3}).changes == 3
    assert watermark.peek({first: 2}).changes == 0
    assert watermark.changes == 3


def test_a_move_tells_when_the_oldest_of_its_changes_arrived():
    watermark = Watermark()
    first, second = (watermark.begin(batch("1-x", change("a")), at) for at in (5.0, 9.0))
    assert watermark.ack({second: 1}).arrived_at is None
    assert watermark.ack({first: 1}).arrived_at == 5.0
    plain = watermark.begin(batch("1-x", change("a")))
    assert plain.arrived_at == PendingRange(batch("1-x")).arrived_at == 0.0


@pytest.mark.parametrize(
    ("purges", "found"), [([None, None], None), (["3-p", None], "3-p"), (["3-p", "5-p"], "5-p")]
)
def test_a_move_names_the_last_purge_that_it_passed(purges: list[str | None], found: str | None):
    watermark = Watermark()
    ranges = [watermark.begin(ChangeBatch(changes=(), seq=None, purge_seq=each)) for each in purges]
    assert watermark.ack(dict.fromkeys(ranges, 1)).purge_seq == found


@pytest.mark.parametrize(("pendings", "found"), [([7, None], 7), ([7, 0], 0), ([None, None], None)])
def test_a_move_tells_the_newest_count_of_what_is_behind(pendings: list[int | None], found: int | None):
    watermark = Watermark()
    ranges = [watermark.begin(ChangeBatch(changes=(), seq=None, pending=each)) for each in pendings]
    assert watermark.ack(dict.fromkeys(ranges, 1)).pending == found


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_it_stands_at_the_longest_acknowledged_prefix(counts, order):
    watermark = Watermark()
    segments = arrived(watermark, *counts)
    waiting = {segment: max(1, count) for segment, count in zip(segments, counts, strict=True)}
    acks = [segment for segment, count in waiting.items() for _ in range(count)]
    order.shuffle(acks)
    stood = None

    for segment in acks:
        stood = watermark.ack({segment: 1}).seq or stood
        waiting[segment] -= 1
        prefix = next((n for n, s in enumerate(segments) if waiting[s]), len(segments))

        assert stood == (Seq.of(f"{prefix - 1}-x") if prefix else None)


def test_a_range_keeps_what_its_batch_says():
    given = replace(batch("3-x", change("a"), change("b")), purge_seq="4-y", pending=7, recreated=True)
    pending = PendingRange(given, 5.0)
    assert (pending.changes, pending.waiting, pending.seq, pending.arrived_at) == (2, 2, Seq.of("3-x"), 5.0)
    assert (pending.purge_seq, pending.pending, pending.recreated) == ("4-y", 7, True)
    assert PendingRange(batch("1-x")).waiting == 1, "its own acknowledgement"
