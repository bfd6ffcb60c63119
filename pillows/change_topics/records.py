"""The records of `changes`: for each document its leaves, and never its content.

A record says "look at this id" and is never applied as a state. So compaction, more partitions, duplicates
and old records are harmless, and Kafka's access rights never cover a document.

A deleted document has a record, too, and no null, which the brokers would drop after `delete.retention.ms`: a
consumer that was away for longer would never hear of the deletion.
"""

from __future__ import annotations

import msgspec

from pillows.feed.base import DatabaseIdentity, count_purges
from pillows.kafka.message import Headers
from pillows.models import Change

#: The key of a record about the whole database; no document has an empty id.
DATABASE_KEY = b""

#: Largest value of a record; brokers take a megabyte by default (`message.max.bytes`).
MAX_RECORD_BYTES = 512 * 2**10

#: Header: `connection/database`.
SOURCE = "src"
#: Header: when the database was created, if the server reports it.
IDENTITY = "idn"

#: Before the mark in a purge position, and behind its number of purges; CouchDB writes no tilde.
_BACKS = "-~"


class ChangeRecord(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The value of a document's record.

    Attributes:
        v: the leaf version.
        r: the winning revision.
        l: the other leaves.
        d: whether the winner is a deletion.
        x: why the document can never be read, if so.
    """

    v: int
    r: str
    l: tuple[str, ...] = ()  # noqa: E741 - as it is written
    d: bool = False
    x: str = ""


class PurgeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record about purges; one is in every partition.

    Attributes:
        purge_seq: the source's purge position, marked by `mark_backs`; the records before it name the purged
            documents.
        recreated: whether some of them exist again.
        missed: how many purges the source no longer lists.
        missed_at: the purge position after the last ones that it no longer listed, marked, too; "" if there
            were none. Compaction keeps the last record only, so each repeats it.
        is_back: whether the position is before the former one. Only records that have no mark tell it.
    """

    purge_seq: str
    recreated: bool
    missed: int
    missed_at: str = ""
    is_back: bool = False


def make_headers(source: str, identity: DatabaseIdentity | None) -> Headers:
    """Return the headers of a database's records.

    Args:
        source: `connection/database`.
        identity: of the database; None if it is not known.
    """
    return [(SOURCE, source), (IDENTITY, (identity and identity.instance_start_time) or "")]


def mark_backs(purge_seq: str, backs: int) -> str:
    """Return a purge position with a mark of how often the source went back before it.

    Purges are counted anew after a backup of the source was restored: the same number stands for others then.

    Args:
        purge_seq: the purge position.
        backs: how often the source went back; 0 gets no mark.
    """
    return f"{purge_seq}{_BACKS}{backs}" if backs else purge_seq


def order_purges(purge_seq: str) -> tuple[int, int]:
    """Return how often the source went back before a purge position, and its number of purges.

    Of two positions, the later one is greater.
    """
    found, _, backs = purge_seq.partition(_BACKS)
    purges = count_purges(found)
    return int(backs or 0), int(purges) if purges.isdigit() else 0


_encode = msgspec.msgpack.Encoder().encode
_decode_change = msgspec.msgpack.Decoder(ChangeRecord).decode
_decode_purge = msgspec.msgpack.Decoder(PurgeRecord).decode


def encode_change(change: Change) -> bytes:
    """Return the value of a document's record; one that would be too large marks it as unreadable."""
    revs = change.revs
    value = _encode(ChangeRecord(change.leaf_version, revs[0], revs[1:], change.deleted, change.defect))
    if len(value) > MAX_RECORD_BYTES:
        defect = f"It has {len(revs)} leaf revisions, too many for a record in Kafka."
        return _encode(ChangeRecord(change.leaf_version, revs[0], (), change.deleted, defect))
    return value


def decode_change(key: bytes, value: bytes) -> Change:
    """Return a document's record as a change without the document.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError: it is not a valid record.
    """
    found = _decode_change(value)
    return Change(
        id=key.decode(), revs=(found.r, *found.l), leaf_version=found.v, deleted=found.d, defect=found.x
    )


def encode_purge(record: PurgeRecord) -> bytes:
    """Return the value of a record about purges."""
    return _encode(record)


def decode_purge(value: bytes) -> PurgeRecord:
    """Return a record about purges.

    Raises:
        msgspec.MsgspecError: it is not a valid record.
    """
    return _decode_purge(value)
