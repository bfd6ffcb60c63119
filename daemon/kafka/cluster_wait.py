"""Wait at the start until Kafka can be reached and the service's topics exist."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from gevent.event import Event

from daemon.config.models import Config
from daemon.coordination.coordinator import Grant
from daemon.kafka.service import find_service
from pillows.clock import Clock, SystemClock
from pillows.errors import RetryableError
from pillows.kafka.topic_log import read_log
from pillows.kafka.topics import create

#: Time between two attempts.
_STEP_SECONDS = 1.0

_log = structlog.get_logger("pillowd.kafka")


class ClusterWait:
    """Grants once the service's topics exist: every daemon runs a share of the pillows.

    See `Coordinator` for the methods.

    Args:
        config: names the cluster and the service.
        clock: for the waits.
    """

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()

    def acquire(self, stop: Event, each_wait: Callable[[str], None]) -> Grant | None:
        """Create the service's topics, and wait until they can be read."""
        options, topics = find_service(self._config)
        told = ""
        while not stop.is_set():
            try:
                create(options, topics.describe())
                for topic in (topics.control, topics.status):
                    read_log(options, topic, 0)
            except RetryableError as error:
                reason = f"waits for Kafka: {error}"
            else:
                return Grant()
            if reason != told:
                told = reason
                _log.info("kafka.waiting", reason=reason)
            each_wait(reason)
            self._clock.wait(stop, _STEP_SECONDS)
        return None

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Do nothing: each pillow is told which partitions it loses."""

    def close(self) -> None:
        """Do nothing."""
