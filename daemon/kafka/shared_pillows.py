"""What an operator asks of a pillow that several daemons share, wherever its partitions are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from confluent_kafka import Consumer, KafkaException, TopicPartition
from gevent.event import Event

from checkpoints import Checkpoint, TailKey
from daemon.errors import NotFoundError, NotInTimeError
from daemon.kafka.engine import Engine
from pillows.change_topics.positions import load_position
from pillows.clock import Clock
from pillows.kafka.delivery import to_failure
from pillows.kafka.errors import to_error
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import CALL_SECONDS
from pillows.kafka.settings import make_consumer_settings
from pillows.serial_worker import SerialWorker

#: How long to wait until every partition has passed the source's position; each commits every 5 s.
_PASS_SECONDS = 20.0
_STEP_SECONDS = 0.5


class SharedPillows:
    """Asks and tells all daemons of a service at once.

    Args:
        engine: the service.
        clock: for waits.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def reset(self, tail: TailKey) -> None:
        """Have every partition of a pillow read from its beginning, under a new epoch.

        Raises:
            StoreWriteError: it is not known whether that was written.
        """
        self._engine.control.reset(tail.pillow)

    def find_checkpoint(self, tail: TailKey) -> Checkpoint:
        """Return a position of the source that every partition of a pillow has passed.

        The reader's position is read first, and then where each partition ends: once all offsets have passed
        that, everything before the position is written. The last offset of a partition holds the end of a
        transaction, which a tail may pass later.

        Raises:
            NotFoundError: the source was never read.
            NotInTimeError: the partitions are behind.
            PillowError: the brokers can't be asked.
        """
        options, topics = self._engine.options, self._engine.topics
        position = load_position(options, topics, tail.source)
        if position is None:
            raise NotFoundError(f"{tail.source} was not read yet")
        group, topic = topics.group(tail.pillow), topics.changes(tail.source)
        _, ends = _read_offsets(options, group, topic)
        give_up_at = self._clock.monotonic() + _PASS_SECONDS
        while behind := _find_behind(_read_offsets(options, group, topic)[0], ends):
            if self._clock.monotonic() >= give_up_at:
                raise NotInTimeError(
                    f"partitions {', '.join(map(str, behind))} of {tail} are behind its source",
                    remedy="try again when `pillowd status` says that nothing is pending",
                )
            self._clock.wait(Event(), _STEP_SECONDS)
        identity = position.identity
        return Checkpoint(
            seq=position.seq,
            pass_done=True,
            instance_start_time=identity.instance_start_time if identity else None,
            server_uuid=identity.server_uuid if identity else None,
            purge_seq=identity.purge_seq if identity else None,
            saved_at=self._clock.wall(),
        )


def _find_behind(committed: Mapping[int, int], ends: Mapping[int, int]) -> list[int]:
    """Return the partitions that may have a record which is not acknowledged."""
    return [number for number, end in ends.items() if committed.get(number, 0) < end - 1]


def _read_offsets(options: KafkaConnection, group: str, topic: str) -> tuple[dict[int, int], dict[int, int]]:
    """Return the committed offset and the end of each partition.

    Raises:
        PillowError: the brokers can't be asked.
    """

    def read() -> tuple[dict[int, int], dict[int, int]]:
        with closing(Consumer(make_consumer_settings(options, group))) as consumer:
            known = consumer.list_topics(topic, timeout=CALL_SECONDS).topics[topic].partitions
            places = [TopicPartition(topic, number) for number in known]
            found = consumer.committed(places, CALL_SECONDS)
            ends = {
                each.partition: consumer.get_watermark_offsets(each, timeout=CALL_SECONDS)[1]
                for each in places
            }
            return {each.partition: each.offset for each in found if each.offset >= 0}, ends

    try:
        return SerialWorker().run(read)
    except KafkaException as error:
        raise to_error(to_failure(error.args[0]), options.servers) from error
