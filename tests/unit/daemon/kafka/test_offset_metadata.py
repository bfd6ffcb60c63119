"""The checkpoint of a partition as a committed offset."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checkpoints import PASS_TO_BEGIN, Checkpoint, ConfigDigest, Seq
from daemon.kafka.offset_metadata import (
    MAX_BYTES,
    PartitionPosition,
    decode_offset,
    encode_offset,
    find_position,
    reset_if_due,
)
from pillows.errors import ConfigError, InvalidSeqError, StateLostError
from pillows.kafka.group import Offset

CHECKPOINT = Checkpoint(
    seq=Seq.of(812),
    edits=2,
    epoch=5,
    pass_epoch=4,
    pass_done=True,
    instance_start_time="1764400000",
    server_uuid="0f" * 16,
    purge_seq="7",
    digest=ConfigDigest(
        source="s" * 16, outputs='[["warehouse","postgres","0123456789abcdef"]]', pipeline="p"
    ),
    changes=40_000,
    saved_at=1764400000.5,
)
POSITION = PartitionPosition(checkpoint=CHECKPOINT, resets=3)


def find(committed: Offset | None, *, noted: int | None = None, resets: int = 0) -> PartitionPosition:
    return find_position("cases", 3, committed, noted_resets=noted, resets=resets)


def test_a_position_comes_back_as_it_was_committed() -> None:
    offset = encode_offset(3, POSITION)
    assert (offset.partition, offset.offset) == (3, 812)
    assert len(offset.metadata) < 600
    assert decode_offset("cases", offset) == POSITION


def test_of_a_purge_position_only_the_number_is_kept() -> None:
    purged = replace(CHECKPOINT, purge_seq="12-" + "g1AAAA" * 700)
    offset = encode_offset(3, PartitionPosition(checkpoint=purged))
    assert decode_offset("cases", offset).checkpoint.purge_seq == "12"


def test_a_text_that_brokers_would_not_take_is_refused() -> None:
    digest = ConfigDigest(outputs="x" * MAX_BYTES)
    with pytest.raises(ConfigError, match="divide the outputs"):
        encode_offset(3, PartitionPosition(checkpoint=replace(CHECKPOINT, digest=digest)))


def test_a_position_of_couchdb_is_never_committed() -> None:
    with pytest.raises(InvalidSeqError):
        encode_offset(3, PartitionPosition(checkpoint=replace(CHECKPOINT, seq=Seq.of("812-g1A"))))


@pytest.mark.parametrize("metadata", ["", "{}", "[]", "null", '{"format":1,"resets":0}', "\x00"])
def test_an_offset_that_somebody_else_committed_is_refused_with_the_remedy(metadata: str) -> None:
    with pytest.raises(StateLostError, match="checkpoint reset cases"):
        find(Offset(partition=3, offset=7, metadata=metadata))


def test_an_offset_of_a_newer_pillowd_is_refused() -> None:
    with pytest.raises(StateLostError, match="format 9"):
        find(Offset(partition=3, offset=7, metadata='{"format":9}'))


def test_a_new_partition_begins_as_after_a_reset() -> None:
    begun = find(None, resets=4)
    assert begun.checkpoint.seq == Seq.BEGINNING
    assert begun.checkpoint.pass_epoch == PASS_TO_BEGIN
    assert begun.resets == 4


def test_an_offset_that_brokers_have_dropped_is_refused_and_neither_skipped_nor_read_again() -> None:
    with pytest.raises(StateLostError, match=r"offsets\.retention\.minutes") as refused:
        find(None, noted=2, resets=2)
    assert "pillowd checkpoint reset cases" in refused.value.remedy


def test_a_reset_is_the_remedy_for_an_offset_that_is_gone_or_unreadable() -> None:
    for committed in (None, Offset(partition=3, offset=7, metadata="")):
        begun = find(committed, noted=2, resets=3)
        assert begun.checkpoint.pass_epoch == PASS_TO_BEGIN
        assert begun.resets == 3


def test_each_reset_is_taken_once_and_outranks_the_copy_in_a_target() -> None:
    assert reset_if_due(POSITION, 3) is POSITION
    reset = reset_if_due(POSITION, 4)
    assert reset.checkpoint.pass_epoch == PASS_TO_BEGIN
    assert reset.checkpoint.seq == Seq.BEGINNING
    assert reset.checkpoint.edits == CHECKPOINT.edits + 1
    assert reset_if_due(reset, 4) is reset
    assert find(encode_offset(3, POSITION), noted=3, resets=4) == reset
