"""How far the group of a pillow has come in the topic of its database."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from confluent_kafka import Consumer, KafkaException, TopicPartition
from msgspec import Struct

from checkpoints import TailKey
from pillows.change_topics.names import ServiceTopics
from pillows.errors import RetryableError
from pillows.kafka.delivery import to_failure
from pillows.kafka.errors import to_error
from pillows.kafka.group import Offset
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import CALL_SECONDS
from pillows.kafka.settings import make_consumer_settings
from pillows.serial_worker import SerialWorker


class GroupOffsets(Struct, frozen=True, kw_only=True):
    """The offsets of one moment.

    Attributes:
        committed: partition -> the offset that the group has committed, where there is one.
        ends: partition -> the offset behind its last record.
    """

    committed: Mapping[int, Offset]
    ends: Mapping[int, int]

    def find_behind(self, ends: Mapping[int, int]) -> list[int]:
        """Return the partitions that may have a record before an end which is not acknowledged.

        Every record is written in a transaction, whose end takes an offset, too. A tail may pass that later.

        Args:
            ends: partition -> the offset behind its last record at an earlier moment.
        """
        places = {number: each.offset for number, each in self.committed.items()}
        return [number for number, end in ends.items() if places.get(number, 0) < end - 1]


def read_group_offsets(options: KafkaConnection, topics: ServiceTopics, tail: TailKey) -> GroupOffsets:
    """Return the offsets of a pillow.

    Raises:
        PillowError: the brokers can't be asked, or the database was not read yet.
    """
    group, topic = topics.group(tail.pillow), topics.changes(tail.source)

    def read() -> GroupOffsets:
        with closing(Consumer(make_consumer_settings(options, group))) as consumer:
            known = consumer.list_topics(topic, timeout=CALL_SECONDS).topics[topic].partitions
            places = [TopicPartition(topic, number) for number in known]
            found = consumer.committed(places, CALL_SECONDS) if places else []
            return GroupOffsets(
                committed={
                    each.partition: Offset(
                        partition=each.partition, offset=each.offset, metadata=each.metadata or ""
                    )
                    for each in found
                    if each.offset >= 0
                },
                ends={
                    each.partition: consumer.get_watermark_offsets(each, timeout=CALL_SECONDS)[1]
                    for each in places
                },
            )

    try:
        offsets = SerialWorker().run(read)
    except KafkaException as error:
        raise to_error(to_failure(error.args[0]), options.servers) from error
    if not offsets.ends:
        raise RetryableError(f"The topic of {tail.source} does not exist yet.")
    return offsets
