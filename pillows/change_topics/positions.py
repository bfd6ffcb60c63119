"""The position up to which a database was read, written in the transaction of its changes."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from checkpoints import Seq
from pillows.change_topics.names import ServiceTopics, find_unit
from pillows.errors import StateLostError
from pillows.feed.base import DatabaseIdentity
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.topic_log import read_log

#: The record's format; a greater number was written by a newer pillowd. Readers of format 1 left design
#: documents out unless a pillow wanted them at that time.
FORMAT = 2


class Position(Struct, frozen=True, kw_only=True):
    """The position up to which a database was read.

    Attributes:
        seq: the position after the last written change.
        identity: of the database; None if it is not known yet.
        ordinal: how many changes have been written since the first.
        missed_at: as `PurgeRecord.missed_at`.
        backs: how often the source's purge position went back, since a backup was restored.
    """

    seq: Seq = Seq.BEGINNING
    identity: DatabaseIdentity | None = None
    ordinal: int = 0
    missed_at: str = ""
    backs: int = 0


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    seq: str
    identity: DatabaseIdentity | None
    ordinal: int
    missed_at: str = ""
    backs: int = 0


def load_position(options: KafkaConnection, topics: ServiceTopics, source: str) -> Position | None:
    """Return the position up to which a database was read; None if no reader has begun.

    The position is final only if the caller has fenced the former reader before. It is the beginning if the
    reader was one of format 1.

    Args:
        options: the cluster.
        topics: of the service.
        source: `connection/database`.

    Raises:
        PillowError: see `read_log`.
        StateLostError: the record is damaged, or a newer pillowd wrote it.
    """
    log = read_log(options, topics.positions, find_unit(source))
    message = log.records.get(source.encode())
    if message is None:
        return None
    where = f"The position of {source} in the topic {topics.positions}"
    try:
        found = msgspec.json.decode(message.value() or b"", type=_Record)
    except msgspec.MsgspecError as error:
        raise StateLostError(
            f"{where} is damaged: {error}.",
            remedy="write a null value with this key; the database is then read from its beginning",
        ) from None
    if found.format > FORMAT:
        raise StateLostError(f"{where} was written by a newer pillowd.", remedy="update this one")
    seq = Seq(found.seq) if found.format == FORMAT else Seq.BEGINNING
    return Position(
        seq=seq,
        identity=found.identity,
        ordinal=found.ordinal,
        missed_at=found.missed_at,
        backs=found.backs,
    )


def make_message(topics: ServiceTopics, source: str, position: Position) -> Message:
    """Return a position as a record."""
    record = _Record(
        seq=position.seq.json,
        identity=position.identity,
        ordinal=position.ordinal,
        missed_at=position.missed_at,
        backs=position.backs,
    )
    return Message(
        id=source,
        key=source.encode(),
        topic=topics.positions,
        value=msgspec.json.encode(record),
        headers=[],
        partition=find_unit(source),
    )
