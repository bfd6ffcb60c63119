"""Write pages of changes into a topic, each in one transaction with the position after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from pillows.change_topics.names import ServiceTopics
from pillows.change_topics.pages import Piece
from pillows.change_topics.positions import Position, make_message
from pillows.change_topics.records import (
    DATABASE_KEY,
    PurgeRecord,
    encode_change,
    encode_purge,
    make_headers,
)
from pillows.feed.base import DatabaseIdentity, count_purges
from pillows.kafka import topics as topic_admin
from pillows.kafka.message import Headers, Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.models import ChangeBatch


class Destination(Struct, frozen=True, kw_only=True):
    """Where the changes of a database go.

    Attributes:
        source: `connection/database`.
        topics: of the service.
        connection: the cluster.
        partitions: of the topic, if it is created.
    """

    source: str
    topics: ServiceTopics
    connection: KafkaConnection
    partitions: int

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self.topics.changes(self.source)


class PageWriter:
    """Writes pages.

    Args:
        producer: sends them in transactions.
        destination: the topic.
    """

    def __init__(self, producer: Producer, destination: Destination) -> None:
        self._producer = producer
        self._to = destination

    def create_topics(self) -> None:
        """Create the topics and partitions that are missing.

        Raises:
            PillowError: see `topics.ensure`.
        """
        topics = self._to.topics
        wanted = [*topics.describe(), topics.describe_changes(self._to.source, self._to.partitions)]
        topic_admin.ensure(self._producer, self._to.connection, wanted)

    def write(self, pieces: Sequence[Piece], before: Position) -> Position:
        """Write pieces of the feed and the position after them; all or nothing.

        Args:
            pieces: the pieces, in order.
            before: the position before them.

        Returns:
            The position after them.

        Raises:
            RetryableError: they may have been written; read the stored position to find out.
            FatalError: they were not written, and a retry cannot help; `FencedError` if another reader has
                taken over.
        """
        after = advance(before, pieces)
        position = make_message(self._to.topics, self._to.source, after)
        messages = [*self._make_messages(pieces, before, after), position]
        self._producer.send_all(messages)
        return after

    def _make_messages(self, pieces: Sequence[Piece], before: Position, after: Position) -> Iterator[Message]:
        topic, known = self._to.topic, before.identity
        for piece in pieces:
            headers = make_headers(self._to.source, piece.identity)
            for change in piece.batch.changes:
                yield Message(change.id, change.id.encode(), topic, encode_change(change), headers)
            if piece.batch.purge_seq is not None:
                purge = make_purge(piece.batch, known, after.missed_at)
                yield from self._make_purges(encode_purge(purge), headers)
            known = piece.identity or known

    def _make_purges(self, value: bytes, headers: Headers) -> Iterator[Message]:
        """Yield a record about purges for each partition: the readers of each must know them."""
        for partition in range(topic_admin.describe(self._producer).partitions[self._to.topic]):
            yield Message("", DATABASE_KEY, self._to.topic, value, headers, partition)


def make_purge(batch: ChangeBatch, known: DatabaseIdentity | None, missed_at: str) -> PurgeRecord:
    """Return the record about the purges of a batch.

    Args:
        batch: the batch.
        known: the database as it was before the batch.
        missed_at: the purge position after the last ones that were missed.
    """
    purge_seq = batch.purge_seq or ""
    new = DatabaseIdentity(purge_seq=purge_seq).count_purges_since(known.purge_seq if known else None)
    return PurgeRecord(
        purge_seq=purge_seq,
        recreated=batch.recreated,
        missed=batch.purges_missed,
        missed_at=missed_at,
        is_back=new < 0,
    )


def advance(before: Position, pieces: Sequence[Piece]) -> Position:
    """Return the position after pieces of the feed. A piece without a position keeps the one before it."""
    seqs = [piece.batch.seq for piece in pieces if piece.batch.seq is not None]
    identities: list[DatabaseIdentity] = [each.identity for each in pieces if each.identity is not None]
    missed = [piece.batch.purge_seq or "" for piece in pieces if piece.batch.purges_missed]
    return Position(
        seq=seqs[-1] if seqs else before.seq,
        identity=identities[-1] if identities else before.identity,
        ordinal=before.ordinal + sum(len(piece.batch.changes) for piece in pieces),
        missed_at=count_purges(missed[-1]) if missed else before.missed_at,
    )
