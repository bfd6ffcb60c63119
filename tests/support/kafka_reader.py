"""Read a Kafka topic with a consumer of the test's own."""

from __future__ import annotations

from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from pillows.errors import RetryableError
from pillows.kafka.options import KafkaConnection
from pillows.kafka.topic_log import read_log


def read_topic(server: str, topic: str, **settings: Any) -> list[Message]:
    """Return every committed message of a topic, partition after partition."""
    consumer = Consumer(
        {"bootstrap.servers": server, "group.id": "test", "enable.auto.commit": False,
         "isolation.level": "read_committed", "enable.partition.eof": True, **settings}
    )  # fmt: skip
    try:
        known = consumer.list_topics(timeout=30).topics.get(topic)
        left = set(known.partitions) if known and known.error is None else set()
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
        found: list[Message] = []
        while left:
            message = consumer.poll(1.0)
            if message is None:
                continue
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.name() == "_PARTITION_EOF", error
                left.discard(message.partition())
        return sorted(found, key=lambda each: (each.partition(), each.offset()))
    finally:
        consumer.close()


def headers(message: Message) -> dict[str, str]:
    """Return the headers of a message."""
    found: Any = message.headers()
    return {name: value.decode() for name, value in found}


def is_led(options: KafkaConnection, topic: str, partitions: int) -> bool:
    """Return whether every partition answers: a busy broker needs a while to lead a new topic's."""
    try:
        for number in range(partitions):
            read_log(options, topic, number)
    except RetryableError:
        return False
    return True
