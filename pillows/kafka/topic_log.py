"""Read one partition of a compacted topic from its beginning to its end: the last value of each key."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as LibraryMessage
from msgspec import Struct

from pillows.errors import RetryableError
from pillows.kafka.delivery import to_failure
from pillows.kafka.errors import Verdict, to_error
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import CALL_SECONDS
from pillows.kafka.settings import make_consumer_settings
from pillows.serial_worker import SerialWorker

_POLL_SECONDS = 0.2


class TopicLog(Struct, frozen=True, kw_only=True):
    """The content of one partition.

    Attributes:
        records: key -> its last message. Keys whose last value is null are left out.
        changed: the keys that were written since the given offset.
        next_offset: the offset after the last message.
    """

    records: Mapping[bytes, LibraryMessage]
    changed: frozenset[bytes]
    next_offset: int


def read_log(options: KafkaConnection, topic: str, partition: int, since: int | None = None) -> TopicLog:
    """Read the committed messages of a partition up to its current end, in a separate thread.

    Wait for transactions that are open now: they may hold the last value of a key.

    Args:
        options: the cluster.
        topic: the topic.
        partition: the partition.
        since: the offset to begin at; the first one if None.

    Raises:
        RetryableError: the brokers are away, or transactions are still open after `CALL_SECONDS`.
        AccessError, ConfigError: the brokers deny access, or the topic does not exist.
    """
    begin = TopicPartition(topic, partition, OFFSET_BEGINNING if since is None else since)
    return SerialWorker().run(_read, options, begin)


def _read(options: KafkaConnection, begin: TopicPartition) -> TopicLog:
    refused: list[Any] = []
    settings = make_consumer_settings(options) | {"error_cb": refused.append, "enable.partition.eof": True}
    until = time.monotonic() + CALL_SECONDS
    try:
        end = _find_end(settings, begin)
        with closing(Consumer(settings)) as consumer:
            consumer.assign([begin])
            return _read_to(consumer, end, until, begin)
    except KafkaException as error:
        failures = [to_failure(error.args[0]), *map(to_failure, refused)]
        refusals = (failure for failure in failures if failure.verdict is Verdict.ACCESS)
        raise to_error(next(refusals, failures[0]), options.servers) from error


def _find_end(settings: dict[str, Any], of: TopicPartition) -> int:
    """Return the offset after the last message, open transactions included."""
    with closing(Consumer(settings | {"isolation.level": "read_uncommitted"})) as consumer:
        return consumer.get_watermark_offsets(of, timeout=CALL_SECONDS)[1]


def _read_to(consumer: Consumer, end: int, until: float, begin: TopicPartition) -> TopicLog:
    records: dict[bytes, LibraryMessage] = {}
    changed: set[bytes] = set()
    position = max(0, begin.offset)
    while position < end:
        if time.monotonic() > until:
            raise RetryableError(
                f"The end of {begin.topic}, partition {begin.partition}, is not committed yet: offset "
                f"{position} of {end}."
            )
        message = consumer.poll(_POLL_SECONDS)
        if message is None:
            continue
        if (error := message.error()) is not None:
            if error.name() != "_PARTITION_EOF":
                raise KafkaException(error)
            position = max(position, message.offset() or 0)
            continue
        position = (message.offset() or 0) + 1
        key = message.key() or b""
        changed.add(key)
        if message.value() is None:
            with suppress(KeyError):
                del records[key]
        else:
            records[key] = message
    return TopicLog(records=records, changed=frozenset(changed), next_offset=position)
