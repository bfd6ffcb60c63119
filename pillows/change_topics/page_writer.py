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
    mark_backs,
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
        messages: list[Message] = []
        after = before
        for piece in pieces:
            after = advance(after, piece)
            messages += self._make_messages(piece, after)
        messages.append(make_message(self._to.topics, self._to.source, after))
        self._producer.send_all(messages)
        return after

    def _make_messages(self, piece: Piece, after: Position) -> Iterator[Message]:
        headers = make_headers(self._to.source, piece.identity)
        for change in piece.batch.changes:
            yield Message(change.id, change.id.encode(), self._to.topic, encode_change(change), headers)
        if piece.batch.purge_seq is not None:
            yield from self._make_purges(encode_purge(make_purge(piece.batch, after)), headers)

    def _make_purges(self, value: bytes, headers: Headers) -> Iterator[Message]:
        """Yield a record about purges for each partition: the readers of each must know them."""
        for partition in range(topic_admin.describe(self._producer).partitions[self._to.topic]):
            yield Message("", DATABASE_KEY, self._to.topic, value, headers, partition)


def make_purge(batch: ChangeBatch, after: Position) -> PurgeRecord:
    """Return the record about the purges of a batch.

    Args:
        batch: the batch.
        after: the position after the batch.
    """
    return PurgeRecord(
        purge_seq=mark_backs(batch.purge_seq or "", after.backs),
        recreated=batch.recreated,
        missed=batch.purges_missed,
        missed_at=after.missed_at,
    )


def advance(before: Position, piece: Piece) -> Position:
    """Return the position after a piece of the feed. A piece without a position keeps the one before it."""
    batch, missed_at, backs = piece.batch, before.missed_at, before.backs
    if batch.purge_seq is not None:
        known = before.identity.purge_seq if before.identity else None
        if DatabaseIdentity(purge_seq=batch.purge_seq).count_purges_since(known) < 0:
            backs += 1
        if batch.purges_missed:
            missed_at = mark_backs(count_purges(batch.purge_seq), backs)
    return Position(
        seq=before.seq if batch.seq is None else batch.seq,
        identity=piece.identity or before.identity,
        ordinal=before.ordinal + len(batch.changes),
        missed_at=missed_at,
        backs=backs,
    )
