"""How far the group of a pillow has come in the topic of its database."""

from __future__ import annotations

import time
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
        ends: partition -> the offset behind its last record, at a moment without an open transaction.
    """

    committed: Mapping[int, Offset]
    ends: Mapping[int, int]

    def find_behind(self, ends: Mapping[int, int]) -> list[int]:
        """Return the partitions that may have an unacknowledged record before their end in `ends`.

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
        settings = make_consumer_settings(options, group)
        with (
            closing(Consumer(settings)) as consumer,
            closing(Consumer(settings | {"isolation.level": "read_uncommitted"})) as uncommitted,
        ):
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
                ends={each.partition: _find_end(consumer, uncommitted, each) for each in places},
            )

    try:
        offsets = SerialWorker().run(read)
    except KafkaException as error:
        raise to_error(to_failure(error.args[0]), options.servers) from error
    if not offsets.ends:
        raise RetryableError(f"The topic of {tail.source} does not exist yet.")
    return offsets


def _find_end(committed: Consumer, uncommitted: Consumer, place: TopicPartition) -> int:
    """Return the offset behind the last record of a partition, at a moment when no transaction is open there.

    While one is open, readers of committed records get the offset of its first record, and all that was
    written since is missed. The other end may be in the middle of it: then its last offset is not the end of
    a transaction, as `GroupOffsets.find_behind` expects. The two are asked for in this order, so that they
    are equal only if there was such a moment.

    Raises:
        RetryableError: there was none within `CALL_SECONDS`.
    """
    until = time.monotonic() + CALL_SECONDS
    while True:
        stable = committed.get_watermark_offsets(place, timeout=CALL_SECONDS)[1]
        end = uncommitted.get_watermark_offsets(place, timeout=CALL_SECONDS)[1]
        if stable == end:
            return end
        if time.monotonic() > until:
            raise RetryableError(f"Partition {place.partition} of {place.topic} always has a transaction.")
