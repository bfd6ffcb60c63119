"""The checkpoint of an assigned partition, until it is revoked or lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from checkpoints import Checkpoint, CheckpointMoved, Seq, StoreWriteError, TailKey
from daemon.kafka.offset_metadata import PartitionPosition, decode_offset
from daemon.kafka.partition_checkpoints import PartitionCheckpoints
from pillows.errors import RetryableError, StateLostError
from pillows.kafka.group import Offset

KEY = TailKey("cases", "couch/cases#3")
AT_7 = Checkpoint(seq=Seq.of(7), edits=1, epoch=2)


class Group:
    """Takes commits, or refuses them."""

    def __init__(self) -> None:
        self.committed: list[Offset] = []
        self.refusal: Exception | None = None
        self.on_commit = lambda: None

    def commit(self, offsets: Sequence[Offset]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.committed += offsets
        self.on_commit()

    @property
    def last(self) -> PartitionPosition:
        return decode_offset("cases", self.committed[-1])


def make(group: Group, position: PartitionPosition | StateLostError | None = None) -> PartitionCheckpoints:
    return PartitionCheckpoints(
        KEY, 3, position or PartitionPosition(checkpoint=AT_7, resets=5), offsets=group
    )


def test_a_save_is_committed_with_all_that_belongs_to_it() -> None:
    group = Group()
    store = make(group)
    assert store.get(KEY) == AT_7
    store.save(KEY, replace(AT_7, seq=Seq.of(9), changes=2))
    assert group.committed[-1].offset == 9
    assert group.last == PartitionPosition(checkpoint=replace(AT_7, seq=Seq.of(9), changes=2), resets=5)
    assert store.get(KEY) == group.last.checkpoint
    assert store.keys() == [KEY]


def test_a_commit_that_a_rebalance_refuses_is_a_failed_save_and_may_come_again() -> None:
    group = Group()
    store = make(group)
    group.refusal = RetryableError("REBALANCE_IN_PROGRESS")
    with pytest.raises(StoreWriteError, match="REBALANCE"):
        store.save(KEY, replace(AT_7, seq=Seq.of(9)))
    assert store.get(KEY) == AT_7
    group.refusal = None
    store.save(KEY, replace(AT_7, seq=Seq.of(9)))
    assert group.committed[-1].offset == 9


def test_nothing_is_committed_after_the_partition_was_revoked_or_lost() -> None:
    group = Group()
    store = make(group)
    store.save(KEY, replace(AT_7, seq=Seq.of(9)))
    store.cut()
    for attempt in (
        lambda: store.save(KEY, replace(AT_7, seq=Seq.of(11))),
        lambda: store.edit(KEY, Checkpoint.reset),
        lambda: store.take_resets(6),
    ):
        with pytest.raises(StoreWriteError, match="another member"):
            attempt()
    assert [offset.offset for offset in group.committed] == [9]
    assert store.offset == group.committed[-1]


def test_a_commit_during_which_the_partition_is_lost_does_not_count_here() -> None:
    group = Group()
    store = make(group)
    group.on_commit = store.cut
    with pytest.raises(StoreWriteError):
        store.save(KEY, replace(AT_7, seq=Seq.of(9)))
    assert store.get(KEY) == AT_7


def test_a_reset_is_committed_once_and_the_running_tail_hears_of_it() -> None:
    group, heard = Group(), list[int]()
    store = make(group)
    with store.watching(KEY, lambda: heard.append(1)):
        store.take_resets(5)
        assert not group.committed
        store.take_resets(6)
        store.take_resets(6)
    assert len(heard) == len(group.committed) == 1
    assert group.last.resets == 6
    with pytest.raises(CheckpointMoved):
        store.save(KEY, replace(AT_7, seq=Seq.of(9)))


def test_an_edit_counts_and_keeps_the_resets() -> None:
    group = Group()
    store = make(group)
    edited = store.edit(KEY, Checkpoint.reset)
    assert edited.edits == AT_7.edits + 1
    assert group.last == PartitionPosition(checkpoint=edited, resets=5)


def test_a_lost_offset_stops_the_tail_with_its_remedy_and_commits_nothing() -> None:
    group = Group()
    lost = StateLostError("The offset is gone.", remedy="`pillowd checkpoint reset cases`")
    store = make(group, lost)
    with pytest.raises(StateLostError, match="checkpoint reset cases"):
        store.get(KEY)
    assert store.offset is None
    assert store.keys() == []
