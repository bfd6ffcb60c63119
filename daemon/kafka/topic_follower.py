"""Follow one partition of a small topic, such as `control`, and pass every new message to the hub."""

from __future__ import annotations

from collections.abc import Callable
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
        on_message: called with each message.
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
        self._consumer: Consumer | None = None
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """End it."""
        self._greenlet.kill()
        if self._consumer is not None:
            self._worker.run(self._consumer.close)
            self._consumer = None

    def _run(self) -> None:
        while True:
            try:
                self._follow()
            except KafkaException as error:
                _log.warning("topic.not_followed", topic=self._topic, error=str(to_failure(error.args[0])))
            gevent.sleep(_RETRY_SECONDS)

    def _follow(self) -> None:
        settings = make_consumer_settings(self._options)
        consumer: Any = self._worker.run(Consumer, settings)
        self._consumer = consumer
        self._worker.run(consumer.assign, [TopicPartition(self._topic, 0, self._next_offset)])
        while True:
            for message in self._worker.run(consumer.consume, _AT_ONCE, _POLL_SECONDS):
                if message.error() is None:
                    self._next_offset = (message.offset() or 0) + 1
                    self._on_message(message)
