"""CPU that Kafka adds to a change: the reader writes it into a topic, and a consumer takes it out again.

Usage: python -m bench.changes_in_kafka [CHANGES]

Every microsecond of this process counts, the native threads of the client library included. The feed is a
list, so nothing of CouchDB is in it.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from pillows.change_topics.names import ServiceTopics
from pillows.change_topics.page_writer import Destination, PageWriter
from pillows.change_topics.pages import PAGE_CHANGES, Piece
from pillows.change_topics.positions import Position
from pillows.change_topics.records import decode_change
from pillows.errors import PillowError
from pillows.feed.base import DatabaseIdentity
from pillows.kafka.consumer import Consumer
from pillows.kafka.group import Group, Offset
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.models import Change, ChangeBatch
from tests.servers.kafka import Kafka

PARTITIONS = 12
SOURCE = "couch/cases"


def make_pages(count: int) -> Iterator[list[Piece]]:
    identity = DatabaseIdentity(instance_start_time="1700000000")
    for begin in range(0, count, PAGE_CHANGES):
        changes = [
            Change(
                id=f"{number:08x}-89ab-4cde-8f01-23456789abcd",
                revs=(f"3-{number:032x}",),
                leaf_version=3,
            )
            for number in range(begin, begin + PAGE_CHANGES)
        ]
        yield [Piece(ChangeBatch(changes=changes, seq=None), identity)]


def write(options: KafkaConnection, topics: ServiceTopics, count: int) -> float:
    """Seconds of CPU."""
    to = Destination(source=SOURCE, topics=topics, connection=options, partitions=PARTITIONS)
    pages = list(make_pages(count))
    with closing(Producer(options, topics.reader_id(SOURCE))) as producer:
        writer, position = PageWriter(producer, to), Position()
        writer.create_topics()
        producer.fence()
        began = time.process_time()
        for page in pages:
            position = writer.write(page, position)
        return time.process_time() - began


class _All:
    """Begins every partition at its first message."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, 0)

    def revoked(self, _: Sequence[int]) -> Sequence[Offset]:
        return ()

    def lost(self, _: Sequence[int]) -> None:
        pass

    def failed(self, error: PillowError) -> None:
        raise error


def read(options: KafkaConnection, topics: ServiceTopics, count: int) -> float:
    """Seconds of CPU, for all that a partition's feed does before it has changes."""
    group = Group(id="bench", instance_id="bench")
    taken = 0
    with closing(Consumer(options, group, topics.changes(SOURCE), _All())) as consumer:
        began = time.process_time()
        consumer.start()
        while taken < count:
            for partition in consumer.partitions or [0]:
                for message in consumer.take(partition, 0.05):
                    if message.error() is None:
                        decode_change(message.key() or b"", message.value() or b"")
                        taken += 1
        return time.process_time() - began


def main(count: int) -> None:
    with Kafka() as server:
        options, topics = KafkaConnection(servers=(server.where,)), ServiceTopics("bench")
        written = write(options, topics, count) / count * 1e6
        taken = read(options, topics, count) / count * 1e6
        print(
            f"{count} changes: write {written:.1f}, take {taken:.1f}, both {written + taken:.1f} us CPU each"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
