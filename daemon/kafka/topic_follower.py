"""Follow one partition of a small topic, such as `control`, and pass every new message to the hub."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as LibraryMessage

from pillows.kafka.delivery import to_failure
from pillows.kafka.options import KafkaConnection
from pillows.kafka.settings import make_consumer_settings
from pillows.serial_worker import SerialWorker

#: Longest wait of the thread for a message. A close has to wait that long.
_POLL_SECONDS = 0.5
#: Most messages that one call returns.
_AT_ONCE = 500
#: Wait after an error.
_RETRY_SECONDS = 1.0

_log = structlog.get_logger("pillowd.kafka")


class TopicFollower:
    """Follows partition 0 of a topic in a separate greenlet and thread.

    Args:
        options: the cluster.
        topic: the topic.
        since: the offset to begin at.
        on_message: called with each message; with one that it raises an error for, again after a while.
    """

    def __init__(
        self,
        options: KafkaConnection,
        topic: str,
        since: int,
        on_message: Callable[[LibraryMessage], None],
    ) -> None:
        self._options = options
        self._topic = topic
        self._next_offset = since
        self._on_message = on_message
        self._worker = SerialWorker()
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """Stop following."""
        self._greenlet.kill()

    def _run(self) -> None:
        while True:
            try:
                self._follow()
            except KafkaException as error:
                self._warn(str(to_failure(error.args[0])))
            except Exception as error:  # noqa: BLE001 - whatever it is, the other daemons must be heard again
                self._warn(repr(error))
            gevent.sleep(_RETRY_SECONDS)

    def _follow(self) -> None:
        consumer: Any = self._worker.run(Consumer, make_consumer_settings(self._options))
        try:
            self._worker.run(consumer.assign, [TopicPartition(self._topic, 0, self._next_offset)])
            while True:
                for message in self._worker.run(consumer.consume, _AT_ONCE, _POLL_SECONDS):
                    if message.error() is None:
                        self._on_message(message)
                        self._next_offset = (message.offset() or 0) + 1
        finally:
            with suppress(KafkaException, RuntimeError):  # it would hide why this ends
                self._worker.run(consumer.close)

    def _warn(self, error: str) -> None:
        _log.warning("topic.not_followed", topic=self._topic, error=error)
