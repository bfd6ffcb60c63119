"""The checkpoint of a partition's tail, encoded as a committed offset with metadata text.

Kafka stores a text with each committed offset. So both change in one step, and the next owner of the
partition reads both. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import Checkpoint, Seq
from pillows.change_topics.partition_feed import to_offset
from pillows.errors import ConfigError, StateLostError
from pillows.feed.base import count_purges
from pillows.kafka.group import Offset

#: Longest text that brokers accept with an offset, in bytes (`offset.metadata.max.bytes`, by default).
MAX_BYTES = 4096

#: Format of the text; one with a greater number was written by a newer pillowd.
FORMAT = 1


class PartitionPosition(Struct, frozen=True, kw_only=True):
    """The committed checkpoint of a partition.

    Attributes:
        checkpoint: the tail's; its position is the offset of the next record.
        resets: the number of operators' resets that it includes.
    """

    checkpoint: Checkpoint
    resets: int = 0


def encode_offset(partition: int, position: PartitionPosition) -> Offset:
    """Return the offset to commit for a position.

    Raises:
        ConfigError: its text is too long for Kafka.
    """
    checkpoint = position.checkpoint
    fields = checkpoint.to_json()
    del fields["seq"]  # the offset
    if checkpoint.purge_seq is not None:  # of which nothing else is ever looked at; the rest may be 4 kB
        fields["purge_seq"] = count_purges(checkpoint.purge_seq)
    plain = Checkpoint(seq=Seq.BEGINNING).to_json()
    fields = {name: value for name, value in fields.items() if value != plain[name]}
    text = msgspec.json.encode({"format": FORMAT, "resets": position.resets, "checkpoint": fields})
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"The digests of the outputs need {len(text)} bytes; Kafka stores at most {MAX_BYTES} with an "
            "offset.",
            remedy="divide the outputs among several pillows",
        )
    return Offset(partition=partition, offset=to_offset(checkpoint.seq), metadata=text.decode())


def decode_offset(pillow: str, committed: Offset) -> PartitionPosition:
    """Return the position that was committed.

    Args:
        pillow: its name, for the remedy.
        committed: the offset.

    Raises:
        StateLostError: the text is missing, damaged, or of a newer pillowd.
    """
    try:
        found: dict[str, Any] = msgspec.json.decode(committed.metadata)
        if found["format"] != FORMAT:
            raise StateLostError(
                f"The offset of partition {committed.partition} was committed in format {found['format']}; "
                f"this pillowd knows {FORMAT}.",
                remedy="run the pillowd that committed it, or a newer one",
            )
        plain = Checkpoint(seq=Seq.BEGINNING).to_json()
        checkpoint = Checkpoint.from_json(plain | found["checkpoint"])
        resets = int(found["resets"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateLostError(
            f"The offset of partition {committed.partition} was not committed by pillowd: {error!r}.",
            remedy=_advise_reset(pillow),
        ) from error
    return PartitionPosition(checkpoint=replace(checkpoint, seq=Seq.of(committed.offset)), resets=resets)


def find_position(
    pillow: str, partition: int, committed: Offset | None, *, noted_resets: int | None, resets: int
) -> PartitionPosition:
    """Return where the tail of an assigned partition begins.

    A new partition begins as after a reset: at the first record, in an epoch above all epochs in the targets.
    Rows that are already current are left unchanged.

    Args:
        pillow: the pillow's name.
        partition: the partition.
        committed: its offset; None if there is none.
        noted_resets: how many resets the partition had taken when its first offset was noted; None if none
            was noted.
        resets: how many resets the operators have requested.

    Raises:
        StateLostError: the brokers have dropped the offset, or it can't be read.
    """
    is_reset = noted_resets is not None and noted_resets < resets
    if committed is None:
        if noted_resets is not None and not is_reset:
            raise StateLostError(
                f"The offset of partition {partition} is gone: brokers drop those of a group without members "
                "after `offsets.retention.minutes` (7 days by default).",
                remedy=_advise_reset(pillow),
            )
        return PartitionPosition(checkpoint=Checkpoint.reset(None), resets=resets)
    try:
        position = decode_offset(pillow, committed)
    except StateLostError:
        if not is_reset:
            raise
        return PartitionPosition(checkpoint=Checkpoint.reset(None), resets=resets)
    return reset_if_due(position, resets)


def reset_if_due(position: PartitionPosition, resets: int) -> PartitionPosition:
    """Apply the operators' resets that a position does not include yet."""
    if position.resets >= resets:
        return position
    checkpoint = Checkpoint.reset(position.checkpoint)
    return PartitionPosition(checkpoint=replace(checkpoint, edits=checkpoint.edits + 1), resets=resets)


def _advise_reset(pillow: str) -> str:
    return f"`pillowd checkpoint reset {pillow}` reads the whole topic again"
