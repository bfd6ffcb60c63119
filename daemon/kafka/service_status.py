"""The status of every tail of a service, published by the daemon that runs it: topic `status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import structlog
from confluent_kafka import Message as LibraryMessage

from checkpoints import TailKey
from daemon.kafka.topic_follower import TopicFollower
from pillows.change_topics.partition_keys import split_partition
from pillows.clock import Clock
from pillows.errors import PillowError
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topic_log import read_log
from pillows.runtime.status import TailStatus

#: Interval at which each daemon publishes the status of its tails.
TELL_SECONDS = 5.0
#: Age after which a status is ignored: its daemon has ended, or can't reach the brokers.
STALE_SECONDS = 20.0

_log = structlog.get_logger("pillowd.kafka")


class _Told(msgspec.Struct, frozen=True):
    """The value of a message: a status, and the daemon that told it."""

    status: TailStatus
    by: str = ""


class _Heard(msgspec.Struct, frozen=True):
    """A status, the offset of its message, and monotonic seconds when that came."""

    offset: int
    at: float
    status: TailStatus


class ServiceStatus:
    """The statuses that the daemons of a service have published.

    Args:
        options: the cluster.
        topic: its name.
        producer: sends the messages. Its owner closes it.
        clock: for ages. They count from when a status was heard: another machine's clock may be wrong.
        instance_id: of this daemon.
    """

    def __init__(
        self,
        options: KafkaConnection,
        topic: str,
        producer: Producer,
        clock: Clock,
        *,
        instance_id: str = "",
    ) -> None:
        self._options = options
        self._topic = topic
        self._producer = producer
        self._instance_id = instance_id
        self._clock = clock
        self._known: dict[TailKey, _Heard] = {}
        self._heard_at: dict[str, float] = {}  # pillow -> monotonic seconds
        self._next_offset: int | None = None
        self._follower: TopicFollower | None = None

    def open(self) -> None:
        """Follow the topic from its end on: how old the statuses are that it holds is not known.

        Raises:
            PillowError: the topic can't be read.
        """
        next_offset = self._read()
        self._known.clear()
        self._heard_at.clear()
        self._follower = TopicFollower(self._options, self._topic, next_offset, self._take)

    def tell(self, statuses: Sequence[TailStatus]) -> None:
        """Publish the status of the tails of this daemon. Ignore a failure: the next status follows."""
        if not statuses:
            return
        messages = [
            Message(
                id=each.source,
                key=str(TailKey(each.pillow, each.source)).encode(),
                topic=self._topic,
                value=msgspec.json.encode(_Told(each, self._instance_id)),
                headers=[],
                partition=0,
            )
            for each in statuses
        ]
        try:
            self._producer.send(messages)
        except PillowError as error:
            _log.warning("status.not_told", error=str(error))

    def find(self, key: TailKey) -> Mapping[int, TailStatus]:
        """Return the recent statuses of a pillow's partitions.

        Args:
            key: the pillow's.
        """
        since, found = self._clock.monotonic() - STALE_SECONDS, {}
        for tail, heard in self._known.items():
            whole, number = split_partition(tail)
            if whole == key and number is not None and heard.at >= since:
                found[number] = heard.status
        return found

    def listen(self, key: TailKey) -> float | None:
        """Return when another daemon was last heard to run a pillow, whatever source it reads there.

        Read what was published until now: else silence might be that of the brokers.

        Returns:
            Monotonic seconds; None if none was heard since `open`.

        Raises:
            PillowError: the topic can't be read.
        """
        self._read()
        return self._heard_at.get(key.pillow)

    def get(self, key: TailKey) -> TailStatus | None:
        """Return the status of one tail; None if no daemon published it recently."""
        heard = self._known.get(key)
        if heard is None or self._clock.monotonic() - heard.at > STALE_SECONDS:
            return None
        return heard.status

    def close(self) -> None:
        """Stop following the topic."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    def _read(self) -> int:
        """Take what was published since the last call; return the offset after it."""
        log = read_log(self._options, self._topic, 0, self._next_offset)
        for message in log.records.values():
            self._take(message)
        self._next_offset = log.next_offset
        return log.next_offset

    def _take(self, message: LibraryMessage) -> None:
        """Keep a status. Daemons are updated one by one, so that of another version may have other fields.

        Fields that are unknown here are left out. A status that can't be read counts as not told.
        """
        try:
            told = msgspec.json.decode(message.value() or b"", type=_Told)
        except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
            _log.warning("status.not_read", topic=self._topic, offset=message.offset(), error=str(error))
            return
        key = TailKey(told.status.pillow, told.status.source)
        offset, now = message.offset() or 0, self._clock.monotonic()
        if key in self._known and offset <= self._known[key].offset:
            return  # `listen` reads some messages a second time
        self._known[key] = _Heard(offset, now, told.status)
        if told.by != self._instance_id:
            self._heard_at[key.pillow] = now
