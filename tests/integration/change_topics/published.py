"""The records of a reader as other consumers see them, and whether they agree with its position."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from confluent_kafka import Message

from pillows.change_topics.names import ServiceTopics
from pillows.change_topics.positions import Position, load_position
from pillows.change_topics.records import DATABASE_KEY, decode_change
from pillows.kafka.options import KafkaConnection
from pillows.models import Change
from tests.servers.couch_client import CouchDatabase
from tests.support.kafka_reader import read_topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The topic of a database, and the position.

    Attributes:
        messages: every committed message about a document.
        changes: the same, decoded.
        position: the committed position.
    """

    messages: list[Message]
    changes: list[Change]
    position: Position | None

    @classmethod
    def read(cls, server: str, topics: ServiceTopics, source: str) -> Published:
        """Read them."""
        options = KafkaConnection(servers=(server,))
        found = read_topic(server, topics.changes(source))
        messages = [each for each in found if each.key() != DATABASE_KEY]
        assert all(each.value() is not None for each in messages), "a null is dropped after a day"
        return cls(
            messages=messages,
            changes=[decode_change(each.key() or b"", each.value() or b"") for each in messages],
            position=load_position(options, topics, source),
        )

    def assert_agreeing(self) -> None:
        """Assert that the position counts exactly what was published."""
        ordinal = self.position.ordinal if self.position else 0
        assert ordinal == len(self.changes), f"{ordinal} are counted, {len(self.changes)} are there"

    def assert_complete(self, couch: CouchDatabase) -> None:
        """Assert that the last record of each document is its state in the source."""
        found = couch.changes(since=0, style="all_docs")["results"]
        expected = {
            row["id"]: ({each["rev"] for each in row["changes"]}, row.get("deleted", False)) for row in found
        }
        last = {each.id: (set(each.revs), each.deleted) for each in self.changes}
        assert last == expected

    def count_repeated(self) -> int:
        """Return how many states were published more than once."""
        return sum(count - 1 for count in Counter((each.id, each.revs) for each in self.changes).values())
