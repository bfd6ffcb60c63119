"""Chunks hold every change of the feed once, in order, and end where its batches end."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from checkpoints import Seq
from pillows.models import Change, ChangeBatch
from pillows.parallel.chunks import MAX_CHANGES, ChunkCutter
from pillows.progress.watermark import Watermark


def changes_of(ids: list[str], size: int) -> list[Change]:
    return [
        Change(id=id, revs=("1-a",), leaf_version=1, deleted=size % 3 == 0, raw=None if size % 2 else
               msgspec.Raw(b'"%b"' % (b"x" * size)))
        for id in ids
    ]  # fmt: skip


#: Batches of a feed: repeated ids, no or some rows, deletions, with and without documents and positions.
batches = st.lists(
    st.builds(
        lambda ids, size, seq: ChangeBatch(changes=changes_of(ids, size), seq=seq and Seq.of(seq)),
        st.lists(st.sampled_from("abc"), max_size=12),
        st.integers(0, 40),
        st.sampled_from([None, "1-a", "2-b"]),
    ),
    max_size=8,
)


def check(feed: list[ChangeBatch]) -> None:
    watermark, cutter = Watermark(), ChunkCutter(max_changes=10, max_bytes=200)
    made, ranges, ends, rows = [], [], set(), 0
    for each in feed:
        ranges.append(watermark.begin(each))
        made += cutter.add(each.changes, ranges[-1])
        rows += len(each.changes)
        ends.add(rows)
    made += filter(None, [cutter.cut()])
    wanted = [change for each in feed for change in each.changes]
    found = [change for chunk in made for change in chunk.changes]
    assert [id(each) for each in found] == [id(each) for each in wanted]  # all, once, in order
    acks = dict.fromkeys(ranges, 0)
    at, largest = 0, max((len(each.changes) for each in feed), default=0)
    for chunk in made:
        at += len(chunk.changes)
        assert at in ends  # cut where the feed's batch ends, never within
        assert len(chunk.changes) <= max(10, largest)
        for pending_range in chunk.ranges:
            acks[pending_range] += 1
    assert all(acks[each] == each.waiting for each in ranges)
    watermark.ack(acks)
    assert (watermark.changes, watermark.oldest_arrived_at) == (0, None)


@given(batches)
def test_the_union_of_the_chunks_is_the_feed_without_overlap(feed):
    check(feed)


def test_a_planted_off_by_one_is_found(monkeypatch):
    right = ChunkCutter._cut

    def wrong(self):
        chunk = right(self)
        return replace(chunk, changes=chunk.changes[:-1])

    monkeypatch.setattr(ChunkCutter, "_cut", wrong)
    with pytest.raises(AssertionError):
        check([ChangeBatch(changes=changes_of(["a", "b"], 1), seq=Seq.of("1-a"))])


def test_a_full_chunk_comes_at_once_and_the_rest_on_demand():
    watermark, cutter = Watermark(), ChunkCutter(max_changes=4, max_bytes=1000)
    batch = ChangeBatch(changes=changes_of(["a", "b", "c"], 1), seq=Seq.of("1-a"))
    assert cutter.add(batch.changes, watermark.begin(batch)) == []
    (full,) = cutter.add(batch.changes, watermark.begin(batch))
    assert len(full.changes) == 3
    rest = cutter.cut()
    assert rest is not None
    assert len(rest.changes) == 3
    assert cutter.cut() is None


@pytest.mark.parametrize(
    ("taken", "sizes"),
    [
        ([], [100]),
        ([(100, 0.1)], [100]),
        ([(100, 0.001)], [MAX_CHANGES]),
        ([(100, 0.001), (1000, 1.0)], [198]),
        ([(1, 60.0)], [1]),
        ([(1, 60.0), *[(100, 0.001)] * 20], [MAX_CHANGES]),
    ],
    ids=["unknown", "slow", "fast", "slower", "a single slow one", "fast again"],
)
def test_a_chunk_is_what_a_worker_does_in_a_tenth_of_a_second(taken, sizes):
    watermark, cutter = Watermark(), ChunkCutter()
    for changes, seconds in taken:
        cutter.note(changes, seconds)
    made: list[int] = []
    while not made:
        batch = ChangeBatch(changes=changes_of(["a"], 1), seq=Seq.of("1-a"))
        made = [len(each.changes) for each in cutter.add(batch.changes, watermark.begin(batch))]
    assert made == sizes


def test_a_batch_without_changes_ends_its_chunk_since_its_position_counts():
    watermark, cutter = Watermark(), ChunkCutter()
    empty = ChangeBatch(changes=(), seq=Seq.of("9-z"), caught_up=True)
    (chunk,) = cutter.add((), watermark.begin(empty))
    assert (len(chunk.changes), len(chunk.ranges)) == (0, 1)
